package codec

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"google.golang.org/protobuf/proto"

	"sluice.dev/accel/tensor"
	pb "sluice.dev/gateway/grpcapi/inferencepb"
	"sluice.dev/scorer"
)

// memory is shared memory of regions by name.
type memory map[string][]byte

func (m memory) at(region string, offset, size uint64) ([]byte, error) {
	b, ok := m[region]
	if !ok || offset > uint64(len(b)) || size > uint64(len(b))-offset {
		return nil, bad("no %d bytes at %d of %s", size, offset, region)
	}
	return b[offset : offset+size], nil
}

func (m memory) Append(dst []byte, region string, offset, size uint64) ([]byte, error) {
	b, err := m.at(region, offset, size)
	return append(dst, b...), err
}

func (m memory) Write(region string, offset uint64, data []byte) error {
	b, err := m.at(region, offset, uint64(len(data)))
	copy(b, data)
	return err
}

func TestTensorsInSharedMemory(t *testing.T) {
	m := memory{"in": append([]byte("xxxx"), floats(1, 2, 3)...), "out": make([]byte, 20)}
	body := `{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32","parameters":{"shared_memory_region":"in","shared_memory_offset":4,"shared_memory_byte_size":12}}],` +
		`"outputs":[{"name":"probabilities","parameters":{"shared_memory_region":"out","shared_memory_offset":2,"shared_memory_byte_size":9}},{"name":"label"}]}`
	r := &Infer{Reach: &Reach{Regions: m}}
	if err := r.Decode(scorer.OIP, digits, "m", "v", 0, []byte(body)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(r.Inputs[0].Data, floats(1, 2, 3)) {
		t.Errorf("read %x", r.Inputs[0].Data)
	}
	out := []tensor.Tensor{{DType: tensor.Int64, Shape: []int64{1}, Data: ints(7)}, {DType: tensor.Float32, Shape: []int64{1, 2}, Data: floats(0.5, 0.25)}}
	answer, head, err := r.Append(nil, digits, "m", "v", out)
	want := `{"model_name":"m","model_version":"v","outputs":[{"name":"probabilities","datatype":"FP32","shape":[1,2]},{"name":"label","datatype":"INT64","shape":[1],"data":[7]}]}`
	if string(answer) != want || head != 0 || err != nil {
		t.Errorf("%s %d %v\nwant %s", answer, head, err, want)
	}
	if !bytes.Equal(m["out"][2:10], floats(0.5, 0.25)) {
		t.Errorf("written %x", m["out"])
	}
	r.wanted[0].at.size = 7
	if _, _, err = r.Append(nil, digits, "m", "v", out); err == nil ||
		err.Error() != "shared memory size specified with the request for output 'probabilities' (7 bytes) should be at least 8 bytes to hold the results" {
		t.Error(err)
	}
	for size, want := range map[string]string{"8": "input byte size mismatch for input 'input' for model 'm'. Expected 12, got 8", "13": "no 13 bytes at 4 of in"} {
		wrong := bytes.Replace([]byte(body), []byte(`"shared_memory_byte_size":12`), []byte(`"shared_memory_byte_size":`+size), 1)
		if err := r.Decode(scorer.OIP, digits, "m", "v", 0, wrong); err == nil || err.Error() != want {
			t.Errorf("%s bytes: %v; want %s", size, err, want)
		}
	}
}

func text(s string) *pb.InferParameter {
	return &pb.InferParameter{ParameterChoice: &pb.InferParameter_StringParam{StringParam: s}}
}

func count(n int64) *pb.InferParameter {
	return &pb.InferParameter{ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: n}}
}

// Inputs in shared memory take no place among the raw ones; such outputs do among the
// raw answers, an empty one.
func TestTensorsInSharedMemoryOverGRPC(t *testing.T) {
	m := memory{"in": []byte{1, 2}, "out": make([]byte, 20)}
	req := &pb.ModelInferRequest{
		Inputs: []*grpcInput{
			{Name: "a", Datatype: "INT8", Shape: []int64{1, 2}, Parameters: map[string]*pb.InferParameter{"shared_memory_region": text("in"), "shared_memory_byte_size": count(2)}},
			{Name: "b", Datatype: "BYTES", Shape: []int64{1, 1}},
		},
		Outputs: []*grpcOutput{{Name: "c", Parameters: map[string]*pb.InferParameter{
			"shared_memory_region": text("out"), "shared_memory_byte_size": count(15), "shared_memory_offset": count(5),
		}}},
		RawInputContents: [][]byte{strs("x")},
	}
	r := &Infer{Reach: &Reach{Regions: m}}
	if err := r.Decode(scorer.GRPC, pairOf, "m", "v", 0, marshal(t, req)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(r.Inputs[0].Data, []byte{1, 2}) || !bytes.Equal(r.Inputs[1].Data, strs("x")) {
		t.Errorf("read %x %x", r.Inputs[0].Data, r.Inputs[1].Data)
	}
	answer, _, err := r.Append(nil, pairOf, "m", "v", []tensor.Tensor{{DType: tensor.Bytes, Shape: []int64{1, 1}, Data: strs("hello")}})
	if err != nil {
		t.Fatal(err)
	}
	var got pb.ModelInferResponse
	if err := proto.Unmarshal(answer, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.RawOutputContents) != 1 || len(got.RawOutputContents[0]) != 0 || !bytes.Equal(m["out"][5:14], strs("hello")) {
		t.Errorf("answered %v, written %x", &got, m["out"])
	}
	req.Inputs[0].Contents = &contents{IntContents: []int32{1, 2}}
	err = r.Decode(scorer.GRPC, pairOf, "m", "v", 0, marshal(t, req))
	if want := "unexpected 'content' provided when using shared memory for input tensor 'a' for model 'm'"; err == nil || err.Error() != want {
		t.Errorf("%v; want %s", err, want)
	}
}

func TestClassification(t *testing.T) {
	nan := float32(math.NaN())
	f := func(d tensor.DType, shape []int64, data []byte, k string, labels []string, want string) {
		t.Helper()
		sig := &tensor.Signature{Inputs: digits.Inputs, Outputs: []tensor.Info{{Name: "y", DType: d, Shape: append([]int64{-1}, shape[1:]...)}}}
		r := &Infer{Reach: &Reach{Labels: func(string) []string { return labels }}}
		body := `{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32","data":[1,2,3]}],"outputs":[{"name":"y","parameters":{"classification":` + k + `}}]}`
		if err := r.Decode(scorer.OIP, sig, "m", "v", 0, []byte(body)); err != nil {
			t.Fatal(err)
		}
		answer, _, err := r.Append(nil, sig, "m", "v", []tensor.Tensor{{DType: d, Shape: shape, Data: data}})
		if err != nil {
			answer = []byte(err.Error())
		} else {
			answer = answer[len(`{"model_name":"m","model_version":"v","outputs":[{"name":"y","datatype":`) : len(answer)-len("}]}")]
		}
		if string(answer) != want {
			t.Errorf("%v of %v: %s; want %s", k, shape, answer, want)
		}
	}
	f(tensor.Float32, []int64{2, 3}, floats(0.1, 0.7, 0.2, 3, 1, 2), "2", []string{"zero", "one"}, `"BYTES","shape":[2,2],"data":["0.700000:1:one","0.200000:2","3.000000:0:zero","2.000000:2"]`)
	f(tensor.Float32, []int64{1, 3}, floats(nan, -1, -2), "5", nil, `"BYTES","shape":[1,3],"data":["-1.000000:1","-2.000000:2","NaN:0"]`)
	f(tensor.Int64, []int64{1, 2, 2}, ints(math.MaxInt64, math.MaxInt64-1, -1, math.MinInt64), "3", nil,
		`"BYTES","shape":[1,3],"data":["9223372036854775807:0","9223372036854775806:1","-1:2"]`)
	f(tensor.Uint8, []int64{1, 3}, []byte{1, 255, 1}, "3", nil, `"BYTES","shape":[1,3],"data":["255:1","1:0","1:2"]`)
	f(tensor.Int64, []int64{2}, ints(1, 2), "1", nil, `"BYTES","shape":[2,1],"data":["1:0","2:0"]`)
	f(tensor.Float32, []int64{1, 3}, floats(1, 2, 3), "0", nil, `"FP32","shape":[1,3],"data":[1,2,3]`)
	f(tensor.Bytes, []int64{1, 1}, strs("a"), "1", nil, "class result not available for output 'y' due to unsupported type 'BYTES'")
}

// Whatever is asked of outputs is answered, or refused with a status.
func FuzzOutputs(f *testing.F) {
	for _, outputs := range []string{
		`[{"name":"label","parameters":{"classification":1,"binary_data":true}},{"name":"probabilities","parameters":{"classification":9}}]`,
		`[{"name":"probabilities","parameters":{"shared_memory_region":"r","shared_memory_byte_size":8,"shared_memory_offset":1}}]`, `[]`, `[{"name":"label"}]`,
	} {
		f.Add([]byte(outputs))
	}
	out := []tensor.Tensor{{DType: tensor.Int64, Shape: []int64{1}, Data: ints(7)}, {DType: tensor.Float32, Shape: []int64{1, 2}, Data: floats(0.5, 0.25)}}
	f.Fuzz(func(t *testing.T, outputs []byte) {
		r := &Infer{Reach: &Reach{Regions: memory{"r": make([]byte, 10)}}}
		body := append([]byte(`{"inputs":[{"name":"input","shape":[1,3],"datatype":"FP32","data":[1,2,3]}],"outputs":`), append(outputs, '}')...)
		err := r.Decode(scorer.OIP, digits, "m", "v", 0, body)
		if err == nil {
			_, _, err = r.Append(nil, digits, "m", "v", out)
		}
		if known := (*scorer.Error)(nil); err != nil && !errors.As(err, &known) {
			t.Fatalf("error %v has no status", err)
		}
	})
}
