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
		if d := like(got, wanted, slack{usual, false}); d != nil {
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
	of    float64
	typed bool // it is that of a datatype; else whole numbers must be equal
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
	return slack{0, true}
}

// takes reports whether got may stand for want, beside numbers of up to largest.
func (s slack) takes(got, want, largest float64) bool {
	if got == want || math.IsNaN(got) && math.IsNaN(want) {
		return true
	}
	d := math.Abs(got - want)
	return d <= math.MaxFloat64 && d <= s.of*max(math.Abs(want), largest/100)
}

// whole reports whether a number is written as an integer.
func whole(n json.Number) bool { return !strings.ContainsAny(string(n), ".eE") }

func (s slack) number(got, want json.Number, largest float64) bool {
	g, err1 := got.Float64()
	w, err2 := want.Float64()
	if err1 != nil || err2 != nil || whole(got) && whole(want) && !(s.typed && s.of > 0) {
		return got == want || g == 0 && w == 0 // 0 and -0
	}
	return s.takes(g, w, largest)
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
	if d != nil {
		d.at = fmt.Sprintf(format, part) + d.at
	}
	return d
}

// like is where got differs from want, nil where it does not.
func like(got, want any, s slack) *difference {
	switch w := want.(type) {
	case []any:
		return s.list(got, w, largest(w))
	case map[string]any:
		return s.members(got, w)
	}
	return s.value(got, want, 0)
}

// value compares what is no list and has no members, beside numbers of up to largest.
func (s slack) value(got, want any, largest float64) *difference {
	w, number := want.(json.Number)
	g, ok := got.(json.Number)
	if number && ok && s.number(g, w, largest) {
		return nil
	}
	if _, isList := got.([]any); number || isList {
		return &difference{"", got, want}
	}
	if _, isMap := got.(map[string]any); isMap || got != want {
		return &difference{"", got, want}
	}
	return nil
}

// list compares lists, and those in them, whose numbers are up to largest.
func (s slack) list(got any, want []any, largest float64) *difference {
	g, ok := got.([]any)
	if !ok || len(g) != len(want) {
		return &difference{"", got, want}
	}
	for i := range want {
		var d *difference
		switch w := want[i].(type) {
		case []any:
			d = s.list(g[i], w, largest)
		case map[string]any:
			d = s.members(g[i], w)
		default:
			d = s.value(g[i], w, largest)
		}
		if d != nil {
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
		if d := like(g[name], w, of); d != nil {
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
