package grpcapi

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sluice.dev/accel/tensor"
	pb "sluice.dev/gateway/grpcapi/tfservingpb"
)

// tfSpec names endpoint e and a version: a number, a label, or none.
func tfSpec(version any) *pb.ModelSpec {
	m := &pb.ModelSpec{Name: "e"}
	switch v := version.(type) {
	case int:
		m.VersionChoice = &pb.ModelSpec_Version{Version: wrapperspb.Int64(int64(v))}
	case string:
		m.VersionChoice = &pb.ModelSpec_VersionLabel{VersionLabel: v}
	}
	return m
}

func tfAsk(m *pb.ModelSpec) *pb.PredictRequest {
	shape := &pb.TensorShapeProto{Dim: []*pb.TensorShapeProto_Dim{{Size: 1}, {Size: 2}}}
	return &pb.PredictRequest{ModelSpec: m, Inputs: map[string]*pb.TensorProto{"in": {Dtype: pb.DataType_DT_UINT8, TensorShape: shape, TensorContent: []byte{3, 4}}}}
}

func TestTFPredict(t *testing.T) {
	h := open(t, Config{}, identity{})
	call := pb.NewPredictionServiceClient(h.dial(t))
	for _, version := range []any{nil, 0, 1, 7, "v", "7"} {
		r, err := call.Predict(soon(t), tfAsk(tfSpec(version)))
		if err != nil || !slices.Equal(r.Outputs["out"].GetIntVal(), []int32{3, 4}) || len(r.Outputs["out"].TensorShape.Dim) != 2 {
			t.Errorf("version %v: %v, %v", version, r, err)
		}
	}
	f := func(c codes.Code, text string, change func(*pb.PredictRequest)) {
		t.Helper()
		q := tfAsk(tfSpec(nil))
		change(q)
		_, err := call.Predict(soon(t), q)
		wantError(t, err, c, text)
	}
	f(codes.NotFound, "Servable not found for request: Latest(nope)", func(q *pb.PredictRequest) { q.ModelSpec.Name = "nope" })
	f(codes.NotFound, "Servable not found for request: Specific(e, 9)", func(q *pb.PredictRequest) { q.ModelSpec = tfSpec(9) })
	f(codes.NotFound, `"e" has no version with label "stable"`, func(q *pb.PredictRequest) { q.ModelSpec = tfSpec("stable") })
	f(codes.Unauthenticated, "no valid credential", func(q *pb.PredictRequest) { q.ModelSpec.Name = "locked" })
	f(codes.InvalidArgument, "input size does not match signature: 0!=1", func(q *pb.PredictRequest) { q.Inputs = nil })
	f(codes.InvalidArgument, "Expects arg[0] to be uint8 but float is provided", func(q *pb.PredictRequest) { q.Inputs["in"].Dtype = pb.DataType_DT_FLOAT })
}

func TestTFExamples(t *testing.T) {
	refuses := pb.NewPredictionServiceClient(open(t, Config{}, identity{}).dial(t))
	x := map[string]*pb.Feature{"x": {Kind: &pb.Feature_FloatList{FloatList: &pb.FloatList{Value: []float32{2.5}}}}}
	input := &pb.Input{Kind: &pb.Input_ExampleList{ExampleList: &pb.ExampleList{Examples: []*pb.Example{{Features: &pb.Features{Feature: x}}}}}}
	_, err := refuses.Classify(soon(t), &pb.ClassificationRequest{ModelSpec: tfSpec(nil), Input: input})
	wantError(t, err, codes.InvalidArgument, "model 'e' cannot be called by Classify: its input 'in' of shape [-1,-1]")
	_, err = refuses.Regress(soon(t), &pb.RegressionRequest{ModelSpec: tfSpec(9), Input: input})
	wantError(t, err, codes.NotFound, "Servable not found for request: Specific(e, 9)")
	_, err = refuses.MultiInference(soon(t), &pb.MultiInferenceRequest{})
	wantError(t, err, codes.Unimplemented, "call Classify and Regress")

	columns := []tensor.Info{{Name: "x", DType: tensor.Float32, Shape: []int64{-1}}}
	takes := pb.NewPredictionServiceClient(open(t, Config{}, identity{of: &tensor.Signature{Inputs: columns, Outputs: columns}}).dial(t))
	c, err := takes.Classify(soon(t), &pb.ClassificationRequest{ModelSpec: tfSpec(7), Input: input})
	if err != nil || c.Result.Classifications[0].Classes[0].Score != 2.5 {
		t.Errorf("answered %v, %v", c, err)
	}
	r, err := takes.Regress(soon(t), &pb.RegressionRequest{ModelSpec: tfSpec("7"), Input: input})
	if err != nil || r.Result.Regressions[0].Value != 2.5 {
		t.Errorf("answered %v, %v", r, err)
	}
}

func TestTFMetadata(t *testing.T) {
	h := open(t, Config{}, identity{})
	call := pb.NewPredictionServiceClient(h.dial(t))
	r, err := call.GetModelMetadata(soon(t), &pb.GetModelMetadataRequest{ModelSpec: tfSpec(7), MetadataField: []string{"signature_def"}})
	if err != nil {
		t.Fatal(err)
	}
	var m pb.SignatureDefMap
	if err := r.Metadata["signature_def"].UnmarshalTo(&m); err != nil {
		t.Fatal(err)
	}
	in := m.SignatureDef["serving_default"].GetInputs()["in"]
	if r.ModelSpec.GetVersion().GetValue() != 7 || in.GetDtype() != pb.DataType_DT_UINT8 || len(in.GetTensorShape().GetDim()) != 2 || in.TensorShape.Dim[0].Size != -1 {
		t.Errorf("answered %v with %v", r, &m)
	}
	f := func(c codes.Code, text string, q *pb.GetModelMetadataRequest) {
		t.Helper()
		_, err := call.GetModelMetadata(soon(t), q)
		wantError(t, err, c, text)
	}
	f(codes.InvalidArgument, "at least one metadata_field", &pb.GetModelMetadataRequest{ModelSpec: tfSpec(nil)})
	f(codes.InvalidArgument, "Metadata field x is not supported", &pb.GetModelMetadataRequest{ModelSpec: tfSpec(nil), MetadataField: []string{"x"}})
	f(codes.NotFound, "Specific(e, 9)", &pb.GetModelMetadataRequest{ModelSpec: tfSpec(9), MetadataField: []string{"signature_def"}})
	f(codes.Unauthenticated, "", &pb.GetModelMetadataRequest{ModelSpec: &pb.ModelSpec{Name: "locked"}, MetadataField: []string{"signature_def"}})
}

func TestTFStatus(t *testing.T) {
	h := open(t, Config{}, identity{})
	call := pb.NewModelServiceClient(h.dial(t))
	f := func(want string, m *pb.ModelSpec, md ...string) {
		t.Helper()
		r, err := call.GetModelStatus(metadata.AppendToOutgoingContext(soon(t), md...), &pb.GetModelStatusRequest{ModelSpec: m})
		got := ""
		for _, s := range r.GetModelVersionStatus() {
			got += fmt.Sprintf("%d %v %d;", s.Version, s.State, s.Status.ErrorCode)
		}
		if err != nil || got != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	f("1 AVAILABLE 0;7 AVAILABLE 0;", tfSpec(nil))
	f("7 AVAILABLE 0;", tfSpec(7))
	f("1 AVAILABLE 0;", tfSpec("v"))
	f("1 AVAILABLE 0;7 AVAILABLE 0;", &pb.ModelSpec{Name: "locked"}, "authorization", key)
	_, err := call.GetModelStatus(soon(t), &pb.GetModelStatusRequest{ModelSpec: &pb.ModelSpec{Name: "nope"}})
	wantError(t, err, codes.NotFound, "Servable not found for request: Latest(nope)")
}
