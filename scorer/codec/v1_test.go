package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
)

func TestV1Requests(t *testing.T) {
	f := func(sig *tensor.Signature, body string, rows int, inputs ...[]byte) {
		t.Helper()
		r := &Infer{}
		for range 2 { // the second in what the first left
			if err := r.Decode(scorer.V1, sig, "m", "v", 0, []byte(body)); err != nil {
				t.Errorf("%s: %v", body, err)
				return
			}
			for i := range inputs {
				if !bytes.Equal(r.Inputs[i].Data, inputs[i]) || r.Rows != rows {
					t.Errorf("%s: input %d is %q in %d rows; want %q in %d", body, i, r.Inputs[i].Data, r.Rows, inputs[i], rows)
				}
			}
		}
	}
	f(digits, `{"instances":[[1,2,3],[4,5,6]]}`, 2, floats(1, 2, 3, 4, 5, 6))
	f(digits, `{"signature_name":"x","instances":[{"input":[1,2,3]}]}`, 1, floats(1, 2, 3))
	f(digits, `{"inputs":[[1,2,3]]}`, 1, floats(1, 2, 3))
	f(digits, `{"inputs":{"input":[[1,2,3],[4,5,6]]}}`, 2, floats(1, 2, 3, 4, 5, 6))
	f(pairOf, `{"instances":[{"a":[1,2],"b":["x"]},{"b":[{"b64":"eXo="}],"a":[3,4]}]}`, 2, []byte{1, 2, 3, 4}, strs("x", "yz"))
	f(pairOf, `{"inputs":{"b":[[{"b64":""}]],"a":[[1,2]]}}`, 1, []byte{1, 2}, strs(""))
	texts := &tensor.Signature{Inputs: []tensor.Info{{Name: "t", DType: tensor.Bytes, Shape: []int64{-1}}}, Outputs: digits.Outputs}
	f(texts, `{"instances":["a",{"b64":"Yg=="}]}`, 2, strs("a", "b"))
	f(texts, `{"instances":[{"t":"a"},{"t":{"b64":"Yg=="}}]}`, 2, strs("a", "b"))
	f(texts, `{"inputs":["a",{"b64":"Yg=="}]}`, 2, strs("a", "b"))
}

func TestBadV1Requests(t *testing.T) {
	f := func(sig *tensor.Signature, body, want string) {
		t.Helper()
		r := &Infer{}
		err := r.Decode(scorer.V1, sig, "m", "v", 0, []byte(body))
		if known := (*scorer.Error)(nil); !errors.As(err, &known) || known.Status != scorer.InvalidArgument || known.Message != want {
			t.Errorf("%s: %v; want %s", body, err, want)
		}
	}
	f(digits, ``, "failed to parse the request JSON buffer: The document is empty. at 0")
	f(digits, `[1]`, `the request's body is not a JSON object; send {"instances": […]} or {"inputs": …}`)
	f(digits, `{}`, "Missing 'inputs' or 'instances' key")
	f(digits, `{"instances":[[1,2,3]],"inputs":[[1,2,3]]}`, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist")
	f(digits, `{"instances":7}`, "Expecting 'instances' to be an list/array")
	f(digits, `{"instances":[]}`, "No values in 'instances' array")
	f(digits, `{"instances":[[1,2]]}`, "unexpected shape for input 'input' for model 'm'. Expected [-1,3], got [1,2]")
	f(digits, `{"instances":[1,2,3]}`, "unexpected shape for input 'input' for model 'm'. Expected [-1,3], got [3]")
	f(digits, `{"instances":[[1,2,3],[4,5]]}`, "the array of 'input' is ragged: rows of 3 and of 2 elements")
	f(digits, `{"instances":[[1,2,3],4]}`, "the rows of 'input' mix values and arrays")
	f(digits, `{"instances":[1,[2,3]]}`, "the rows of 'input' mix values and arrays")
	f(digits, `{"instances":[[1,2,3],{"x":1}]}`, "unexpected inference input 'x' for model 'm'")
	f(digits, `{"inputs":{"x":1}}`, "unexpected inference input 'x' for model 'm'")
	f(digits, `{"instances":[[1,2,"3"]]}`, "Unable to parse 'data': attempt to access JSON non-number as number")
	f(digits, `{"instances":[{"b64":"AA=="}]}`, "Unable to parse 'data': attempt to access JSON non-number as number")
	f(pairOf, `{"instances":[[1,2]]}`, `model 'm' has 2 inputs; name them, as in {"a": …}`)
	f(pairOf, `{"inputs":[[1,2]]}`, `model 'm' has 2 inputs; name them, as in {"a": …}`)
	f(pairOf, `{"instances":[{"a":[1,2]}]}`, "Missing named input: b in instance 0")
	f(pairOf, `{"instances":[{"a":[1,2],"b":["x"]},{"a":[1,2]}]}`, "Missing named input: b in instance 1")
	f(pairOf, `{"instances":[{"a":[1,2],"a":[1,2],"b":["x"]}]}`, "input 'a' already exists in instance 0")
	f(pairOf, `{"inputs":{"a":[[1,2]]}}`, "expected 2 inputs but got 1 inputs for model 'm'. Got input(s) ['a'], but missing required input(s) ['b']. Please provide all required input(s).")
	f(pairOf, `{"inputs":{"a":[[1,2]],"a":[[1,2]],"b":[["x"]]}}`, "input 'a' already exists in request")
	f(pairOf, `{"inputs":{"a":[[1,2]],"b":[[{"b64":"?"}]]}}`, "Unable to base64 decode: the value of b64 is not base64")
	f(pairOf, `{"inputs":{"a":[[1,2]],"b":[[{"c":"?"}]]}}`, `an element of type BYTES is a string, or {"b64": "…"}`)
}

func TestV1Answers(t *testing.T) {
	two := []tensor.Tensor{{DType: tensor.Int64, Shape: []int64{2}, Data: ints(7, 8)}, {DType: tensor.Float32, Shape: []int64{2, 2}, Data: floats(0.5, 0.25, 1, 2)}}
	single := &tensor.Signature{Inputs: digits.Inputs, Outputs: digits.Outputs[1:]}
	texts := func(name string) *tensor.Signature {
		return &tensor.Signature{Inputs: digits.Inputs, Outputs: []tensor.Info{{Name: name, DType: tensor.Bytes, Shape: []int64{-1, 1}}}}
	}
	bytesOf := []tensor.Tensor{{DType: tensor.Bytes, Shape: []int64{2, 1}, Data: strs("a\"b", "\xff")}}
	f := func(sig *tensor.Signature, key string, out []tensor.Tensor, want string) {
		t.Helper()
		r := &Infer{}
		if err := r.Decode(scorer.V1, sig, "m", "v", 0, []byte(`{"`+key+`":[[1,2,3],[4,5,6]]}`)); err != nil {
			t.Fatal(err)
		}
		got, head, err := r.Append([]byte("x"), sig, "m", "v", out)
		if err != nil {
			got = append(got, err.Error()...)
		}
		if string(got) != "x"+want || head != 0 {
			t.Errorf("%s: %s; want %s", key, got, want)
		}
	}
	f(digits, "instances", two, `{"predictions":[{"label":7,"probabilities":[0.5,0.25]},{"label":8,"probabilities":[1,2]}]}`)
	f(digits, "inputs", two, `{"outputs":{"label":[7,8],"probabilities":[[0.5,0.25],[1,2]]}}`)
	f(single, "instances", two[1:], `{"predictions":[[0.5,0.25],[1,2]]}`)
	f(single, "inputs", two[1:], `{"outputs":[[0.5,0.25],[1,2]]}`)
	f(texts("y_bytes"), "instances", bytesOf, `{"predictions":[[{"b64":"YSJi"}],[{"b64":"/w=="}]]}`)
	f(texts("y"), "instances", bytesOf, `output 'y' is not UTF-8 text; ask for it with binary_data`)
	apart := []tensor.Tensor{two[0], {DType: tensor.Float32, Shape: []int64{1, 2}, Data: floats(1, 2)}}
	f(digits, "instances", apart, `the outputs of this model have no rows in common; send 'inputs' instead of 'instances'`)
}

// Whatever a body is, it is read or refused, and what was read can be answered.
func FuzzV1(f *testing.F) {
	for _, body := range []string{
		`{"instances":[{"a":[1,2],"b":["x"]},{"b":[{"b64":"eXo="}],"a":[3,4]}]}`, `{"instances":[[1,2,3],[4,5,6]]}`,
		`{"inputs":{"b":[[{"b64":""}]],"a":[[1,2]]},"signature_name":"s"}`, `{"inputs":[[1,2,3]]}`, `{"instances":[`, `{"instances":[{"b64":1}]}`, `{"instances":[[[[]]],[]]}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, sig := range []*tensor.Signature{pairOf, digits} {
			r := &Infer{}
			if err := r.Decode(scorer.V1, sig, "m", "v", 0, body); err != nil {
				if known := (*scorer.Error)(nil); !errors.As(err, &known) || known.Status == scorer.OK {
					t.Fatalf("error %v has no status", err)
				}
				continue
			}
			echo := &tensor.Signature{Inputs: sig.Inputs, Outputs: slices.Clone(sig.Inputs)}
			for i := range echo.Outputs {
				if !sig.Inputs[i].Accepts(r.Inputs[i].Shape) || r.Inputs[i].Shape[0] != int64(r.Rows) {
					t.Fatalf("input %d has shape %v with %d rows", i, r.Inputs[i].Shape, r.Rows)
				}
			}
			answer, _, err := r.Append(nil, echo, "m", "v", r.Inputs)
			if err == nil && !json.Valid(answer) && !bytes.Contains(answer, []byte("NaN")) && !bytes.Contains(answer, []byte("Infinity")) {
				t.Fatalf("the answer is no JSON: %q", answer)
			}
		}
	})
}
