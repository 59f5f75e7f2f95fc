package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"sluice.dev/accel/tensor"
	pb "sluice.dev/gateway/grpcapi/inferencepb"
	"sluice.dev/scorer"
)

type (
	grpcInput  = pb.ModelInferRequest_InferInputTensor
	grpcOutput = pb.ModelInferRequest_InferRequestedOutputTensor
	contents   = pb.InferTensorContents
)

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// every has one input and one output of each type, of one dimension of any size.
var every = func() *tensor.Signature {
	s := &tensor.Signature{}
	for d := tensor.Bool; d <= tensor.Bytes; d++ {
		info := tensor.Info{Name: strings.ToLower(d.String()), DType: d, Shape: []int64{-1}}
		s.Inputs, s.Outputs = append(s.Inputs, info), append(s.Outputs, info)
	}
	return s
}()

// only is every's signature with one type alone.
func only(d tensor.DType) *tensor.Signature {
	info := every.Inputs[d-tensor.Bool : d-tensor.Bool+1]
	return &tensor.Signature{Inputs: info, Outputs: info}
}

func TestContentsOfEveryType(t *testing.T) {
	f := func(d tensor.DType, n int64, c *contents, want []byte) {
		t.Helper()
		body := marshal(t, &pb.ModelInferRequest{Inputs: []*grpcInput{{Name: strings.ToLower(d.String()), Datatype: d.String(), Shape: []int64{n}, Contents: c}}})
		r := &Infer{}
		if err := r.Decode(scorer.GRPC, only(d), "m", "v", 0, body); err != nil {
			t.Errorf("%v: %v", d, err)
		} else if !bytes.Equal(r.Inputs[0].Data, want) || r.Rows != int(n) {
			t.Errorf("%v: %x in %d rows; want %x", d, r.Inputs[0].Data, r.Rows, want)
		}
	}
	le := binary.LittleEndian
	f(tensor.Bool, 3, &contents{BoolContents: []bool{true, false, true}}, []byte{1, 0, 1})
	f(tensor.Int8, 3, &contents{IntContents: []int32{-128, 127, -1}}, []byte{0x80, 0x7f, 0xff})
	f(tensor.Int16, 2, &contents{IntContents: []int32{-32768, 32767}}, []byte{0, 0x80, 0xff, 0x7f})
	f(tensor.Int32, 2, &contents{IntContents: []int32{math.MinInt32, math.MaxInt32}}, []byte{0, 0, 0, 0x80, 0xff, 0xff, 0xff, 0x7f})
	f(tensor.Int64, 2, &contents{Int64Contents: []int64{math.MinInt64, -1}}, ints(math.MinInt64, -1))
	f(tensor.Uint8, 2, &contents{UintContents: []uint32{0, 255}}, []byte{0, 255})
	f(tensor.Uint16, 1, &contents{UintContents: []uint32{65535}}, []byte{255, 255})
	f(tensor.Uint32, 1, &contents{UintContents: []uint32{math.MaxUint32}}, []byte{255, 255, 255, 255})
	f(tensor.Uint64, 1, &contents{Uint64Contents: []uint64{math.MaxUint64}}, ints(-1))
	f(tensor.Float32, 2, &contents{Fp32Contents: []float32{1.5, float32(math.Inf(-1))}}, floats(1.5, float32(math.Inf(-1))))
	f(tensor.Float64, 1, &contents{Fp64Contents: []float64{math.Pi}}, le.AppendUint64(nil, math.Float64bits(math.Pi)))
	f(tensor.Bytes, 3, &contents{BytesContents: [][]byte{[]byte("a\x00b"), {}, {0xff}}}, strs("a\x00b", "", "\xff"))
}

func TestRawContentsOfEveryTypeComeBack(t *testing.T) {
	req := &pb.ModelInferRequest{ModelName: "m", Id: "7"}
	var out []tensor.Tensor
	for i, in := range slices.Backward(every.Inputs) { // the order is the request's
		data := make([]byte, 2*in.DType.Size())
		if in.DType == tensor.Bytes {
			data = strs("a", "\xff\x00")
		}
		if len(data) > 0 {
			data[len(data)-1] = byte(i) & 1
		}
		req.Inputs = append(req.Inputs, &grpcInput{Name: in.Name, Datatype: in.DType.String(), Shape: []int64{2}})
		req.RawInputContents = append(req.RawInputContents, data)
	}
	r := &Infer{}
	if err := r.Decode(scorer.GRPC, every, "m", "v", 0, marshal(t, req)); err != nil {
		t.Fatal(err)
	}
	out = append(out, r.Inputs...)
	body, head, err := r.Append(nil, every, "m", "v", out)
	if err != nil || head != 0 {
		t.Fatal(head, err)
	}
	var resp pb.ModelInferResponse
	if err := proto.Unmarshal(body, &resp); err != nil {
		t.Fatal(err)
	}
	if resp.ModelName != "m" || resp.ModelVersion != "v" || resp.Id != "7" || len(resp.Outputs) != len(out) {
		t.Errorf("answered %v", &resp)
	}
	slices.Reverse(req.RawInputContents)
	for i, o := range resp.Outputs {
		if o.Name != every.Outputs[i].Name || o.Datatype != every.Outputs[i].DType.String() || !slices.Equal(o.Shape, []int64{2}) ||
			!bytes.Equal(resp.RawOutputContents[i], req.RawInputContents[i]) {
			t.Errorf("output %d is %v with %x; want %x", i, o, resp.RawOutputContents[i], req.RawInputContents[i])
		}
	}
}

// floatInput is an input of digits, with something changed.
func floatInput(change func(*grpcInput)) *grpcInput {
	in := &grpcInput{Name: "input", Datatype: "FP32", Shape: []int64{1, 3}, Contents: &contents{Fp32Contents: []float32{1, 2, 3}}}
	change(in)
	return in
}

func TestFieldsInPartsAndInAnyOrderAreMerged(t *testing.T) {
	unpacked := func(list ...float32) (b []byte) {
		for _, f := range list {
			b = protowire.AppendFixed32(protowire.AppendTag(b, 6, protowire.Fixed32Type), math.Float32bits(f))
		}
		return b
	}
	field := func(num protowire.Number, v []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), v)
	}
	packed := field(6, floats(3))
	in := slices.Concat(
		field(5, unpacked(1, 2)), field(99, []byte("unknown")), field(3, []byte{1}), field(2, []byte("INT8")),
		field(1, []byte("other")), field(5, packed), field(2, []byte("FP32")), protowire.AppendVarint(protowire.AppendTag(nil, 3, protowire.VarintType), 3),
		field(1, []byte("input")),
	)
	timeout := func(n int64) []byte {
		return field(4, marshal(t, &pb.ModelInferRequest{Parameters: map[string]*pb.InferParameter{"timeout": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: n}}}})[2:])
	}
	body := slices.Concat(field(7, nil)[:0], timeout(5), field(3, []byte("first")), field(5, in), field(3, []byte("last")), timeout(9),
		protowire.AppendVarint(protowire.AppendTag(nil, 77, protowire.VarintType), 1))
	var twin pb.ModelInferRequest
	if err := proto.Unmarshal(body, &twin); err != nil || len(twin.Inputs[0].Contents.Fp32Contents) != 3 {
		t.Fatal(err, &twin)
	}
	r := &Infer{}
	if err := r.Decode(scorer.GRPC, digits, "m", "v", 0, body); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(r.Inputs[0].Data, floats(1, 2, 3)) || string(r.id) != "last" || r.Timeout != 9*time.Microsecond {
		t.Errorf("input %x, id %s, timeout %v", r.Inputs[0].Data, r.id, r.Timeout)
	}
}

func TestBadProtobufRequests(t *testing.T) {
	f := func(want string, req *pb.ModelInferRequest) {
		t.Helper()
		wantInvalid(t, (&Infer{}).Decode(scorer.GRPC, digits, "m", "v", 0, marshal(t, req)), want)
	}
	input := func(want string, change func(*grpcInput)) {
		t.Helper()
		f(want, &pb.ModelInferRequest{Inputs: []*grpcInput{floatInput(change)}})
	}
	parameter := func(want, name string, p *pb.InferParameter) {
		t.Helper()
		f(want, &pb.ModelInferRequest{Parameters: map[string]*pb.InferParameter{name: p}})
	}
	good := floatInput(func(*grpcInput) {})
	raw := floatInput(func(in *grpcInput) { in.Contents = nil })

	f("expected 1 inputs but got 0 inputs for model 'm'. Got input(s) [], but missing required input(s) ['input']", &pb.ModelInferRequest{})
	f("input 'input' already exists in request", &pb.ModelInferRequest{Inputs: []*grpcInput{good, good}})
	f("contents field must not be specified when using raw_input_contents for 'input' for model 'm'",
		&pb.ModelInferRequest{Inputs: []*grpcInput{good}, RawInputContents: [][]byte{floats(1, 2, 3)}})
	f("unable to find data for input tensor 'input' for model 'm' in request.", &pb.ModelInferRequest{Inputs: []*grpcInput{raw}})
	f("unexpected additional input data for model 'm'", &pb.ModelInferRequest{Inputs: []*grpcInput{raw}, RawInputContents: [][]byte{floats(1, 2, 3), {1}}})
	f("input byte size mismatch for input 'input' for model 'm'. Expected 12, got 8", &pb.ModelInferRequest{Inputs: []*grpcInput{raw}, RawInputContents: [][]byte{floats(1, 2)}})
	f("unexpected inference output 'x' for model 'm'", &pb.ModelInferRequest{Inputs: []*grpcInput{good}, Outputs: []*grpcOutput{{Name: "x"}}})
	f("output 'label' already exists", &pb.ModelInferRequest{Inputs: []*grpcInput{good}, Outputs: []*grpcOutput{{Name: "label"}, {Name: "label"}}})
	f("invalid value for 'classification' parameter, expected int64_param >= 0.", &pb.ModelInferRequest{Outputs: []*grpcOutput{{Name: "label", Parameters: map[string]*pb.InferParameter{"classification": {}}}}})
	input("unexpected inference input 'image' for model 'm'", func(in *grpcInput) { in.Name = "image" })
	input("invalid datatype 'FP31' for input 'input'", func(in *grpcInput) { in.Datatype = "FP31" })
	input("unexpected explicit tensor data for input tensor 'input' for model 'm' of type 'FP16', expected datatype 'FP32'", func(in *grpcInput) { in.Datatype = "FP16" })
	input("unexpected explicit tensor data", func(in *grpcInput) { in.Contents.IntContents = []int32{1} })
	input("inference input 'input' data-type is 'INT8', but model 'm' expects 'FP32'", func(in *grpcInput) {
		in.Datatype, in.Contents = "INT8", &contents{IntContents: []int32{1, 2, 3}}
	})
	input("Unable to parse 'contents': -129 is out of range for input 'input' of type INT8", func(in *grpcInput) {
		in.Datatype, in.Contents = "INT8", &contents{IntContents: []int32{-129}}
	})
	input("256 is out of range for input 'input' of type UINT8", func(in *grpcInput) {
		in.Datatype, in.Contents = "UINT8", &contents{UintContents: []uint32{256}}
	})
	input("unexpected shape for input 'input' for model 'm'. Expected [-1,3], got [1,4]", func(in *grpcInput) { in.Shape = []int64{1, 4} })
	input("unexpected shape", func(in *grpcInput) { in.Shape = []int64{-1, 3} })
	input("unexpected shape", func(in *grpcInput) { in.Shape = nil })
	input("a shape has at most 64 dimensions", func(in *grpcInput) { in.Shape = make([]int64, 65) })
	input("input byte size mismatch for input 'input' for model 'm'. Expected 12, got 8", func(in *grpcInput) { in.Contents.Fp32Contents = []float32{1, 2} })
	input("has no elements", func(in *grpcInput) { in.Shape[0], in.Contents = 0, nil })
	input("causes total element count to exceed", func(in *grpcInput) { in.Shape[0], in.Contents.Fp32Contents = math.MaxInt64, []float32{1} })
	input("invalid value type for 'shared_memory_region' parameter, expected string_param.", func(in *grpcInput) { in.Parameters = map[string]*pb.InferParameter{"shared_memory_region": {}} })
	parameter("reserved for Triton usage", "triton_x", nil)
	parameter("invalid value type for 'timeout' parameter, expected int64_param.", "timeout", &pb.InferParameter{ParameterChoice: &pb.InferParameter_StringParam{StringParam: "1"}})
	parameter("invalid value for 'timeout', expected value >= 0.", "timeout", &pb.InferParameter{ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: -1}})
	parameter("invalid value type for 'priority' parameter, expected int64_param.", "priority", &pb.InferParameter{})
	parameter("invalid value for 'priority', expected value >= 0.", "priority", &pb.InferParameter{ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: -1}})
	parameter("but missing required input", "triton_enable_empty_final_response", nil)

	whole := marshal(t, &pb.ModelInferRequest{Id: "i", Inputs: []*grpcInput{good}})
	for i := range whole {
		if err := (&Infer{}).Decode(scorer.GRPC, digits, "m", "v", 0, whole[:i]); err == nil {
			t.Errorf("the first %d of %d bytes were taken for a request", i, len(whole))
		}
	}
	wantInvalid(t, (&Infer{}).Decode(scorer.GRPC, digits, "m", "v", 0, []byte("\x1a\x01\xff")), "must be UTF-8")
}

// What is repeated without an end is refused as soon as it cannot be right: two bytes of
// a message must not take more of memory than they are.
func TestRepeatedFieldsOfProtobufTakeLittleMemory(t *testing.T) {
	field := func(num protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b)
	}
	r := &Infer{}
	f := func(want string, one []byte) {
		t.Helper()
		wantInvalid(t, r.Decode(scorer.GRPC, digits, "m", "v", 0, bytes.Repeat(one, 1<<20)), want)
		if cap(r.raws) > 8 || cap(r.given) > 8 || cap(r.wanted) > 8 || cap(r.shapes) > 128 || r.Size() > 4096 {
			t.Errorf("kept %d raw contents, %d inputs, %d outputs, %d dimensions, %d bytes", cap(r.raws), cap(r.given), cap(r.wanted), cap(r.shapes), r.Size())
		}
	}
	f("unexpected additional input data for model 'm'", field(7, nil))
	f("already exists in request", field(5, marshal(t, floatInput(func(*grpcInput) {}))))
	f("already exists in request", field(6, marshal(t, &grpcOutput{Name: "label"})))
	f("expected 1 inputs but got 0", field(4, nil))
}

func wantInvalid(t *testing.T, err error, want string) {
	t.Helper()
	var known *scorer.Error
	if !errors.As(err, &known) || known.Status != scorer.InvalidArgument || !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want InvalidArgument with %q", err, want)
	}
}

func TestOnlyWantedOutputsAreAnswered(t *testing.T) {
	r := &Infer{}
	body := marshal(t, &pb.ModelInferRequest{Inputs: []*grpcInput{floatInput(func(*grpcInput) {})}, Outputs: []*grpcOutput{{Name: "probabilities"}}})
	if err := r.Decode(scorer.GRPC, digits, "m", "v", 0, body); err != nil {
		t.Fatal(err)
	}
	out := []tensor.Tensor{{DType: tensor.Int64, Shape: []int64{1}, Data: ints(7)}, {DType: tensor.Float32, Shape: []int64{1, 2}, Data: floats(1, 2)}}
	got, _, _ := r.Append(nil, digits, "m", "v", out)
	var resp pb.ModelInferResponse
	if err := proto.Unmarshal(got, &resp); err != nil || len(resp.Outputs) != 1 || resp.Outputs[0].Name != "probabilities" || !bytes.Equal(resp.RawOutputContents[0], floats(1, 2)) {
		t.Errorf("%v, %v", &resp, err)
	}
}

// someRequests are good and bad, for fuzzing to begin with.
func someRequests(t testing.TB) (list [][]byte) {
	raw := &pb.ModelInferRequest{ModelName: "m", ModelVersion: "v", Id: "é", Inputs: []*grpcInput{
		{Name: "b", Datatype: "BYTES", Shape: []int64{1, 1}}, {Name: "a", Datatype: "INT8", Shape: []int64{1, 2}},
	}, RawInputContents: [][]byte{strs("x"), {1, 2}}, Outputs: []*grpcOutput{{Name: "c"}},
		Parameters: map[string]*pb.InferParameter{"timeout": {ParameterChoice: &pb.InferParameter_Uint64Param{Uint64Param: 5}}, "priority": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 2}}, "x": {ParameterChoice: &pb.InferParameter_DoubleParam{DoubleParam: 1}}}}
	typed := &pb.ModelInferRequest{Inputs: []*grpcInput{
		{Name: "a", Datatype: "INT8", Shape: []int64{2, 2}, Contents: &contents{IntContents: []int32{1, -1, 127, -128}}},
		{Name: "b", Datatype: "BYTES", Shape: []int64{2, 1}, Contents: &contents{BytesContents: [][]byte{{}, {1, 2}}}},
	}}
	list = append(list, nil, marshal(t, raw), marshal(t, typed))
	typed.Inputs[0].Contents.IntContents[0] = 128
	raw.RawInputContents = append(raw.RawInputContents, nil, nil, nil)
	return append(list, marshal(t, typed), marshal(t, raw))
}

// FuzzGRPC holds the reader against the generated code: whatever that reads, means
// the same here.
func FuzzGRPC(f *testing.F) {
	for _, b := range someRequests(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := &Infer{}
		err := r.Decode(scorer.GRPC, pairOf, "m", "v", 0, body)
		var req pb.ModelInferRequest
		if proto.Unmarshal(body, &req) != nil {
			return // may be read all the same: texts that are not UTF-8
		}
		want, ok := twin(&req, pairOf)
		if ok != (err == nil) {
			t.Fatalf("%v: %v; the twin took it: %v", &req, err, ok)
		}
		for i := range want {
			if !bytes.Equal(want[i], r.Inputs[i].Data) {
				t.Fatalf("%v: input %d is %x; want %x", &req, i, r.Inputs[i].Data, want[i])
			}
		}
		if ok {
			answered(t, r, &req)
		}
	})
}

// answered checks that the answer to req is what the generated code reads.
func answered(t *testing.T, r *Infer, req *pb.ModelInferRequest) {
	out := []tensor.Tensor{{DType: tensor.Bytes, Shape: []int64{1, 1}, Data: strs("y")}}
	body, _, err := r.Append(nil, pairOf, "m", "v", out)
	var resp pb.ModelInferResponse
	if err != nil || proto.Unmarshal(body, &resp) != nil || resp.Id != req.Id || len(resp.RawOutputContents) != 1 || !bytes.Equal(resp.RawOutputContents[0], strs("y")) {
		t.Fatalf("answered %v, %v", &resp, err)
	}
}

// twin is the plain reading of a request for pairOf: its tensors, or false.
func twin(req *pb.ModelInferRequest, sig *tensor.Signature) (data [][]byte, ok bool) {
	for name, p := range req.Parameters {
		_, whole := p.GetParameterChoice().(*pb.InferParameter_Int64Param)
		_, natural := p.GetParameterChoice().(*pb.InferParameter_Uint64Param)
		if (name == "timeout" || name == "priority") && (!whole && !natural || p.GetInt64Param() < 0) ||
			strings.HasPrefix(name, "triton_") && name != "triton_enable_empty_final_response" {
			return nil, false
		}
	}
	if len(req.Inputs) != len(sig.Inputs) || len(req.RawInputContents) > len(req.Inputs) {
		return nil, false
	}
	for i, o := range req.Outputs {
		_, classes := o.Parameters["classification"]
		_, shared := o.Parameters["shared_memory_region"]
		if o.Name != "c" || i > 0 || classes || shared {
			return nil, false
		}
	}
	data = make([][]byte, len(sig.Inputs))
	rows := req.Inputs[0].GetShape()
	for i, in := range req.Inputs {
		k := sig.Input(in.Name)
		_, shared := in.Parameters["shared_memory_region"]
		if k < 0 || data[k] != nil || shared || in.Datatype != sig.Inputs[k].DType.String() || !sig.Inputs[k].Accepts(in.Shape) || in.Shape[0] != rows[0] || in.Shape[0] == 0 {
			return nil, false
		}
		c := in.GetContents()
		b, good := twinContents(c, sig.Inputs[k].DType)
		if !good {
			return nil, false
		}
		if len(req.RawInputContents) > 0 {
			if len(b) > 0 || i >= len(req.RawInputContents) {
				return nil, false
			}
			b = req.RawInputContents[i]
		}
		n, _ := tensor.Elements(in.Shape)
		if !whole(b, sig.Inputs[k].DType, n) || b == nil {
			return nil, false
		}
		data[k] = b
	}
	return data, true
}

// twinContents are the elements of an INT8 or BYTES input; false: of another type,
// or out of range.
func twinContents(c *contents, d tensor.DType) (b []byte, ok bool) {
	others := len(c.GetBoolContents()) + len(c.GetInt64Contents()) + len(c.GetUintContents()) + len(c.GetUint64Contents()) + len(c.GetFp32Contents()) + len(c.GetFp64Contents())
	if others > 0 || d == tensor.Int8 && len(c.GetBytesContents()) > 0 || d == tensor.Bytes && len(c.GetIntContents()) > 0 {
		return nil, false
	}
	for _, v := range c.GetIntContents() {
		if v < -128 || v > 127 {
			return nil, false
		}
		b = append(b, byte(v))
	}
	for _, v := range c.GetBytesContents() {
		b = append(b, strs(string(v))...)
	}
	return b, true
}

func whole(b []byte, d tensor.DType, n int64) bool {
	if d == tensor.Int8 {
		return int64(len(b)) == n
	}
	return checkStrings(b, n, "", "") == nil
}

// A request of numbers costs no allocation.
func TestProtobufRequestsAllocateNothing(t *testing.T) {
	f := func(req *pb.ModelInferRequest) {
		t.Helper()
		body := marshal(t, req)
		r, dst := &Infer{}, make([]byte, 0, 1<<10)
		out := []tensor.Tensor{{DType: tensor.Int64, Shape: []int64{1}, Data: ints(7)}, {DType: tensor.Float32, Shape: []int64{1, 2}, Data: floats(1, 2)}}
		n := testing.AllocsPerRun(100, func() {
			if err := r.Decode(scorer.GRPC, digits, "m", "v", 0, body); err != nil {
				t.Fatal(err)
			}
			dst, _, _ = r.Append(dst[:0], digits, "m", "v", out)
		})
		if n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
	parameters := map[string]*pb.InferParameter{"timeout": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 1}}}
	f(&pb.ModelInferRequest{Id: "1", Parameters: parameters, Inputs: []*grpcInput{floatInput(func(in *grpcInput) { in.Contents = nil })}, RawInputContents: [][]byte{floats(1, 2, 3)}})
	f(&pb.ModelInferRequest{Inputs: []*grpcInput{floatInput(func(*grpcInput) {})}, Outputs: []*grpcOutput{{Name: "label"}}})
}

func BenchmarkGRPC(b *testing.B) {
	for _, form := range []string{"raw", "contents"} {
		b.Run(form, func(b *testing.B) {
			in := floatInput(func(*grpcInput) {})
			req := &pb.ModelInferRequest{ModelName: "m", Id: "1", Inputs: []*grpcInput{in}}
			if form == "raw" {
				in.Contents, req.RawInputContents = nil, [][]byte{floats(1, 2, 3)}
			}
			body := marshal(b, req)
			out := []tensor.Tensor{{DType: tensor.Int64, Shape: []int64{1}, Data: ints(7)}, {DType: tensor.Float32, Shape: []int64{1, 2}, Data: floats(1, 2)}}
			r, dst := &Infer{}, []byte(nil)
			b.ReportAllocs()
			for b.Loop() {
				if err := r.Decode(scorer.GRPC, digits, "m", "v", 0, body); err != nil {
					b.Fatal(err)
				}
				dst, _, _ = r.Append(dst[:0], digits, "m", "v", out)
			}
		})
	}
	b.Run("generated code", func(b *testing.B) {
		req := &pb.ModelInferRequest{ModelName: "m", Id: "1", Inputs: []*grpcInput{floatInput(func(in *grpcInput) { in.Contents = nil })}, RawInputContents: [][]byte{floats(1, 2, 3)}}
		body := marshal(b, req)
		resp := &pb.ModelInferResponse{ModelName: "m", ModelVersion: "v", Id: "1", RawOutputContents: [][]byte{ints(7), floats(1, 2)}, Outputs: []*pb.ModelInferResponse_InferOutputTensor{
			{Name: "label", Datatype: "INT64", Shape: []int64{1}}, {Name: "probabilities", Datatype: "FP32", Shape: []int64{1, 2}},
		}}
		b.ReportAllocs()
		for b.Loop() {
			var got pb.ModelInferRequest
			if err := proto.Unmarshal(body, &got); err != nil {
				b.Fatal(err)
			}
			if _, err := proto.Marshal(resp); err != nil {
				b.Fatal(err)
			}
		}
	})
}
