package grpcapi

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/tap"

	"sluice.dev/auth"
	"sluice.dev/gateway"
	"sluice.dev/gateway/grpcapi/inferencepb"
	"sluice.dev/gateway/grpcapi/tfservingpb"
	"sluice.dev/gateway/header"
)

// headers are a call's metadata, which is not to be modified.
type headers metadata.MD

type headersKey struct{}

// scoring are the methods whose caller must be known to some endpoint.
var scoring = map[string]bool{
	inferencepb.GRPCInferenceService_ModelInfer_FullMethodName:       true,
	inferencepb.GRPCInferenceService_ModelStreamInfer_FullMethodName: true,
	tfservingpb.PredictionService_Predict_FullMethodName:             true,
	tfservingpb.PredictionService_Classify_FullMethodName:            true,
	tfservingpb.PredictionService_Regress_FullMethodName:             true,
}

// tap sees a call before its message is received. Which endpoint it is for is in the
// message; whom none would let in is refused now. It makes the metadata reachable
// without the copy that the library otherwise hands out.
func (s *Server) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	h := headers(info.Header)
	ctx = context.WithValue(ctx, headersKey{}, h)
	if !scoring[info.FullMethodName] {
		return ctx, nil
	}
	credential, err := h.credential()
	known := false
	if err == nil {
		known, err = s.path.Knows(credential)
	}
	if known {
		know(ctx)
	}
	if err != nil {
		err = gateway.Refusal(err)
		c, began := s.begin(h)
		defer s.path.Done(c)
		s.access(grpc.NewContextWithServerTransportStream(ctx, untaken(info.FullMethodName)), c, &request{}, target{}, err, began)
		return ctx, failure(err)
	}
	return ctx, nil
}

// untaken is a call that is refused before the library has one; its method.
type untaken string

func (u untaken) Method() string               { return string(u) }
func (u untaken) SetHeader(metadata.MD) error  { return nil }
func (u untaken) SendHeader(metadata.MD) error { return nil }
func (u untaken) SetTrailer(metadata.MD) error { return nil }

func headersOf(ctx context.Context) headers {
	h, _ := ctx.Value(headersKey{}).(headers)
	return h
}

// get is the value of a header, the last where there are several; empty if it is not
// there. name is in lower case.
func (h headers) get(name string) string {
	if v := h[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// Peek implements gateway.Headers.
func (h headers) Peek(name string) []byte {
	if v := h[strings.ToLower(name)]; len(v) > 0 {
		return []byte(v[len(v)-1])
	}
	return nil
}

// credential is the caller's key or token: authorization goes before x-api-key. The
// error is one of package auth.
func (h headers) credential() ([]byte, error) {
	if len(h["authorization"]) > 1 {
		return nil, auth.ErrSeveral
	}
	if c := header.Bearer(h.get("authorization")); c != "" {
		return []byte(c), nil
	}
	return h.Peek("x-api-key"), nil
}

// early is how long before a client's deadline it is answered at the latest, a tenth of
// the time where that is less: afterwards the library resets the stream, which some
// clients take for a cancellation.
const early = 10 * time.Millisecond

// timeout is what ctx leaves to answer in; 0 where it has no deadline.
func timeout(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	left := time.Until(deadline)
	return max(left-min(left/10, early), 1)
}

// cancelled reports whether the client has left, rather than its deadline passed, which
// the path watches itself.
func cancelled(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() == context.Canceled && (!ok || time.Until(deadline) > 0)
}
