package codec

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice.dev/accel/tensor"
	pb "sluice.dev/gateway/grpcapi/inferencepb"
	tfpb "sluice.dev/gateway/grpcapi/tfservingpb"
	"sluice.dev/scorer"
)

var digits = &tensor.Signature{
	Inputs: []tensor.Info{{Name: "input", DType: tensor.Float32, Shape: []int64{-1, 3}}},
	Outputs: []tensor.Info{
		{Name: "label", DType: tensor.Int64, Shape: []int64{-1}},
		{Name: "probabilities", DType: tensor.Float32, Shape: []int64{-1, 2}},
	},
}

var pairOf = &tensor.Signature{
	Inputs: []tensor.Info{
		{Name: "a", DType: tensor.Int8, Shape: []int64{-1, 2}},
		{Name: "b", DType: tensor.Bytes, Shape: []int64{-1, 1}},
	},
	Outputs: []tensor.Info{{Name: "c", DType: tensor.Bytes, Shape: []int64{-1, 1}}},
}

func floats(v ...float32) []byte {
	var b []byte
	for _, f := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}
	return b
}

func ints(v ...int64) []byte {
	var b []byte
	for _, i := range v {
		b = binary.LittleEndian.AppendUint64(b, uint64(i))
	}
	return b
}

func strs(v ...string) []byte {
	var b []byte
	for _, s := range v {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	return b
}

// decode reads a body; head and tail are joined where there is a tail.
func decode(kind scorer.Kind, sig *tensor.Signature, head string, tail []byte) (*Infer, error) {
	r, length := &Infer{}, 0
	if tail != nil {
		length = len(head)
	}
	return r, r.Decode(kind, sig, "m", "v", length, append([]byte(head), tail...))
}

func TestGoodRequests(t *testing.T) {
	f := func(kind scorer.Kind, sig *tensor.Signature, head string, tail []byte, rows int, want ...[]byte) {
		t.Helper()
		r, err := decode(kind, sig, head, tail)
		if err != nil {
			t.Errorf("%s: %v", head, err)
			return
		}
		if r.Rows != rows {
			t.Errorf("%s: %d rows; want %d", head, r.Rows, rows)
		}
		for i, w := range want {
			if !bytes.Equal(r.Inputs[i].Data, w) {
				t.Errorf("%s: input %d is %x; want %x", head, i, r.Inputs[i].Data, w)
			}
		}
	}
	one := func(data string) string {
		return `{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32","data":` + data + `}]}`
	}
	f(scorer.OIP, digits, one(`[1,2,3]`), nil, 1, floats(1, 2, 3))
	f(scorer.OIP, digits, one(`[[1,2,3]]`), nil, 1, floats(1, 2, 3))
	f(scorer.OIP, digits, one(`[[1],[2.5,-3e1]]`), nil, 1, floats(1, 2.5, -30)) // any nesting, as Triton
	f(scorer.OIP, digits, one(` [ 1 ,	2 , 3 ] `), nil, 1, floats(1, 2, 3))
	f(scorer.OIP, digits, one(`[NaN,Infinity,-Infinity]`), nil, 1, floats(float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))))
	f(scorer.OIP, digits, `{"id":"x","unknown":{"a":[1,{}]},"inputs":[{"data":[1,2,3,4,5,6],"datatype":"FP32","shape":[2,3],"name":"input","extra":null}]}`, nil, 2, floats(1, 2, 3, 4, 5, 6))
	f(scorer.OIP, digits, `{"inputs":[{"name":"inp\u0075t","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}`, nil, 1, floats(1, 2, 3))
	f(scorer.OIP, digits, `{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":12}}]}`, floats(7, 8, 9), 1, floats(7, 8, 9))
	f(scorer.OIP, pairOf, `{"inputs":[{"name":"b","shape":[1,1],"datatype":"BYTES","data":["\u00e4\"\ud83d\ude00\n"]},{"name":"a","shape":[1,2],"datatype":"INT8","parameters":{"binary_data_size":2}}]}`,
		[]byte{1, 0xff}, 1, []byte{1, 0xff}, strs("ä\"😀\n"))
	f(scorer.OIP, pairOf, `{"inputs":[{"name":"b","shape":[2,1],"datatype":"BYTES","data":["","x"]},{"name":"a","shape":[2,2],"datatype":"INT8","data":[-128,127,0,-1]}]}`,
		nil, 2, []byte{0x80, 0x7f, 0, 0xff}, strs("", "x"))
	f(scorer.Raw, digits, string(floats(1, 2, 3)), nil, 1, floats(1, 2, 3))
	f(scorer.AML, digits, `{"data":[[1,2,3],[4,5,6]]}`, nil, 2, floats(1, 2, 3, 4, 5, 6))
	f(scorer.AML, digits, `{"data":[1,2,3]}`, nil, 1, floats(1, 2, 3)) // one row
	f(scorer.AML, digits, `{"input":[[1,2,3]],"note":"unused"}`, nil, 1, floats(1, 2, 3))
	f(scorer.AML, digits, `{"Inputs":{"data":[[1,2,3]]},"GlobalParameters":{"x":1}}`, nil, 1, floats(1, 2, 3))
	f(scorer.AML, digits, `{"Inputs":[[1,2,3]]}`, nil, 1, floats(1, 2, 3))
	f(scorer.AML, pairOf, `{"a":[[1,2]],"b":[["x"]]}`, nil, 1, []byte{1, 2}, strs("x"))
}

func TestBadRequests(t *testing.T) {
	f := func(kind scorer.Kind, sig *tensor.Signature, head string, tail []byte, want string) {
		t.Helper()
		_, err := decode(kind, sig, head, tail)
		var known *scorer.Error
		if !errors.As(err, &known) || known.Status != scorer.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%.100s: %v; want InvalidArgument with %q", head, err, want)
		}
	}
	oip := func(head, want string) { t.Helper(); f(scorer.OIP, digits, head, nil, want) }
	input := func(change, to, want string) {
		t.Helper()
		good := `{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}`
		if !strings.Contains(good, change) {
			t.Fatalf("no %s in the good request", change)
		}
		oip(strings.Replace(good, change, to, 1), want)
	}
	oip(``, "The document is empty. at 0")
	oip(` `, "The document is empty.")
	oip(`[]`, "attempt to get members for non-object")
	oip(`{`, "Missing a name for object member. at 1")
	oip(`{"inputs":[]}x`, "must not be followed")
	oip(`{}`, "non-existing object member 'inputs'")
	oip(`{"inputs":[]}`, "expected 1 inputs but got 0 inputs for model 'm'. Got input(s) [], but missing required input(s) ['input']")
	oip(`{"inputs":{}}`, "non-array as array")
	oip(`{"inputs":[1]}`, "non-object as object")
	oip(`{"id":7,"inputs":[]}`, "Unable to parse 'id': attempt to access JSON non-string as string")
	oip(`{"parameters":{"triton_x":1},"inputs":[]}`, "reserved for Triton usage")
	oip(`{"parameters":{"binary_data_output":1},"inputs":[]}`, "non-boolean as boolean")
	oip(`{"parameters":{"priority":-1},"inputs":[]}`, "Unable to parse 'priority': it must be a whole number, 1 for the highest")
	oip(`{"x":`+strings.Repeat("[", 200)+`}`, "nesting depth exceeds maximum allowed limit (100)")
	oip("{\"x\":\"\x01\"}", "Invalid encoding in string")
	oip("{\"id\":\"\xff\"}", "Invalid encoding in string")
	input(`"input"`, `"image"`, "unexpected inference input 'image' for model 'm'")
	input(`"name":"input",`, ``, "non-existing object member 'name'")
	input(`"shape":[1,3],`, ``, "non-existing object member 'shape'")
	input(`"datatype":"FP32",`, ``, "non-existing object member 'datatype'")
	input(`FP32`, `FP31`, "invalid datatype 'FP31'")
	input(`FP32`, `FP16`, "receiving FP16 data via JSON is not supported")
	input(`FP32`, `FP64`, "data-type is 'FP64', but model 'm' expects 'FP32'")
	input(`[1,3]`, `[1,4]`, "unexpected shape for input 'input' for model 'm'. Expected [-1,3], got [1,4]")
	input(`[1,3]`, `[3]`, "unexpected shape")
	input(`[1,3]`, `[-1,3]`, "non-unsigned-integer")
	input(`[1,3]`, `[1.0,3]`, "non-unsigned-integer")
	input(`[1,3]`, `[0,3]`, "true shape")
	input(`"shape":[1,3],"datatype":"FP32","data":[1,2,3]`, `"shape":[0,3],"datatype":"FP32","data":[]`, "shape [0,3], which has no elements")
	input(`[1,3]`, `[3074457345618258603,3]`, "maximum size of 9223372036854775807")
	input(`[1,2,3]`, `[1,2]`, "Shape does not match true shape of 'data' field")
	input(`[1,2,3]`, `[1,2,3,4]`, "Shape does not match true shape of 'data' field")
	input(`[1,2,3]`, `7`, "non-array as array")
	input(`[1,2,3]`, `[1,"2",3]`, "non-number as number")
	input(`[1,2,3]`, `[1,null,3]`, "non-number as number")
	input(`[1,2,3]`, `[1,1e39,3]`, "1e39 is out of range")
	input(`[1,2,3]`, `[1,1e400,3]`, "out of range")
	input(`[1,2,3]`, `[1,02,3]`, "Invalid value")
	input(`[1,2,3]`, `[1,2.,3]`, "Miss fraction part")
	input(`[1,2,3]`, `[1,2e,3]`, "Miss exponent")
	input(`[1,2,3]`, `[1,2,3`, "after an array element")
	input(`[1,2,3]`, `[1,2,3,]`, "Invalid value")
	input(`[1,2,3]`, strings.Repeat("[", 200), "nesting depth")
	input(`"data":[1,2,3]`, `"data":[1,2,3],"data":[1,2,3]`, "'data' twice")
	input(`"data":[1,2,3]`, `"data":[1,2,3],"parameters":{"binary_data_size":12}`, "But set 'data' 'binary_data_size'")
	input(`,"data":[1,2,3]`, ``, "But no field is set")
	input(`"data":[1,2,3]`, `"parameters":{"binary_data_size":12}`, "must specify valid 'Infer-Header-Content-Length'")
	input(`"data":[1,2,3]`, `"parameters":{"binary_data_size":-1}`, "binary_data_size")
	input(`"data":[1,2,3]`, `"parameters":{"shared_memory_region":"r"}`, "shared memory of clients is not allowed here")
	input(`"data":[1,2,3]`, `"data":[1,2,3],"parameters":{"shared_memory_region":"r","binary_data_size":1}`, "But set 'data' 'binary_data_size' 'shared_memory_region'")
	input(`"data":[1,2,3]`, `"parameters":{"shared_memory_region":7}`, "Unable to parse 'shared_memory_region'")
	input(`"data":[1,2,3]`, `"parameters":{"shared_memory_offset":-1}`, "Unable to parse 'shared_memory_offset': it must be a number of bytes")
	input(`}]}`, `},{"name":"input","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}`, "input 'input' already exists in request")
	input(`}]}`, `}],"outputs":[{"name":"other"}]}`, "unexpected inference output 'other' for model 'm'")
	input(`}]}`, `}],"outputs":[{"name":"label"},{"name":"label"}]}`, "output 'label' already exists in request")
	input(`}]}`, `}],"outputs":[{"name":"label","parameters":{"classification":-1}}]}`, "Unable to set 'classification': attempt to access JSON non-unsigned-integer as unsigned-integer")
	input(`}]}`, `}],"outputs":[{"name":"label","parameters":{"classification":1,"shared_memory_region":"r"}}]}`, "Output can't set both 'shared_memory_region' and 'classification'")
	input(`}]}`, `}],"outputs":[{"name":"label","parameters":{"binary_data":true,"shared_memory_region":"r"}}]}`, "Output can't set both 'shared_memory_region' and 'binary_data'")

	raw := `{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":12}}]}`
	f(scorer.OIP, digits, raw, make([]byte, 11), "unexpected size for input 'input', expecting 1 additional bytes for model 'm'")
	f(scorer.OIP, digits, raw, make([]byte, 13), "unexpected additional input data for model 'm'")
	f(scorer.OIP, digits, strings.Replace(raw, "12", "8", 1), make([]byte, 8), "input byte size mismatch for input 'input' for model 'm'. Expected 12, got 8")
	two := `{"inputs":[{"name":"a","shape":[%d,2],"datatype":"INT8","data":%s},{"name":"b","shape":[1,1],"datatype":"BYTES","parameters":{"binary_data_size":%d}}]}`
	f(scorer.OIP, pairOf, fmt.Sprintf(two, 1, "[1,2]", 3), make([]byte, 3), "incomplete string length indicator")
	f(scorer.OIP, pairOf, fmt.Sprintf(two, 1, "[1,2]", 5), []byte{2, 0, 0, 0, 'x'}, "expecting string of length 2 but only 1 bytes")
	f(scorer.OIP, pairOf, fmt.Sprintf(two, 1, "[1,2]", 8), make([]byte, 8), "expected 1 string elements for inference input 'b' for model 'm', got 2")
	f(scorer.OIP, pairOf, fmt.Sprintf(two, 2, "[1,2,3,4]", 4), make([]byte, 4), "batch size does not match other inputs")
	f(scorer.OIP, pairOf, fmt.Sprintf(two, 1, "[1,128]", 4), make([]byte, 4), "128 is out of range for input 'a' of type INT8")
	f(scorer.OIP, pairOf, fmt.Sprintf(two, 1, "[1,-129]", 4), make([]byte, 4), "out of range")
	f(scorer.OIP, pairOf, fmt.Sprintf(two, 1, "[1,1.0]", 4), make([]byte, 4), "non-integer as integer")
	f(scorer.OIP, pairOf, fmt.Sprintf(two, 1, "[1,true]", 4), make([]byte, 4), "non-integer as integer")
	f(scorer.Raw, digits, "", []byte{}, "byte size mismatch")
	f(scorer.Raw, pairOf, "x", nil, "Raw request must only have 1 input")
	f(scorer.AML, digits, ``, nil, "no body")
	f(scorer.AML, digits, `[1]`, nil, "not a JSON object")
	f(scorer.AML, digits, `{"dta":[[1,2,3]]}`, nil, "missing required input(s) ['input']")
	f(scorer.AML, digits, `{"data":[[1,2,3],[4,5]]}`, nil, "ragged")
	f(scorer.AML, digits, `{"data":[[1,2,3],4]}`, nil, "mixes values and arrays")
	f(scorer.AML, digits, `{"data":[4,[1,2,3]]}`, nil, "mixes values and arrays")
	f(scorer.AML, digits, `{"data":[[[1,2,3]]]}`, nil, "unexpected shape")
	f(scorer.AML, digits, `{"data":[[1,2,3]],"input":[[1,2,3]]}`, nil, "given twice")
	f(scorer.AML, digits, `{"data":[[1,2,3]]}}`, nil, "must not be followed")
}

func TestAnswers(t *testing.T) {
	out := []tensor.Tensor{
		{DType: tensor.Int64, Shape: []int64{2}, Data: ints(7, -1)},
		{DType: tensor.Float32, Shape: []int64{2, 2}, Data: floats(0.1, 1e-9, 3, float32(math.Inf(-1)))},
	}
	f := func(kind scorer.Kind, body, want string, tail []byte) {
		t.Helper()
		r, err := decode(kind, digits, body, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, head, err := r.Append([]byte("before"), digits, "m", "v", out)
		if tail != nil {
			want += string(tail)
		}
		if err != nil || string(got) != "before"+want || tail != nil && head != len(want)-len(tail) || tail == nil && head != 0 {
			t.Errorf("%s:\n%q, head %d (%v); want\n%q", body, got, head, err, want)
		}
	}
	in := `"inputs":[{"name":"input","shape":[2,3],"datatype":"FP32","data":[1,2,3,4,5,6]}]`
	f(scorer.OIP, `{"id":"a\"b",`+in+`}`, `{"model_name":"m","model_version":"v","id":"a\"b","outputs":[{"name":"label","datatype":"INT64","shape":[2],"data":[7,-1]},`+
		`{"name":"probabilities","datatype":"FP32","shape":[2,2],"data":[0.1,1e-09,3,-Infinity]}]}`, nil)
	f(scorer.OIP, `{`+in+`,"outputs":[{"name":"probabilities","parameters":{"binary_data":true}},{"name":"label"}]}`,
		`{"model_name":"m","model_version":"v","outputs":[{"name":"probabilities","datatype":"FP32","shape":[2,2],"parameters":{"binary_data_size":16}},`+
			`{"name":"label","datatype":"INT64","shape":[2],"data":[7,-1]}]}`, out[1].Data)
	f(scorer.OIP, `{`+in+`,"parameters":{"binary_data_output":true}}`,
		`{"model_name":"m","model_version":"v","outputs":[{"name":"label","datatype":"INT64","shape":[2],"parameters":{"binary_data_size":16}},`+
			`{"name":"probabilities","datatype":"FP32","shape":[2,2],"parameters":{"binary_data_size":16}}]}`, slices.Concat(out[0].Data, out[1].Data))
	f(scorer.AML, `{"data":[[1,2,3],[4,5,6]]}`, `{"label":[7,-1],"probabilities":[[0.1,1e-09],[3,-Infinity]]}`, nil)
	f(scorer.AML, `{"Inputs":[[1,2,3],[4,5,6]]}`, `{"Results":{"label":[7,-1],"probabilities":[[0.1,1e-09],[3,-Infinity]]}}`, nil)
}

func TestWhatJSONCannotSayIsRefused(t *testing.T) {
	r, err := decode(scorer.AML, pairOf, `{"a":[[1,2]],"b":[["x"]]}`, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = r.Append(nil, pairOf, "m", "v", []tensor.Tensor{{DType: tensor.Bytes, Shape: []int64{1, 1}, Data: strs("\xff")}})
	if err == nil || !strings.Contains(err.Error(), "ask for it with binary_data") {
		t.Errorf("got %v", err)
	}
	half := &tensor.Signature{Inputs: digits.Inputs, Outputs: []tensor.Info{{Name: "h", DType: tensor.Float16, Shape: []int64{-1}}}}
	r, _ = decode(scorer.AML, half, `{"data":[1,2,3]}`, nil)
	_, _, err = r.Append(nil, half, "m", "v", []tensor.Tensor{{DType: tensor.Float16, Shape: []int64{1}, Data: []byte{0, 0}}})
	if err == nil || !strings.Contains(err.Error(), "sending FP16 data via JSON is not supported") {
		t.Errorf("got %v", err)
	}
}

// extremes are values of each type at its bounds.
var extremes = map[tensor.DType]string{
	tensor.Bool: "true,false", tensor.Uint8: "0,255", tensor.Uint16: "0,65535", tensor.Uint32: "0,4294967295", tensor.Uint64: "0,18446744073709551615",
	tensor.Int8: "-128,127", tensor.Int16: "-32768,32767", tensor.Int32: "-2147483648,2147483647", tensor.Int64: "-9223372036854775808,9223372036854775807",
	tensor.Float32: "3.4028235e+38,1e-45", tensor.Float64: "1.7976931348623157e+308,5e-324", tensor.Bytes: `"","a\u0000b"`,
}

func TestEveryTypeSurvivesTheRoundTrip(t *testing.T) {
	for d := tensor.Bool; d <= tensor.Bytes; d++ {
		info := []tensor.Info{{Name: "x", DType: d, Shape: []int64{-1}}}
		sig := &tensor.Signature{Inputs: info, Outputs: info}
		if text, ok := extremes[d]; ok {
			body := fmt.Sprintf(`{"inputs":[{"name":"x","shape":[2],"datatype":"%v","data":[%s]}]}`, d, text)
			r, err := decode(scorer.OIP, sig, body, nil)
			if err != nil {
				t.Errorf("%v: %v", d, err)
				continue
			}
			got, _, err := r.Append(nil, sig, "m", "v", r.Inputs)
			if err != nil || !strings.Contains(string(got), `"data":[`+text+`]`) {
				t.Errorf("%v: %s became %s (%v)", d, text, got, err)
			}
		}
		raw := bytes.Repeat([]byte{1}, 2*d.Size())
		if d == tensor.Bytes {
			raw = strs("\xff\x00", "")
		}
		body := fmt.Sprintf(`{"parameters":{"binary_data_output":true},"inputs":[{"name":"x","shape":[2],"datatype":"%v","parameters":{"binary_data_size":%d}}]}`, d, len(raw))
		r, err := decode(scorer.OIP, sig, body, raw)
		if err != nil {
			t.Errorf("%v: %v", d, err)
			continue
		}
		got, head, err := r.Append(nil, sig, "m", "v", r.Inputs)
		if err != nil || head == 0 || !bytes.Equal(got[head:], raw) {
			t.Errorf("%v: raw %x became %x (%v)", d, raw, got[head:], err)
		}
	}
}

// FuzzDecode reads arbitrary bodies: no panic, errors with a status, and what is
// read can be answered.
func FuzzDecode(f *testing.F) {
	f.Add(uint8(scorer.OIP), 0, []byte(`{"id":"x","inputs":[{"name":"a","shape":[1,2],"datatype":"INT8","data":[1,2]},{"name":"b","shape":[1,1],"datatype":"BYTES","data":["\u00e4"]}],"outputs":[{"name":"c","parameters":{"binary_data":true}}]}`))
	f.Add(uint8(scorer.OIP), 159, []byte(`{"inputs":[{"name":"a","shape":[1,2],"datatype":"INT8","parameters":{"binary_data_size":2}},{"name":"b","shape":[1,1],"datatype":"BYTES","data":["x"]}]}`+"\x01\x02"))
	f.Add(uint8(scorer.AML), 0, []byte(`{"Inputs":{"a":[[1,2]],"b":[["x"]]},"GlobalParameters":1e5}`))
	f.Add(uint8(scorer.Raw), 0, []byte("abc"))
	f.Add(uint8(scorer.V1Classify), 0, []byte(`{"examples":[{"a":[1,2],"b":"x"}],"context":{"b":["y"]}}`))
	protobuf := []scorer.Kind{scorer.GRPC, scorer.TFServing, scorer.TFClassify, scorer.TFRegress}
	f.Fuzz(func(t *testing.T, kind uint8, head int, body []byte) {
		for _, sig := range []*tensor.Signature{pairOf, digits} {
			var r Infer
			given := bytes.Clone(body)
			err := r.Decode(scorer.Kind(kind), sig, "m", "v", head, body)
			if !bytes.Equal(given, body) {
				t.Fatal("the body was changed")
			}
			if err != nil {
				if known := (*scorer.Error)(nil); !errors.As(err, &known) || known.Status == scorer.OK {
					t.Fatalf("error %v has no status", err)
				}
				continue
			}
			for i := range r.Inputs {
				if !sig.Inputs[i].Accepts(r.Inputs[i].Shape) || r.Inputs[i].Shape[0] != int64(r.Rows) {
					t.Fatalf("input %d has shape %v with %d rows", i, r.Inputs[i].Shape, r.Rows)
				}
			}
			echo := &tensor.Signature{Inputs: sig.Inputs, Outputs: sig.Inputs}
			r.wanted = nil
			out, n, err := r.Append(nil, echo, "m", "v", r.Inputs)
			if err == nil && n == 0 && !slices.Contains(protobuf, scorer.Kind(kind)) && !bytes.Contains(out, []byte("NaN")) && !bytes.Contains(out, []byte("Infinity")) && !json.Valid(out) {
				t.Fatalf("the answer is no JSON: %q", out)
			}
		}
	})
}

// FuzzFloat holds numbers against strconv, bit by bit, in both directions.
func FuzzFloat(f *testing.F) {
	for _, s := range []string{"0", "-0", "1", "0.1", "16777217", "1e-45", "1e-46", "3.4028236e38", "9007199254740993", "1.00000005960464477539062500", "123456789012345678901234567890", "1e22", "1e23", "5e-324"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := scanner{b: []byte(text)}
		d := s.number()
		if s.err != nil || s.i != len(text) || strings.Contains(text, "Infinity") || !json.Valid([]byte(text)) {
			return
		}
		got64, ok64 := d.float64()
		want64, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if ok64 != (err == nil) || ok64 && math.Float64bits(got64) != math.Float64bits(want64) {
			t.Errorf("%s is %v; strconv says %v, %v", text, got64, want64, err)
		}
		got32, ok32 := d.float32()
		want32, err := strconv.ParseFloat(strings.TrimSpace(text), 32)
		if ok32 != (err == nil) || ok32 && math.Float32bits(got32) != math.Float32bits(float32(want32)) {
			t.Errorf("%s is %v; strconv says %v, %v", text, got32, want32, err)
		}
		if back, _ := strconv.ParseFloat(string(appendFloat(nil, want64, 64)), 64); ok64 && back != want64 {
			t.Errorf("%v is written as %s", want64, appendFloat(nil, want64, 64))
		}
	})
}

// exchange decodes and answers the digits example's request.
func exchange(raw bool) (func(), int) {
	sig := &tensor.Signature{
		Inputs:  []tensor.Info{{Name: "input", DType: tensor.Float32, Shape: []int64{-1, 64}}},
		Outputs: []tensor.Info{{Name: "label", DType: tensor.Int64, Shape: []int64{-1}}, {Name: "probabilities", DType: tensor.Float32, Shape: []int64{-1, 10}}},
	}
	body := []byte(`{"inputs":[{"name":"input","shape":[1,64],"datatype":"FP32","data":[0` + strings.Repeat(",12", 63) + `]}]}`)
	head := 0
	if raw {
		body = []byte(`{"parameters":{"binary_data_output":true},"inputs":[{"name":"input","shape":[1,64],"datatype":"FP32","parameters":{"binary_data_size":256}}]}`)
		head = len(body)
		body = append(body, make([]byte, 256)...)
	}
	out := []tensor.Tensor{
		{DType: tensor.Int64, Shape: []int64{1}, Data: ints(2)},
		{DType: tensor.Float32, Shape: []int64{1, 10}, Data: floats(0.009868711, 0.000016345748, 0.911126, 0.07833582, 1.328863e-07, 0.000012878665, 9.864301e-07, 0.000020509084, 5.997375e-07, 0.0006179086)},
	}
	var r Infer
	var dst []byte
	return func() {
		if err := r.Decode(scorer.OIP, sig, "digits", "mlp", head, body); err != nil {
			panic(err)
		}
		var err error
		if dst, _, err = r.Append(dst[:0], sig, "digits", "mlp", out); err != nil {
			panic(err)
		}
	}, len(body)
}

func TestDecodeAndAppendDoNotAllocate(t *testing.T) {
	for _, raw := range []bool{false, true} {
		f, _ := exchange(raw)
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("raw %v: %v allocations per request", raw, n)
		}
	}
}

func BenchmarkExchange(b *testing.B) {
	for _, raw := range []bool{false, true} {
		b.Run(map[bool]string{false: "json", true: "binary"}[raw], func(b *testing.B) {
			f, n := exchange(raw)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
}

func TestAnswersAreReadBackAsTheyWereWritten(t *testing.T) {
	out := []tensor.Tensor{{DType: tensor.Int64, Shape: []int64{2}, Data: ints(7, -8)}, {DType: tensor.Float32, Shape: []int64{2, 2}, Data: floats(1.5, -2, 3, 4)}}
	f := func(kind scorer.Kind, body string, tail []byte) {
		t.Helper()
		r, err := decode(kind, digits, body, tail)
		if err != nil {
			t.Fatal(err)
		}
		answer, head, err := r.Append(nil, digits, "m", "v", out)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ReadAnswer(kind, head, answer)
		want := "[{label 1 2 [7 -8] []} {probabilities 2 2 [1.5 -2 3 4] []}]"
		if text := fmt.Sprint(got); text != want || err != nil {
			t.Errorf("%s was read as %s, %v; want %s", answer, text, err, want)
		}
	}
	const input = `{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]`
	f(scorer.OIP, input+`}`, nil)
	f(scorer.OIP, input+`,"parameters":{"binary_data_output":true}}`, nil)
	f(scorer.OIP, input+`,"outputs":[{"name":"label"},{"name":"probabilities","parameters":{"binary_data":true}}]}`, nil)
	f(scorer.Raw, string(floats(1, 2, 3)), nil)
	f(scorer.AML, `{"data":[1,2,3]}`, nil)
	f(scorer.AML, `{"Inputs":{"data":[1,2,3]}}`, nil)
	f(scorer.GRPC, string(marshal(t, &pb.ModelInferRequest{Inputs: []*grpcInput{floatInput(func(*grpcInput) {})}})), nil)
	f(scorer.TFServing, string(tfOne(t, "input", &tfpb.TensorProto{Dtype: tfpb.DataType_DT_FLOAT, TensorShape: tfShape(1, 3)})), nil)
}

func TestNumbersOfEveryTypeAreReadBack(t *testing.T) {
	f := func(dtype tensor.DType, data []byte, want float64) {
		t.Helper()
		var o Result
		if o.decode(dtype, data); len(o.Numbers) != 1 || o.Numbers[0] != want {
			t.Errorf("%v %x is %v; want %v", dtype, data, o.Numbers, want)
		}
	}
	f(tensor.Bool, []byte{1}, 1)
	f(tensor.Uint8, []byte{200}, 200)
	f(tensor.Int8, []byte{200}, -56)
	f(tensor.Uint16, []byte{0, 0x80}, 1<<15)
	f(tensor.Int16, []byte{0, 0x80}, -1<<15)
	f(tensor.Uint32, []byte{0, 0, 0, 0x80}, 1<<31)
	f(tensor.Int32, []byte{0, 0, 0, 0x80}, -1<<31)
	f(tensor.Uint64, []byte{0, 0, 0, 0, 0, 0, 0, 0x80}, 1<<63)
	f(tensor.Int64, []byte{0, 0, 0, 0, 0, 0, 0, 0x80}, -1<<63)
	f(tensor.Float32, floats(0.5), 0.5)
	f(tensor.Float64, []byte{0, 0, 0, 0, 0, 0, 0xe0, 0x3f}, 0.5)
	f(tensor.BFloat16, []byte{0x20, 0xc0}, -2.5)
	f(tensor.Float16, []byte{0, 0xc1}, -2.5)
	f(tensor.Float16, []byte{1, 0}, math.Ldexp(1, -24)) // the smallest
	f(tensor.Float16, []byte{0, 0xfc}, math.Inf(-1))
}

func FuzzReadAnswer(f *testing.F) {
	f.Add(uint8(scorer.OIP), 0, []byte(`{"outputs":[{"name":"p","datatype":"FP32","shape":[1,2],"data":[1,NaN]}]}`))
	f.Add(uint8(scorer.OIP), 88, []byte(`{"outputs":[{"name":"p","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}}]}`+"\x01\x00\x00\x00a"))
	f.Add(uint8(scorer.AML), 0, []byte(`{"Results":{"a":[[1,2],[3,"x"]],"b":true}}`))
	f.Add(uint8(scorer.GRPC), 0, marshal(f, &pb.ModelInferResponse{
		Outputs: []*pb.ModelInferResponse_InferOutputTensor{{Name: "p", Datatype: "FP32", Shape: []int64{1}}}, RawOutputContents: [][]byte{floats(1)},
	}))
	f.Add(uint8(scorer.TFServing), 0, marshal(f, &tfpb.PredictResponse{Outputs: map[string]*tfpb.TensorProto{
		"p": {Dtype: tfpb.DataType_DT_FLOAT, TensorShape: tfShape(1), FloatVal: []float32{1}},
	}}))
	f.Fuzz(func(t *testing.T, kind uint8, head int, body []byte) {
		a, err := ReadAnswer(scorer.Kind(kind), head, body)
		if err != nil {
			return
		}
		for _, o := range a {
			if len(o.Numbers)+len(o.Texts) > len(body) {
				t.Errorf("%d values in %d bytes", len(o.Numbers)+len(o.Texts), len(body))
			}
		}
	})
}

// What a request asks of its scheduling is of that request alone.
func TestParametersOfScheduling(t *testing.T) {
	var r Infer
	f := func(kind scorer.Kind, body []byte, timeout time.Duration, priority uint32) {
		t.Helper()
		_ = r.Decode(kind, digits, "m", "v", 0, body) // without inputs
		if r.Timeout != timeout || r.Priority != priority {
			t.Errorf("%q: a timeout of %v, priority %d; want %v, %d", body, r.Timeout, r.Priority, timeout, priority)
		}
	}
	f(scorer.OIP, []byte(`{"parameters":{"timeout":7,"priority":2},"inputs":[]}`), 7*time.Microsecond, 2)
	f(scorer.OIP, []byte(`{"inputs":[]}`), 0, 0)
	f(scorer.OIP, []byte(`{"parameters":{"priority":18446744073709551615},"inputs":[]}`), 0, math.MaxUint32)
	f(scorer.GRPC, marshal(t, &pb.ModelInferRequest{Parameters: map[string]*pb.InferParameter{
		"timeout": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 7}}, "priority": {ParameterChoice: &pb.InferParameter_Uint64Param{Uint64Param: 2}},
	}}), 7*time.Microsecond, 2)
	f(scorer.GRPC, nil, 0, 0)
}

func TestATensorWithoutElementsIsRefused(t *testing.T) {
	sig := &tensor.Signature{Inputs: []tensor.Info{{Name: "x", DType: tensor.Float32, Shape: []int64{-1, -1}}}, Outputs: digits.Outputs}
	for _, c := range []struct {
		shape string
		data  string
		tail  []byte
	}{{"[2,0]", `"data":[]`, nil}, {"[0,2]", `"data":[]`, nil}, {"[2,0]", `"parameters":{"binary_data_size":0}`, []byte{}}} {
		_, err := decode(scorer.OIP, sig, `{"inputs":[{"name":"x","datatype":"FP32","shape":`+c.shape+`,`+c.data+`}]}`, c.tail)
		if known := scorer.Known(err); err == nil || known.Status != scorer.InvalidArgument || !strings.Contains(known.Message, "no elements") {
			t.Errorf("shape %s with %s: %v", c.shape, c.data, err)
		}
	}
}
