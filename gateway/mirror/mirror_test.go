package mirror

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"testing"

	"sluice.dev/scorer"
)

func TestCompare(t *testing.T) {
	f := func(kind scorer.Kind, a, b string, want Difference, wantErr error) {
		t.Helper()
		got, err := Compare(kind, Reply{Body: []byte(a)}, Reply{Body: []byte(b)})
		if got != want || !errors.Is(err, wantErr) {
			t.Errorf("%s against %s: %+v, %v; want %+v, %v", a, b, got, err, want, wantErr)
		}
	}
	outputs := func(label, probabilities string) string {
		return `{"model_name":"m","model_version":"v","outputs":[{"name":"label","datatype":"INT64","shape":[2],"data":` + label +
			`},{"name":"p","datatype":"FP32","shape":[2,2],"data":` + probabilities + `}]}`
	}
	same := outputs(`[0,1]`, `[0.75,0.25,0.5,0.5]`)
	f(scorer.OIP, same, same, Difference{Rows: 4}, nil)
	f(scorer.OIP, same, outputs(`[0,1]`, `[[0.5,0.25],[0.5,0.5]]`), Difference{Absolute: 0.25, Relative: 1.0 / 3, Rows: 4}, nil)
	f(scorer.OIP, same, outputs(`[1,1]`, `[0.25,0.75,0.5,0.5]`), Difference{Absolute: 1, Relative: 1, Rows: 4, Flipped: 2}, nil)
	f(scorer.OIP, outputs(`[0,1]`, `[NaN,0,0,0]`), outputs(`[0,1]`, `[NaN,0,0,0]`), Difference{Rows: 4}, nil)
	f(scorer.OIP, same, outputs(`[0,1]`, `[NaN,0.25,0.5,0.5]`), Difference{Absolute: math.Inf(1), Relative: math.Inf(1), Rows: 4}, nil)
	f(scorer.OIP, same, `{"outputs":[]}`, Difference{}, ErrIncomparable)
	f(scorer.OIP, same, outputs(`[0]`, `[0.75,0.25,0.5,0.5]`), Difference{}, ErrIncomparable)
	f(scorer.AML, `{"label":[3],"p":[[0.5,0.5]]}`, `{"p":[[0.5,0.25]],"label":[4]}`, Difference{Absolute: 1, Relative: 0.5, Rows: 2, Flipped: 1}, nil)
	f(scorer.AML, `{"Results":{"text":["a","b"]}}`, `{"Results":{"text":["a","c"]}}`, Difference{Rows: 2, Flipped: 1}, nil)
	f(scorer.AML, `[1,2,3]`, `[1,2,5]`, Difference{Absolute: 2, Relative: 0.4, Rows: 3, Flipped: 1}, nil)
	f(scorer.AML, `[1.5]`, `[1.25]`, Difference{Absolute: 0.25, Relative: 0.25 / 1.5}, nil) // a regression has no first choice
	f(scorer.AML, `true`, `false`, Difference{Absolute: 1, Relative: 1, Rows: 1, Flipped: 1}, nil)

	var known *scorer.Error
	if _, err := Compare(scorer.AML, Reply{Body: []byte(`{"a":`)}, Reply{Body: []byte(`1`)}); !errors.As(err, &known) {
		t.Errorf("an answer that is no JSON: %v", err)
	}
}

func TestRawAnswersAreCompared(t *testing.T) {
	reply := func(v ...float32) Reply {
		head := fmt.Sprintf(`{"outputs":[{"name":"p","datatype":"FP32","shape":[1,%d],"parameters":{"binary_data_size":%d}}]}`, len(v), 4*len(v))
		r := Reply{HeadLength: len(head), Body: []byte(head)}
		for _, x := range v {
			r.Body = binary.LittleEndian.AppendUint32(r.Body, math.Float32bits(x))
		}
		return r
	}
	got, err := Compare(scorer.Raw, reply(1, 2, 4), reply(1, 4, 2))
	if want := (Difference{Absolute: 2, Relative: 0.5, Rows: 1, Flipped: 1}); got != want || err != nil {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}
