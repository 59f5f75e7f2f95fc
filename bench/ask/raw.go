package ask

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"sluice.dev/bench"
	"sluice.dev/scorer/codec/wire"
)

// likeRaw compares the raw tensors behind an answer's JSON, which is like wanted and so
// says the same of them.
func likeRaw(got, want []byte, wanted any) error {
	root, _ := wanted.(map[string]any)
	outputs, _ := root["outputs"].([]any)
	for _, o := range outputs {
		m, _ := o.(map[string]any)
		parameters, _ := m["parameters"].(map[string]any)
		size, _ := parameters["binary_data_size"].(json.Number)
		n, err := size.Int64()
		if err != nil || n < 0 {
			continue // it is in the JSON
		}
		if n > int64(min(len(got), len(want))) {
			return fmt.Errorf("answer has %d bytes of raw tensors, want %d", len(got), len(want))
		}
		datatype, _ := m["datatype"].(string)
		if err := likeTensor(m["name"], datatype, got[:n], want[:n]); err != nil {
			return err
		}
		got, want = got[n:], want[n:]
	}
	if !bytes.Equal(bytes.TrimSpace(got), bytes.TrimSpace(want)) { // a line's end may be there
		return unlike(got, want)
	}
	return nil
}

// likeTensor compares raw tensors: numbers as a datatype's may differ, else bytes.
func likeTensor(name any, datatype string, got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	s, size, at := slackOf(datatype), kinds[datatype].size, floats[datatype]
	if at == nil || len(got) != len(want) || len(want)%size != 0 {
		return fmt.Errorf("answer's output %.40q: %w", fmt.Sprint(name), unlike(got, want))
	}
	most := 0.0
	for i := 0; i < len(want); i += size {
		if v := math.Abs(at(want[i:])); v <= math.MaxFloat64 {
			most = max(most, v)
		}
	}
	for i := 0; i < len(want); i += size {
		if g, w := at(got[i:]), at(want[i:]); !s.takes(g, w, most) {
			return fmt.Errorf("answer's output %.40q: value %d is %v, want %v", fmt.Sprint(name), i/size, g, w)
		}
	}
	return nil
}

// floats read a value of the datatypes that are not exact.
var floats = map[string]func([]byte) float64{
	"FP64": func(b []byte) float64 { return math.Float64frombits(little.Uint64(b)) },
	"FP32": func(b []byte) float64 { return float64(math.Float32frombits(little.Uint32(b))) },
	"BF16": func(b []byte) float64 { return float64(math.Float32frombits(uint32(little.Uint16(b)) << 16)) },
	"FP16": func(b []byte) float64 { return half(little.Uint16(b)) },
}

// half is an IEEE 754 binary16: a sign, 5 bits of exponent, 10 of fraction.
func half(bits uint16) float64 {
	exponent, fraction, sign := int(bits>>10&31), float64(bits&1023), 1-2*float64(bits>>15)
	switch {
	case exponent == 31 && fraction > 0:
		return math.NaN()
	case exponent == 31:
		return math.Inf(int(sign))
	case exponent == 0:
		return sign * math.Ldexp(fraction, -24)
	}
	return sign * math.Ldexp(1024+fraction, exponent-25)
}

// output is one of a ModelInferResponse.
type output struct {
	name, datatype string
	shape          []uint64
	data           []byte // raw, or a typed list's values as they stand
}

// LikeMessage takes messages ModelInferResponse with the outputs of want, whose numbers
// may differ as they do between batches. What else they say, such as the version, may
// be other.
func LikeMessage(want []byte) func(*bench.Answer) error {
	wanted, ok := outputs(want)
	return func(a *bench.Answer) error {
		if bytes.Equal(a.Body, want) {
			return nil
		}
		got, well := outputs(a.Body)
		if !ok || !well {
			return unlike(a.Body, want)
		}
		if len(got) != len(wanted) {
			return fmt.Errorf("answer has %d outputs, want %d", len(got), len(wanted))
		}
		for i := range got {
			g, w := &got[i], &wanted[i]
			if g.name != w.name || g.datatype != w.datatype || !slices.Equal(g.shape, w.shape) {
				return fmt.Errorf("answer's output %d is %.40q, %s%v, want %.40q, %s%v", i, g.name, g.datatype, g.shape, w.name, w.datatype, w.shape)
			}
			if err := likeTensor(w.name, w.datatype, g.data, w.data); err != nil {
				return err
			}
		}
		return nil
	}
}

// outputs are those of a ModelInferResponse; false: it is none. Field numbers are
// those of the Open Inference Protocol.
func outputs(message []byte) (list []output, ok bool) {
	raws := 0
	m := wire.Read(message)
	for m.Next() {
		switch {
		case m.Is(5):
			o, ok := readOutput(m.Bytes)
			if !ok {
				return nil, false
			}
			list = append(list, o)
		case m.Is(6):
			if raws == len(list) {
				return nil, false // outputs come first, as every encoder writes them
			}
			list[raws].data = m.Bytes
			raws++
		}
	}
	return list, !m.Bad() && len(list) > 0
}

// readOutput reads an output's names, and its values where it has a typed list.
func readOutput(message []byte) (o output, ok bool) {
	m := wire.Read(message)
	for m.Next() {
		switch {
		case m.Is(1):
			o.name = string(m.Bytes)
		case m.Is(2):
			o.datatype = string(m.Bytes)
		case m.Num == 3:
			dims := m.Varints()
			for d, more := dims.Next(); more; d, more = dims.Next() {
				o.shape = append(o.shape, d)
			}
		case m.Is(5):
			o.data = listed(m.Bytes)
		}
	}
	return o, !m.Bad()
}

// listed are the values of a typed list. Those of fp32_contents and fp64_contents stand
// as raw ones do; others are exact, and need not be told apart.
func listed(contents []byte) (data []byte) {
	m := wire.Read(contents)
	for m.Next() {
		if m.Num != 6 && m.Num != 7 {
			return contents
		}
		data = append(data, m.Bytes...)
	}
	return data
}
