package codec

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sluice.dev/accel/tensor"
	pb "sluice.dev/gateway/grpcapi/tfservingpb"
	"sluice.dev/scorer"
)

func tfShape(dims ...int64) *pb.TensorShapeProto {
	s := &pb.TensorShapeProto{}
	for _, d := range dims {
		s.Dim = append(s.Dim, &pb.TensorShapeProto_Dim{Size: d})
	}
	return s
}

// tfOne is the body of a request with one input.
func tfOne(t testing.TB, name string, p *pb.TensorProto) []byte {
	return marshal(t, &pb.PredictRequest{ModelSpec: &pb.ModelSpec{Name: "m", SignatureName: "serving_default"}, Inputs: map[string]*pb.TensorProto{name: p}})
}

func TestTFTensorsOfEveryType(t *testing.T) {
	f := func(d tensor.DType, p *pb.TensorProto, want []byte) {
		t.Helper()
		p.Dtype = pb.DataType(TFType(d))
		r := &Infer{}
		if err := r.Decode(scorer.TFServing, only(d), "m", "1", 0, tfOne(t, strings.ToLower(d.String()), p)); err != nil {
			t.Errorf("%v: %v", d, err)
			return
		}
		if !bytes.Equal(r.Inputs[0].Data, want) {
			t.Errorf("%v: %x; want %x", d, r.Inputs[0].Data, want)
		}
		answer, _, _ := r.Append(nil, only(d), "m", "1", r.Inputs)
		var resp pb.PredictResponse
		if err := proto.Unmarshal(answer, &resp); err != nil {
			t.Fatal(err)
		}
		back := &Infer{}
		if err := back.Decode(scorer.TFServing, only(d), "m", "1", 0, tfOne(t, strings.ToLower(d.String()), resp.Outputs[strings.ToLower(d.String())])); err != nil || !bytes.Equal(back.Inputs[0].Data, want) {
			t.Errorf("%v: answered %v, which reads as %x, %v", d, &resp, back.Inputs[0].Data, err)
		}
		if resp.ModelSpec.Name != "m" || resp.ModelSpec.GetVersion().GetValue() != 1 || resp.ModelSpec.SignatureName != "serving_default" {
			t.Errorf("answered by %v", resp.ModelSpec)
		}
	}
	le := binary.LittleEndian
	f(tensor.Bool, &pb.TensorProto{TensorShape: tfShape(2), BoolVal: []bool{true, false}}, []byte{1, 0})
	f(tensor.Int8, &pb.TensorProto{TensorShape: tfShape(2), IntVal: []int32{-128, 127}}, []byte{0x80, 0x7f})
	f(tensor.Int16, &pb.TensorProto{TensorShape: tfShape(1), IntVal: []int32{-2}}, []byte{0xfe, 0xff})
	f(tensor.Int32, &pb.TensorProto{TensorShape: tfShape(1), IntVal: []int32{math.MinInt32}}, []byte{0, 0, 0, 0x80})
	f(tensor.Int64, &pb.TensorProto{TensorShape: tfShape(2), Int64Val: []int64{-1, 5}}, ints(-1, 5))
	f(tensor.Uint8, &pb.TensorProto{TensorShape: tfShape(1), IntVal: []int32{255}}, []byte{255})
	f(tensor.Uint16, &pb.TensorProto{TensorShape: tfShape(1), IntVal: []int32{65535}}, []byte{255, 255})
	f(tensor.Uint32, &pb.TensorProto{TensorShape: tfShape(1), Uint32Val: []uint32{math.MaxUint32}}, []byte{255, 255, 255, 255})
	f(tensor.Uint64, &pb.TensorProto{TensorShape: tfShape(1), Uint64Val: []uint64{math.MaxUint64}}, ints(-1))
	f(tensor.Float16, &pb.TensorProto{TensorShape: tfShape(2), HalfVal: []int32{0x3c00, 0xbc00}}, []byte{0, 0x3c, 0, 0xbc})
	f(tensor.BFloat16, &pb.TensorProto{TensorShape: tfShape(1), HalfVal: []int32{0x3f80}}, []byte{0x80, 0x3f})
	f(tensor.Float32, &pb.TensorProto{TensorShape: tfShape(2), FloatVal: []float32{1, -2.5}}, floats(1, -2.5))
	f(tensor.Float64, &pb.TensorProto{TensorShape: tfShape(1), DoubleVal: []float64{math.Pi}}, le.AppendUint64(nil, math.Float64bits(math.Pi)))
	f(tensor.Bytes, &pb.TensorProto{TensorShape: tfShape(2), StringVal: [][]byte{[]byte("\xff\x00"), {}}}, strs("\xff\x00", ""))

	f(tensor.Float32, &pb.TensorProto{TensorShape: tfShape(2), TensorContent: floats(1, 2)}, floats(1, 2))
	f(tensor.Float32, &pb.TensorProto{TensorShape: tfShape(3), FloatVal: []float32{1, 2}}, floats(1, 2, 2)) // the last value stands for the rest
	f(tensor.Float32, &pb.TensorProto{TensorShape: tfShape(2)}, floats(0, 0))
	f(tensor.Bytes, &pb.TensorProto{TensorShape: tfShape(3), StringVal: [][]byte{[]byte("longer than eight")}}, strs("longer than eight", "longer than eight", "longer than eight"))
}

func TestBadTFRequests(t *testing.T) {
	f := func(want string, req *pb.PredictRequest) {
		t.Helper()
		wantInvalid(t, (&Infer{}).Decode(scorer.TFServing, digits, "m", "v", 0, marshal(t, req)), want)
	}
	input := func(want, name string, p *pb.TensorProto) {
		t.Helper()
		f(want, &pb.PredictRequest{Inputs: map[string]*pb.TensorProto{name: p}})
	}
	f("input size does not match signature: 0!=1 len({}) != len({input}). Sent extra: {}. Missing but required: {input}.", &pb.PredictRequest{})
	f(`Serving signature key "x" not found.`, &pb.PredictRequest{ModelSpec: &pb.ModelSpec{SignatureName: "x"}})
	f("output tensor alias not found in signature: x Outputs expected to be in the set {label,probabilities}.", &pb.PredictRequest{OutputFilter: []string{"x"}})
	f("duplicate output tensor alias: label", &pb.PredictRequest{OutputFilter: []string{"label", "label"}})
	input("input tensor alias not found in signature: x. Inputs expected to be in the set {input}.", "x", &pb.TensorProto{})
	input("Expects arg[0] to be float but double is provided", "input", &pb.TensorProto{Dtype: pb.DataType_DT_DOUBLE})
	input("Expects arg[0] to be float but DataType(99) is provided", "input", &pb.TensorProto{Dtype: 99})
	input("unexpected shape for input 'input'", "input", &pb.TensorProto{Dtype: pb.DataType_DT_FLOAT, TensorShape: tfShape(3)})
	input("of unknown rank", "input", &pb.TensorProto{Dtype: pb.DataType_DT_FLOAT, TensorShape: &pb.TensorShapeProto{UnknownRank: true}})
	input("has 1 of 1073741823 values; send them all", "input", &pb.TensorProto{Dtype: pb.DataType_DT_FLOAT, TensorShape: tfShape(1<<30/3, 3), FloatVal: []float32{1}})
	input("input byte size mismatch", "input", &pb.TensorProto{Dtype: pb.DataType_DT_FLOAT, TensorShape: tfShape(1, 3), FloatVal: []float32{1, 2, 3, 4}})
	input("input byte size mismatch", "input", &pb.TensorProto{Dtype: pb.DataType_DT_FLOAT, TensorShape: tfShape(1, 3), TensorContent: []byte{1}})

	whole := tfOne(t, "input", &pb.TensorProto{Dtype: pb.DataType_DT_FLOAT, TensorShape: tfShape(1, 3), FloatVal: []float32{1, 2, 3}})
	for i := range whole {
		if err := (&Infer{}).Decode(scorer.TFServing, digits, "m", "v", 0, whole[:i]); err == nil {
			t.Errorf("the first %d of %d bytes were taken for a request", i, len(whole))
		}
	}
}

func TestTheLaterOfTwoTFInputsIsMeant(t *testing.T) {
	p := &pb.TensorProto{Dtype: pb.DataType_DT_FLOAT, TensorShape: tfShape(1, 3), FloatVal: []float32{1, 2, 3}}
	body := tfOne(t, "input", p)
	p.FloatVal[0] = 9
	r := &Infer{}
	if err := r.Decode(scorer.TFServing, digits, "m", "v", 0, slices.Concat(body, tfOne(t, "input", p))); err != nil || !bytes.Equal(r.Inputs[0].Data, floats(9, 2, 3)) {
		t.Errorf("%x, %v", r.Inputs[0].Data, err)
	}
}

// A tensor of which a few bytes state a megabyte takes it once, however often it comes.
func TestARepeatedTFInputTakesMemoryOnce(t *testing.T) {
	sig := &tensor.Signature{Inputs: []tensor.Info{{Name: "a", DType: tensor.Float32, Shape: []int64{-1}}, {Name: "b", DType: tensor.Float32, Shape: []int64{-1}}}}
	const n = maxFilled / 4
	p := &pb.TensorProto{Dtype: pb.DataType_DT_FLOAT, TensorShape: tfShape(n)}
	both := slices.Concat(tfOne(t, "a", p), tfOne(t, "b", p))
	r := &Infer{}
	if err := r.Decode(scorer.TFServing, sig, "m", "v", 0, bytes.Repeat(both, 100)); err != nil || r.Rows != n {
		t.Fatal(r.Rows, err)
	}
	if r.Size() > 8*maxFilled || cap(r.shapes) > 2*maxDims {
		t.Errorf("two inputs of %d bytes, which came a hundred times, take %d", maxFilled, r.Size())
	}
}

func TestTFVersions(t *testing.T) {
	f := func(name string, want int64) {
		t.Helper()
		var spec pb.ModelSpec
		if err := proto.Unmarshal(AppendModelSpec(nil, "m", name), &spec); err != nil {
			t.Fatal(err)
		}
		if got := spec.GetVersion().GetValue(); got != want || want == 0 && spec.GetVersionLabel() != name {
			t.Errorf("version %q is %v", name, &spec)
		}
	}
	f("7", 7)
	f("mlp", 0)
	f("07", 0)
	f("0", 0)
	f("-1", 0)
}

// FuzzTFServing holds the reader against the generated code, for what it takes.
func FuzzTFServing(f *testing.F) {
	p := &pb.TensorProto{Dtype: pb.DataType_DT_FLOAT, TensorShape: tfShape(1, 3), FloatVal: []float32{1, 2, 3}}
	f.Add([]byte(nil))
	f.Add(tfOne(f, "input", p))
	f.Add(tfOne(f, "input", &pb.TensorProto{Dtype: pb.DataType_DT_FLOAT, TensorShape: tfShape(2, 3), FloatVal: []float32{1}}))
	f.Add(marshal(f, &pb.PredictRequest{ModelSpec: &pb.ModelSpec{Name: "m", VersionChoice: &pb.ModelSpec_Version{Version: wrapperspb.Int64(3)}},
		OutputFilter: []string{"label"}, Inputs: map[string]*pb.TensorProto{"input": {Dtype: pb.DataType_DT_FLOAT, TensorShape: tfShape(1, 3), TensorContent: floats(1, 2, 3)}}}))
	f.Add(slices.Concat(tfOne(f, "input", p), tfOne(f, "input", &pb.TensorProto{Dtype: pb.DataType_DT_FLOAT, TensorShape: tfShape(4, 3)})))
	f.Add(slices.Concat(tfOne(f, "input", p), protowire.AppendTag(nil, 2, protowire.BytesType)))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := &Infer{}
		err := r.Decode(scorer.TFServing, digits, "m", "3", 0, body)
		var req pb.PredictRequest
		if proto.Unmarshal(body, &req) != nil || err != nil {
			return
		}
		in := req.Inputs["input"]
		want := in.TensorContent
		if n, _ := tensor.Elements(r.Inputs[0].Shape); len(want) == 0 {
			values := append([]float32{}, in.FloatVal...)
			for int64(len(values)) < n {
				last := float32(0)
				if len(values) > 0 {
					last = values[len(values)-1]
				}
				values = append(values, last)
			}
			want = floats(values...)
		}
		if !bytes.Equal(r.Inputs[0].Data, want) {
			t.Fatalf("%v: %x; want %x", &req, r.Inputs[0].Data, want)
		}
		out := []tensor.Tensor{{DType: tensor.Int64, Shape: []int64{1}, Data: ints(7)}, {DType: tensor.Float32, Shape: []int64{1, 2}, Data: floats(1, 2)}}
		answer, _, _ := r.Append(nil, digits, "m", "3", out)
		var resp pb.PredictResponse
		if err := proto.Unmarshal(answer, &resp); err != nil || len(req.OutputFilter) == 0 && len(resp.Outputs) != 2 {
			t.Fatalf("answered %v, %v", &resp, err)
		}
	})
}
