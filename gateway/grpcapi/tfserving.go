package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"sluice.dev/accel/tensor"
	"sluice.dev/gateway"
	"sluice.dev/gateway/grpcapi/tfservingpb"
	"sluice.dev/scorer"
	"sluice.dev/scorer/codec"
	"sluice.dev/scorer/codec/wire"
)

// The version of a model is a number for TF Serving's clients. Here it is the
// version's name where that is a number, and else its place among the endpoint's,
// counted from 1. A version_label is a version's name.

// predictionService is TF Serving's.
func (s *Server) predictionService() *grpc.ServiceDesc {
	return unread(tfservingpb.PredictionService_ServiceDesc, handlers{
		"Predict": s.predict(scorer.TFServing), "Classify": s.predict(scorer.TFClassify), "Regress": s.predict(scorer.TFRegress),
	})
}

// predict answers the calls of PredictionService that score.
func (s *Server) predict(kind scorer.Kind) func(context.Context, *request) (*answer, error) {
	return func(ctx context.Context, r *request) (*answer, error) {
		spec, err := scanSpec(r.body)
		if err != nil {
			return nil, err
		}
		a, err := s.call(ctx, r, target{name: spec.name, version: s.versionOf(&spec)}, kind)
		var known *scorer.Error
		if errors.As(err, &known) && known.Status == scorer.NotFound {
			return nil, spec.unknown()
		}
		return a, err
	}
}

// spec is a ModelSpec.
type spec struct {
	name    []byte
	version int64  // 0 leaves it to the split
	label   []byte // a version's name
}

// scanSpec finds the ModelSpec in a request, in its field 1.
func scanSpec(body []byte) (p spec, err error) {
	m := wire.Read(body)
	for m.Next() {
		if !m.Is(1) {
			continue
		}
		f := wire.Read(m.Bytes)
		for f.Next() {
			if err := p.read(&f); err != nil {
				return p, err
			}
		}
		if f.Bad() {
			return p, codec.ErrCut
		}
	}
	if m.Bad() {
		return p, codec.ErrCut
	}
	return p, nil
}

// read takes a field. Of version and label the later is meant.
func (p *spec) read(f *wire.Message) error {
	switch {
	case f.Is(1):
		p.name = f.Bytes
	case f.Is(2):
		p.version, p.label = 0, nil
		v := wire.Read(f.Bytes)
		for v.Next() {
			if v.IsVarint(1) {
				p.version = int64(v.Varint)
			}
		}
		if v.Bad() {
			return codec.ErrCut
		}
	case f.Is(4):
		p.version, p.label = 0, f.Bytes
	}
	return nil
}

// unknown is the error of a ModelSpec that names nothing.
func (p *spec) unknown() error {
	switch {
	case len(p.label) > 0:
		return scorer.Errorf(scorer.NotFound, "Servable not found for request: %.64q has no version with label %.64q", p.name, p.label)
	case p.version != 0:
		return scorer.Errorf(scorer.NotFound, "Servable not found for request: Specific(%.64s, %d)", p.name, p.version)
	}
	return scorer.Errorf(scorer.NotFound, "Servable not found for request: Latest(%.64s)", p.name)
}

// versionOf is the name of the version that p means; empty leaves it to the split.
func (s *Server) versionOf(p *spec) []byte {
	if p.version == 0 {
		return p.label
	}
	if e := s.path.Snapshot().Endpoint(p.name); e != nil {
		for i, v := range e.Versions {
			if number(i, v) == p.version {
				return []byte(v.Name)
			}
		}
	}
	return strconv.AppendInt(nil, p.version, 10)
}

// number is the number of an endpoint's version i.
func number(i int, v *gateway.Version) int64 {
	if n, ok := codec.TFVersion(v.Name); ok {
		return n
	}
	return int64(i + 1)
}

// specOf is the ModelSpec of a request.
func specOf(m *tfservingpb.ModelSpec) spec {
	return spec{name: []byte(m.GetName()), version: m.GetVersion().GetValue(), label: []byte(m.GetVersionLabel())}
}

// findSpec is find for a ModelSpec.
func (s *Server) findSpec(ctx context.Context, m *tfservingpb.ModelSpec) (*gateway.Endpoint, []*gateway.Version, error) {
	p := specOf(m)
	e, versions, err := s.find(ctx, m.GetName(), string(s.versionOf(&p)))
	var known *scorer.Error
	if errors.As(err, &known) && known.Status == scorer.NotFound {
		err = p.unknown()
	}
	return e, versions, err
}

// predictionServer answers what does not score.
type predictionServer struct {
	tfservingpb.UnimplementedPredictionServiceServer // of what does, which Server answers
	s                                                *Server
}

var errOneModel = failure(scorer.Errorf(scorer.Unsupported, "MultiInference is not offered; call Classify and Regress, model by model"))

// MultiInference implements TF Serving's call.
func (predictionServer) MultiInference(context.Context, *tfservingpb.MultiInferenceRequest) (*tfservingpb.MultiInferenceResponse, error) {
	return nil, errOneModel
}

// GetModelMetadata implements TF Serving's call.
func (p predictionServer) GetModelMetadata(ctx context.Context, q *tfservingpb.GetModelMetadataRequest) (*tfservingpb.GetModelMetadataResponse, error) {
	r, err := p.s.metadata(ctx, q)
	if err != nil {
		return nil, failure(err)
	}
	return r, nil
}

const signatureField = "signature_def"

func (s *Server) metadata(ctx context.Context, q *tfservingpb.GetModelMetadataRequest) (*tfservingpb.GetModelMetadataResponse, error) {
	if len(q.MetadataField) == 0 {
		return nil, scorer.Errorf(scorer.InvalidArgument, "GetModelMetadataRequest must specify at least one metadata_field")
	}
	for _, f := range q.MetadataField {
		if f != signatureField {
			return nil, scorer.Errorf(scorer.InvalidArgument, "Metadata field %.64s is not supported", f)
		}
	}
	e, versions, err := s.findSpec(ctx, q.ModelSpec)
	if err != nil {
		return nil, err
	}
	v, offer, err := e.Describe(versions)
	if err != nil {
		return nil, err
	}
	signature := &tfservingpb.SignatureDef{
		Inputs: infos(offer.Signature.Inputs), Outputs: infos(offer.Signature.Outputs), MethodName: "tensorflow/serving/predict",
	}
	packed, err := anypb.New(&tfservingpb.SignatureDefMap{SignatureDef: map[string]*tfservingpb.SignatureDef{codec.TFSignature: signature}})
	if err != nil {
		return nil, fmt.Errorf("pack a signature: %w", err)
	}
	model := &tfservingpb.ModelSpec{Name: e.Name}
	if err := proto.Unmarshal(codec.AppendModelSpec(nil, e.Name, v.Name), model); err != nil {
		return nil, err
	}
	return &tfservingpb.GetModelMetadataResponse{ModelSpec: model, Metadata: map[string]*anypb.Any{signatureField: packed}}, nil
}

func infos(list []tensor.Info) map[string]*tfservingpb.TensorInfo {
	m := make(map[string]*tfservingpb.TensorInfo, len(list))
	for i := range list {
		t := &list[i]
		shape := &tfservingpb.TensorShapeProto{}
		for _, d := range t.Shape {
			shape.Dim = append(shape.Dim, &tfservingpb.TensorShapeProto_Dim{Size: d})
		}
		m[t.Name] = &tfservingpb.TensorInfo{
			Encoding: &tfservingpb.TensorInfo_Name{Name: t.Name + ":0"}, Dtype: tfservingpb.DataType(codec.TFType(t.DType)), TensorShape: shape,
		}
	}
	return m
}

// modelServer is TF Serving's ModelService.
type modelServer struct{ s *Server }

// GetModelStatus implements TF Serving's call.
func (m modelServer) GetModelStatus(ctx context.Context, q *tfservingpb.GetModelStatusRequest) (*tfservingpb.GetModelStatusResponse, error) {
	e, versions, err := m.s.findSpec(ctx, q.ModelSpec)
	if err != nil {
		return nil, failure(err)
	}
	r := &tfservingpb.GetModelStatusResponse{}
	for i, v := range e.Versions {
		if len(versions) == 1 && v != versions[0] {
			continue
		}
		state := tfservingpb.ModelVersionStatus_LOADING
		if v.Pool.Ready() {
			state = tfservingpb.ModelVersionStatus_AVAILABLE
		}
		r.ModelVersionStatus = append(r.ModelVersionStatus, &tfservingpb.ModelVersionStatus{Version: number(i, v), State: state, Status: &tfservingpb.StatusProto{}})
	}
	return r, nil
}
