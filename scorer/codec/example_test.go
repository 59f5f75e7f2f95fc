package codec

import (
	"bytes"
	"cmp"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"sluice.dev/accel/tensor"
	pb "sluice.dev/gateway/grpcapi/tfservingpb"
	"sluice.dev/scorer"
)

func signature(inputs, outputs []tensor.Info) *tensor.Signature {
	return &tensor.Signature{Inputs: inputs, Outputs: outputs}
}

func info(name string, d tensor.DType, shape ...int64) tensor.Info {
	return tensor.Info{Name: name, DType: d, Shape: shape}
}

// people has columns of each kind, and classes with scores.
var people = signature(
	[]tensor.Info{info("age", tensor.Int32, -1, 1), info("name", tensor.Bytes, -1), info("size", tensor.Float64, -1, 2)},
	[]tensor.Info{info("classes", tensor.Bytes, -1, 2), info("scores", tensor.Float32, -1, 2)},
)

func ofInts(v ...int64) *pb.Feature {
	return &pb.Feature{Kind: &pb.Feature_Int64List{Int64List: &pb.Int64List{Value: v}}}
}

func ofFloats(v ...float32) *pb.Feature {
	return &pb.Feature{Kind: &pb.Feature_FloatList{FloatList: &pb.FloatList{Value: v}}}
}

func ofTexts(v ...string) *pb.Feature {
	list := &pb.BytesList{}
	for _, text := range v {
		list.Value = append(list.Value, []byte(text))
	}
	return &pb.Feature{Kind: &pb.Feature_BytesList{BytesList: list}}
}

type features = map[string]*pb.Feature

func exampleOf(f features) *pb.Example { return &pb.Example{Features: &pb.Features{Feature: f}} }

func examplesOf(list ...features) *pb.Input {
	e := &pb.ExampleList{}
	for _, f := range list {
		e.Examples = append(e.Examples, exampleOf(f))
	}
	return &pb.Input{Kind: &pb.Input_ExampleList{ExampleList: e}}
}

func inContext(context features, list ...features) *pb.Input {
	e := &pb.ExampleListWithContext{Context: exampleOf(context), Examples: examplesOf(list...).GetExampleList().Examples}
	return &pb.Input{Kind: &pb.Input_ExampleListWithContext{ExampleListWithContext: e}}
}

func doubles(v ...float64) (b []byte) {
	for _, f := range v {
		b = appendBits(b, tensor.Float64, f)
	}
	return b
}

// wantPeople checks that r has Ann and Bo.
func wantPeople(t *testing.T, r *Infer, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
		return
	}
	want := [][]byte{{30, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, strs("Ann", "Bo"), doubles(1, 2, 3, 4)}
	for i := range want {
		if !bytes.Equal(r.Inputs[i].Data, want[i]) {
			t.Errorf("input %d is %x; want %x", i, r.Inputs[i].Data, want[i])
		}
	}
	if r.Rows != 2 || !slices.Equal(r.Inputs[1].Shape, []int64{2}) || !slices.Equal(r.Inputs[2].Shape, []int64{2, 2}) {
		t.Errorf("%d rows of %v, %v", r.Rows, r.Inputs[1].Shape, r.Inputs[2].Shape)
	}
}

func TestTFExamples(t *testing.T) {
	r := &Infer{}
	f := func(in *pb.Input) {
		t.Helper()
		for range 2 { // the second in what the first left
			wantPeople(t, r, r.Decode(scorer.TFClassify, people, "m", "v", 0, marshal(t, &pb.ClassificationRequest{Input: in})))
		}
	}
	ann, bo := features{"age": ofInts(30), "name": ofTexts("Ann"), "size": ofFloats(1, 2)}, features{"age": ofInts(-1), "name": ofTexts("Bo"), "size": ofFloats(3, 4)}
	f(examplesOf(ann, bo))
	f(inContext(features{}, ann, bo))
	f(inContext(features{"name": ofTexts("x"), "age": ofInts(30)}, features{"name": ofTexts("Ann"), "size": ofFloats(1, 2), "label": ofTexts("passed over")}, bo))
}

func TestV1Examples(t *testing.T) {
	r := &Infer{}
	f := func(body string) {
		t.Helper()
		for range 2 {
			wantPeople(t, r, r.Decode(scorer.V1Classify, people, "m", "v", 0, []byte(body)))
		}
	}
	f(`{"examples":[{"age":30,"name":"Ann","size":[1,2]},{"size":[3.0,4],"name":{"b64":"Qm8="},"age":[-1]}]}`)
	f(`{"signature_name":"x","examples":[{"name":["Ann"],"size":[1,2],"label":{"passed":"over"}},{"age":-1,"name":"Bo","size":[3,4]}],"context":{"age":30,"name":"x"}}`)
}

func TestBadExamples(t *testing.T) {
	good := features{"age": ofInts(1), "name": ofTexts("x"), "size": ofFloats(1, 2)}
	body := marshal(t, &pb.ClassificationRequest{Input: examplesOf(good)})
	for i := 1; i < len(body); i++ {
		if err := (&Infer{}).Decode(scorer.TFClassify, people, "m", "v", 0, body[:i]); err == nil {
			t.Errorf("the first %d of %d bytes were taken for a request", i, len(body))
		}
	}
	f := func(want string, in *pb.Input) {
		t.Helper()
		wantInvalid(t, (&Infer{}).Decode(scorer.TFClassify, people, "m", "v", 0, marshal(t, &pb.ClassificationRequest{Input: in})), want)
	}
	one := func(want, name string, v *pb.Feature) {
		t.Helper()
		bad := features{"age": good["age"], "name": good["name"], "size": good["size"]}
		bad[name] = v
		f(want, examplesOf(good, bad))
		f(want, inContext(features{name: v}, features{"age": good["age"]}))
	}
	f("Input is empty.", nil)
	f("Input is empty.", examplesOf())
	f("Feature: age (data type: int64) is required but could not be found.", examplesOf(features{}))
	one("Key: age. Data types don't match. Expected type: int64", "age", ofFloats(1))
	one("Key: age. 2147483648 is out of range for an input of type INT32", "age", ofInts(1<<31))
	one("Key: age. -2147483649 is out of range for an input of type INT32", "age", ofInts(-1<<31-1))
	one("Key: age. Number of int64 values != expected. values size: 0 but output shape: [1]", "age", ofInts())
	one("Key: size. Number of float values != expected. values size: 3 but output shape: [2]", "size", ofFloats(1, 2, 3))
	one("Key: name. Number of string values != expected. values size: 2 but output shape: [1]", "name", ofTexts("a", "b"))
	f("Feature: age (data type: int64) is required but could not be found.", examplesOf(features{"age": {}, "name": good["name"], "size": good["size"]}))
	big := inContext(features{"name": ofTexts(strings.Repeat("x", maxShared/2))}, features{"age": ofInts(1), "size": ofFloats(1, 2)}, features{"age": ofInts(1), "size": ofFloats(1, 2)})
	f("the examples have more than 16777216 bytes from their context", big)
	both := slices.Concat(marshal(t, &pb.ClassificationRequest{Input: examplesOf(good)}), marshal(t, &pb.ClassificationRequest{Input: inContext(good, good)}))
	wantInvalid(t, (&Infer{}).Decode(scorer.TFClassify, people, "m", "v", 0, both), "send one list")
	named := &pb.ClassificationRequest{ModelSpec: &pb.ModelSpec{SignatureName: "x"}, Input: examplesOf(good)}
	wantInvalid(t, (&Infer{}).Decode(scorer.TFClassify, people, "m", "v", 0, marshal(t, named)), `Serving signature key "x" not found.`)

	v1 := func(want, body string) {
		t.Helper()
		wantInvalid(t, (&Infer{}).Decode(scorer.V1Classify, people, "m", "v", 0, []byte(body)), want)
	}
	v1("The document is empty", ``)
	v1("send {\"examples\": […]}", `[]`)
	v1("key 'examples' is expected and was not found", `{"instances":[]}`)
	v1("Expecting 'examples' value to be an list/array", `{"examples":{}}`)
	v1("Input is empty.", `{"examples":[]}`)
	v1("an example is an object of features", `{"examples":[1]}`)
	v1("Feature: name (data type: string) is required but could not be found.", `{"examples":[{"age":1}]}`)
	v1("a value or a list of values, not a list of lists", `{"examples":[{"age":[[1]]}]}`)
	v1("Key: size. Number of float values != expected. values size: 1 but output shape: [2]", `{"examples":[{"size":1}]}`)
	v1("attempt to access JSON non-integer as integer", `{"examples":[{"age":"1"}]}`)
	v1("an example is an object of features", `{"context":1,"examples":[{"age":1}]}`)
}

func TestWhichModelsTakeExamples(t *testing.T) {
	x, score, label := info("x", tensor.Float32, -1, 2), info("s", tensor.Float32, -1, 3), info("l", tensor.Int64, -1)
	named := func(o tensor.Info, name string) tensor.Info { o.Name = name; return o }
	f := func(classify, regress string, in tensor.Info, outputs ...tensor.Info) {
		t.Helper()
		for kind, want := range map[scorer.Kind]string{scorer.V1Classify: classify, scorer.V1Regress: regress} {
			err := (&Infer{}).Decode(kind, signature([]tensor.Info{in}, outputs), "m", "v", 0, []byte(`{"examples":[{"x":[1,2]}]}`))
			if want == "" && err != nil {
				t.Errorf("%v: %v", outputs, err)
			}
			if want != "" {
				wantInvalid(t, err, want)
			}
		}
	}
	needs := "model 'm' cannot be called by Regress: it needs an output 'outputs', or a single one, of floats, [-1] or [-1,1], and has "
	f("", needs+"'s' FP32 [-1,3]; call Predict", x, score)
	f("", needs+"'l' INT64 [-1]; call Predict", x, label)
	f("", "", x, info("y", tensor.Float64, -1))
	f("", "", x, info("y", tensor.Float16, -1, -1))
	f("", needs, x, named(label, "classes"), named(score, "scores"))
	f("", needs, x, named(label, "classes"), label)
	f("model 'm' cannot be called by Classify: it needs an output 'classes' of BYTES or integers, or 'scores' of floats, or both, or a single output of either, [-1,K] or [-1], and has 'l' INT64 [-1], 's' FP32 [-1,3]; call Predict",
		needs, x, label, score)
	f("it needs an output 'classes'", "", x, named(score, "classes"), info("outputs", tensor.Float32, -1, 1))
	f("it needs an output 'classes'", needs, x, info("y", tensor.Bool, -1))
	f("it needs an output 'classes'", needs, x, info("y", tensor.Float32, -1, 1, 1))
	fixed := "its input 'x' of shape [-1,-1] is not of rows of a fixed size"
	f(fixed, fixed, info("x", tensor.Float32, -1, -1), info("y", tensor.Float32, -1))
	f("its input 'x' of shape [2]", "its input 'x' of shape [2]", info("x", tensor.Float32, 2), info("y", tensor.Float32, 2))
	half := "no feature can be its input 'x' of type FP16"
	f(half, half, info("x", tensor.Float16, -1, 2), info("y", tensor.Float32, -1))
}

func TestResultsOfExamples(t *testing.T) {
	classes, scores := info("classes", tensor.Bytes, -1, -1), info("scores", tensor.Float64, -1, 2)
	x := []tensor.Info{info("x", tensor.Float32, -1)}
	texts := tensor.Tensor{DType: tensor.Bytes, Shape: []int64{2, 2}, Data: strs("a", "b\"", "c", "")}
	values := tensor.Tensor{DType: tensor.Float64, Shape: []int64{2, 2}, Data: doubles(0.5, 0.25, 1, math.Inf(1))}
	numbers := tensor.Tensor{DType: tensor.Int64, Shape: []int64{2}, Data: ints(7, -8)}
	one := tensor.Tensor{DType: tensor.Float32, Shape: []int64{2, 1}, Data: floats(0.1, -3)}
	f := func(kind scorer.Kind, outputs []tensor.Info, want string, out ...tensor.Tensor) {
		t.Helper()
		sig, r := signature(x, outputs), &Infer{}
		if err := r.Decode(kind, sig, "m", "1", 0, []byte(`{"examples":[{"x":1},{"x":2}]}`)); err != nil {
			t.Fatal(err)
		}
		got, head, err := r.Append([]byte("y"), sig, "m", "1", out)
		if err != nil {
			got = append(got, err.Error()...)
		}
		if string(got) != "y"+want || head != 0 {
			t.Errorf("%s; want %s", got, want)
		}
	}
	f(scorer.V1Classify, []tensor.Info{classes, scores}, `{"results":[[["a",0.5],["b\"",0.25]],[["c",1],["",Infinity]]]}`, texts, values)
	f(scorer.V1Classify, []tensor.Info{scores}, `{"results":[[["",0.5],["",0.25]],[["",1],["",Infinity]]]}`, values)
	f(scorer.V1Classify, []tensor.Info{info("l", tensor.Int64, -1)}, `{"results":[[["7",0]],[["-8",0]]]}`, numbers)
	f(scorer.V1Classify, []tensor.Info{classes}, `{"results":[[],[]]}`, tensor.Tensor{DType: tensor.Bytes, Shape: []int64{2, 0}})
	f(scorer.V1Regress, []tensor.Info{info("y", tensor.Float32, -1, 1)}, `{"results":[0.1,-3]}`, one)
	f(scorer.V1Classify, []tensor.Info{classes}, `a class is not UTF-8 text; call Classify over gRPC`, tensor.Tensor{DType: tensor.Bytes, Shape: []int64{2}, Data: strs("\xff", "")})
	f(scorer.V1Classify, []tensor.Info{classes, scores}, `the model's outputs do not fit its 2 examples, or each other: one is [2,1]; call Predict`, texts, one)
	f(scorer.V1Classify, []tensor.Info{scores}, `the model's outputs do not fit its 2 examples, or each other: one is [4]; call Predict`, tensor.Tensor{DType: tensor.Float64, Shape: []int64{4}, Data: values.Data})
	f(scorer.V1Regress, []tensor.Info{info("y", tensor.Float64, -1, -1)}, `output 'y' has 2 values for an example, not one; call Predict`, values)

	var c pb.ClassificationResponse
	var g pb.RegressionResponse
	tf := func(kind scorer.Kind, outputs []tensor.Info, into proto.Message, out ...tensor.Tensor) {
		t.Helper()
		sig, r := signature(x, outputs), &Infer{}
		body := marshal(t, &pb.ClassificationRequest{Input: examplesOf(features{"x": ofFloats(1)}, features{"x": ofFloats(2)})})
		if err := r.Decode(kind, sig, "m", "1", 0, body); err != nil {
			t.Fatal(err)
		}
		answer, _, err := r.Append(nil, sig, "m", "1", out)
		if err := cmp.Or(err, proto.Unmarshal(answer, into)); err != nil {
			t.Fatal(err)
		}
	}
	tf(scorer.TFClassify, []tensor.Info{classes, scores}, &c, texts, values)
	if got := c.Result.Classifications; len(got) != 2 || len(got[1].Classes) != 2 || got[0].Classes[1].Label != `b"` || got[0].Classes[1].Score != 0.25 || got[1].Classes[0].Label != "c" {
		t.Errorf("answered %v", &c)
	}
	tf(scorer.TFRegress, []tensor.Info{info("y", tensor.Float32, -1, 1)}, &g, one)
	if got := g.Result.Regressions; len(got) != 2 || got[0].Value != 0.1 || got[1].Value != -3 || g.ModelSpec.Name != "m" || g.ModelSpec.GetVersion().GetValue() != 1 {
		t.Errorf("answered %v", &g)
	}
}

// FuzzTFExamples holds the reader against the generated code, for what it takes.
func FuzzTFExamples(f *testing.F) {
	ann := features{"age": ofInts(30), "name": ofTexts("Ann"), "size": ofFloats(1, 2)}
	f.Add([]byte(nil))
	f.Add(marshal(f, &pb.ClassificationRequest{ModelSpec: &pb.ModelSpec{Name: "m"}, Input: examplesOf(ann, ann)}))
	f.Add(marshal(f, &pb.ClassificationRequest{Input: inContext(features{"age": ofInts(7)}, features{"name": ofTexts(""), "size": ofFloats(1, 2)}, ann)}))
	f.Add(slices.Concat(marshal(f, &pb.ClassificationRequest{Input: examplesOf(ann)}), marshal(f, &pb.ClassificationRequest{Input: examplesOf(ann)})))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := &Infer{}
		err := r.Decode(scorer.TFClassify, people, "m", "3", 0, body)
		var req pb.ClassificationRequest
		if proto.Unmarshal(body, &req) != nil || err != nil {
			return
		}
		list, context := req.Input.GetExampleList().GetExamples(), features{}
		if with := req.Input.GetExampleListWithContext(); with != nil {
			list, context = with.Examples, with.Context.GetFeatures().GetFeature()
		}
		var age, name, size []byte
		for _, e := range list {
			find := func(name string) *pb.Feature {
				if v := e.GetFeatures().GetFeature()[name]; v.GetKind() != nil {
					return v
				}
				return context[name]
			}
			age = appendInteger(age, 4, uint64(find("age").GetInt64List().Value[0]))
			name = appendElement(name, find("name").GetBytesList().Value[0])
			for _, v := range find("size").GetFloatList().Value {
				size = appendBits(size, tensor.Float64, float64(v))
			}
		}
		for i, want := range [][]byte{age, name, size} {
			if !bytes.Equal(r.Inputs[i].Data, want) {
				t.Fatalf("%v: input %d is %x; want %x", &req, i, r.Inputs[i].Data, want)
			}
		}
		out := []tensor.Tensor{
			{DType: tensor.Bytes, Shape: []int64{int64(len(list))}, Data: name},
			{DType: tensor.Float32, Shape: []int64{int64(len(list)), 1}, Data: make([]byte, 4*len(list))},
		}
		answer, _, err := r.Append(nil, people, "m", "3", out)
		var resp pb.ClassificationResponse
		if err := cmp.Or(err, proto.Unmarshal(answer, &resp)); err == nil && len(resp.Result.Classifications) != len(list) {
			t.Fatalf("answered %v, %v", &resp, err)
		}
	})
}

// Whatever a body is, it is read or refused, and what was read can be answered.
func FuzzV1Examples(f *testing.F) {
	for _, body := range []string{
		`{"examples":[{"age":30,"name":"Ann","size":[1,2]},{"size":[3.0,4],"name":{"b64":"Qm8="},"age":[-1]}]}`,
		`{"examples":[{"name":["Ann"],"size":[1,2],"label":{}}],"context":{"age":30,"name":"x"}}`, `{"examples":[[]],"context":{`, `{"examples":[{"age":[[1]]}]}`, `{"context":0}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := &Infer{}
		if r.Decode(scorer.V1Classify, people, "m", "v", 0, body) != nil {
			return
		}
		for i := range r.Inputs {
			if !people.Inputs[i].Accepts(r.Inputs[i].Shape) || r.Inputs[i].Shape[0] != int64(r.Rows) {
				t.Fatalf("input %d has shape %v with %d rows", i, r.Inputs[i].Shape, r.Rows)
			}
		}
		out := []tensor.Tensor{r.Inputs[1], {DType: tensor.Float32, Shape: []int64{int64(r.Rows)}, Data: make([]byte, 4*r.Rows)}}
		if answer, _, err := r.Append(nil, people, "m", "v", out); err == nil && !json.Valid(answer) {
			t.Fatalf("the answer is no JSON: %q", answer)
		}
	})
}

// hundred is an exchange of a hundred examples, and the length of the request.
func hundred(t testing.TB) (exchange func(), size int) {
	list := make([]features, 100)
	for i := range list {
		list[i] = features{"age": ofInts(30), "name": ofTexts("Ann"), "size": ofFloats(1, 2)}
	}
	body := marshal(t, &pb.ClassificationRequest{Input: examplesOf(list...)})
	out := []tensor.Tensor{
		{DType: tensor.Bytes, Shape: []int64{100, 2}, Data: bytes.Repeat(strs("yes", "no"), 100)},
		{DType: tensor.Float32, Shape: []int64{100, 2}, Data: make([]byte, 800)},
	}
	var r Infer
	var dst []byte
	return func() {
		err := r.Decode(scorer.TFClassify, people, "m", "v", 0, body)
		if err == nil {
			dst, _, err = r.Append(dst[:0], people, "m", "v", out)
		}
		if err != nil {
			t.Fatal(err)
		}
	}, len(body)
}

// But for the name of the version, as with Predict.
func TestExamplesAllocateNothing(t *testing.T) {
	exchange, _ := hundred(t)
	if n := testing.AllocsPerRun(100, exchange); n > 2 {
		t.Errorf("%v allocations per request", n)
	}
}

func BenchmarkTFExamples(b *testing.B) {
	exchange, size := hundred(b)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		exchange()
	}
}
