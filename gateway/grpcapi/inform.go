package grpcapi

import (
	"context"

	"sluice.dev/accel/tensor"
	"sluice.dev/gateway"
	"sluice.dev/gateway/grpcapi/inferencepb"
	"sluice.dev/scorer"
)

// inferenceServer answers the calls that do not score.
type inferenceServer struct {
	inferencepb.UnimplementedGRPCInferenceServiceServer // of ModelInfer and ModelStreamInfer, which Server answers
	s                                                   *Server
}

// ServerLive implements the Open Inference Protocol.
func (i inferenceServer) ServerLive(context.Context, *inferencepb.ServerLiveRequest) (*inferencepb.ServerLiveResponse, error) {
	return &inferencepb.ServerLiveResponse{Live: true}, nil
}

// ServerReady implements the Open Inference Protocol.
func (i inferenceServer) ServerReady(context.Context, *inferencepb.ServerReadyRequest) (*inferencepb.ServerReadyResponse, error) {
	return &inferencepb.ServerReadyResponse{Ready: !i.s.draining() && i.s.path.Snapshot().AllReady()}, nil
}

// ModelReady implements the Open Inference Protocol. A model that there is not is not
// ready, rather than an error, since clients do not expect one.
func (i inferenceServer) ModelReady(_ context.Context, q *inferencepb.ModelReadyRequest) (*inferencepb.ModelReadyResponse, error) {
	e := i.s.path.Snapshot().Endpoint([]byte(q.Name))
	if e == nil {
		return &inferencepb.ModelReadyResponse{}, nil
	}
	ready := q.Version == "" && e.Ready()
	if v := e.Find([]byte(q.Version)); v != nil {
		ready = v.Pool.Ready()
	}
	return &inferencepb.ModelReadyResponse{Ready: ready}, nil
}

// ServerMetadata implements the Open Inference Protocol.
func (i inferenceServer) ServerMetadata(context.Context, *inferencepb.ServerMetadataRequest) (*inferencepb.ServerMetadataResponse, error) {
	return &inferencepb.ServerMetadataResponse{Name: "sluice", Version: i.s.config.Version, Extensions: i.s.config.Triton.Names()}, nil
}

// ModelMetadata implements the Open Inference Protocol.
func (i inferenceServer) ModelMetadata(ctx context.Context, q *inferencepb.ModelMetadataRequest) (*inferencepb.ModelMetadataResponse, error) {
	e, versions, err := i.s.find(ctx, q.Name, q.Version)
	if err != nil {
		return nil, failure(err)
	}
	_, offer, err := e.Describe(versions)
	if err != nil {
		return nil, failure(err)
	}
	r := &inferencepb.ModelMetadataResponse{
		Name: e.Name, Platform: offer.Platform, Inputs: describe(offer.Signature.Inputs), Outputs: describe(offer.Signature.Outputs),
	}
	for _, v := range versions {
		r.Versions = append(r.Versions, v.Name)
	}
	return r, nil
}

func describe(list []tensor.Info) (described []*inferencepb.ModelMetadataResponse_TensorMetadata) {
	for i := range list {
		described = append(described, &inferencepb.ModelMetadataResponse_TensorMetadata{
			Name: list[i].Name, Datatype: list[i].DType.String(), Shape: list[i].Shape,
		})
	}
	return described
}

// find is the endpoint that a call about it names, and the version, or all where it
// names none. Errors are *scorer.Error: there is no such, or the caller may not know.
func (s *Server) find(ctx context.Context, name, version string) (*gateway.Endpoint, []*gateway.Version, error) {
	e := s.path.Snapshot().Endpoint([]byte(name))
	if e == nil {
		return nil, nil, scorer.Errorf(scorer.NotFound, "Request for unknown model: '%.64s' is not found", name)
	}
	credential, err := headersOf(ctx).credential()
	if err == nil {
		_, err = e.Auth.Authenticate(credential)
	}
	if err != nil {
		return nil, nil, gateway.Refusal(err)
	}
	if version == "" {
		return e, e.Versions, nil
	}
	v := e.Find([]byte(version))
	if v == nil {
		return nil, nil, scorer.Errorf(scorer.NotFound, "Request for unknown model: '%.64s' version %.64s is not found", name, version)
	}
	return e, []*gateway.Version{v}, nil
}
