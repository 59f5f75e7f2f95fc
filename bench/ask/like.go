package ask

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"sluice.dev/bench"
)

// Like takes answers that are want: JSON, JSON with raw tensors behind it, or else the
// same bytes. Numbers may differ as they do between batches, and the answer may have
// members that want has not.
func Like(want []byte) func(*bench.Answer) error {
	wanted, head, err := parse(want)
	isJSON := err == nil
	return func(a *bench.Answer) error {
		if bytes.Equal(a.Body, want) {
			return nil
		}
		got, n, err := parse(a.Body)
		if a.Head != 0 {
			n = a.Head
		}
		if !isJSON || err != nil || n < 0 || n > len(a.Body) {
			return unlike(a.Body, want)
		}
		if d := (slack{usual, false}).like(got, wanted, 0); d != nil {
			return d
		}
		return likeRaw(a.Body[n:], want[head:], wanted)
	}
}

// parse reads the JSON that b begins with, of n bytes.
func parse(b []byte) (v any, n int, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber() // which tells 30522 from 30521.9
	if err := d.Decode(&v); err != nil {
		return nil, 0, err
	}
	return v, int(d.InputOffset()), nil
}

func unlike(got, want []byte) error { return fmt.Errorf("got %.200q, want %.200q", got, want) }

// slack is by how much numbers may differ: relative to their size; of the largest number
// of their tensor, a hundredth of it. The sums of a batch are added up in another order
// than those of a lone request, and what is left where large numbers cancel out is as
// exact as they were.
type slack struct {
	of     float64
	floats bool // also what is written as whole numbers; else those must be equal
}

const usual = 1e-4

// slackOf is a datatype's: half floats have few digits, whole numbers none to spare.
func slackOf(datatype string) slack {
	switch datatype {
	case "FP32", "FP64":
		return slack{usual, true}
	case "FP16":
		return slack{2e-3, true}
	case "BF16":
		return slack{2e-2, true}
	}
	return slack{}
}

// takes reports whether got may stand for want, beside numbers of up to most.
func (s slack) takes(got, want, most float64) bool {
	if got == want || math.IsNaN(got) && math.IsNaN(want) {
		return true
	}
	d := math.Abs(got - want)
	return d <= math.MaxFloat64 && d <= s.of*max(math.Abs(want), most/100)
}

// whole reports whether a number is written as an integer.
func whole(n json.Number) bool { return !strings.ContainsAny(string(n), ".eE") }

func (s slack) number(got, want json.Number, most float64) bool {
	g, err1 := got.Float64()
	w, err2 := want.Float64()
	if err1 != nil || err2 != nil || whole(got) && whole(want) && !s.floats {
		return got == want || g == 0 && w == 0 // 0 and -0
	}
	return s.takes(g, w, most)
}

// difference is where an answer is not like the one that is wanted.
type difference struct {
	at        string
	got, want any
}

func (d *difference) Error() string {
	return fmt.Sprintf("answer%s is %.100s, want %.100s", d.at, fmt.Sprint(d.got), fmt.Sprint(d.want))
}

// in says that a difference is in a part.
func (d *difference) in(format string, part any) *difference {
	d.at = fmt.Sprintf(format, part) + d.at
	return d
}

// like is where got differs from want, nil where it does not, beside numbers of up to
// most.
func (s slack) like(got, want any, most float64) *difference {
	switch w := want.(type) {
	case []any:
		return s.list(got, w, max(most, largest(w)))
	case map[string]any:
		return s.members(got, w)
	case json.Number:
		if g, ok := got.(json.Number); ok && s.number(g, w, most) {
			return nil
		}
	default: // a text, true, false or null
		if got == want {
			return nil
		}
	}
	return &difference{"", got, want}
}

func (s slack) list(got any, want []any, most float64) *difference {
	g, ok := got.([]any)
	if !ok || len(g) != len(want) {
		return &difference{"", got, want}
	}
	for i := range want {
		if d := s.like(g[i], want[i], most); d != nil {
			return d.in("[%d]", i)
		}
	}
	return nil
}

// members compares those that want has. A tensor's are as exact as its datatype.
func (s slack) members(got any, want map[string]any) *difference {
	g, ok := got.(map[string]any)
	if !ok {
		return &difference{"", got, want}
	}
	datatype, _ := want["datatype"].(string)
	for name, w := range want {
		of := s
		if name == "data" && datatype != "" {
			of = slackOf(datatype)
		}
		if d := of.like(g[name], w, 0); d != nil {
			return d.in(".%s", name)
		}
	}
	return nil
}

// largest is the absolute value of the largest number in lists of lists.
func largest(v any) (most float64) {
	switch v := v.(type) {
	case []any:
		for i := range v {
			most = max(most, largest(v[i]))
		}
	case json.Number:
		most, _ = v.Float64() // what is out of range is compared as text
		most = math.Abs(most)
	}
	return most
}
