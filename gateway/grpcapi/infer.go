package grpcapi

import (
	"context"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice.dev/gateway"
	"sluice.dev/gateway/header"
	"sluice.dev/scorer"
	"sluice.dev/scorer/codec"
	"sluice.dev/scorer/codec/wire"
)

// code is the one switch from statuses to gRPC.
func code(s scorer.Status) codes.Code {
	switch s {
	case scorer.OK:
		return codes.OK
	case scorer.Canceled:
		return codes.Canceled
	case scorer.InvalidArgument:
		return codes.InvalidArgument
	case scorer.DeadlineExceeded:
		return codes.DeadlineExceeded
	case scorer.NotFound:
		return codes.NotFound
	case scorer.Unauthenticated:
		return codes.Unauthenticated
	case scorer.PermissionDenied:
		return codes.PermissionDenied
	case scorer.Exhausted, scorer.TooLarge:
		return codes.ResourceExhausted
	case scorer.Overloaded, scorer.Unavailable:
		return codes.Unavailable
	case scorer.Unsupported, scorer.MethodNotAllowed:
		return codes.Unimplemented
	}
	return codes.Internal
}

// maxMessage bounds the message of an error, in bytes: clients take no more than 8 KiB
// of metadata, and names from a request may be of any length.
const maxMessage = 4 << 10

// failure is an error as a client gets it.
func failure(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	known := scorer.Known(err)
	return status.Error(code(known.Status), strings.ToValidUTF8(known.Message[:min(len(known.Message), maxMessage)], ""))
}

// target is what a request's body says about where it goes.
type target struct {
	name    []byte // of the endpoint
	version []byte // empty leaves it to the split
	id      []byte // comes back with the answer
}

// scan finds the names in a ModelInferRequest.
func scan(body []byte) (t target, err error) {
	m := wire.Read(body)
	for m.Next() {
		switch {
		case m.Is(1):
			t.name = m.Bytes
		case m.Is(2):
			t.version = m.Bytes
		case m.Is(3):
			t.id = m.Bytes
		}
	}
	if m.Bad() {
		return t, codec.ErrCut
	}
	return t, nil
}

// unary reads a request, has it answered, and gives its memory back.
func unary(ctx context.Context, read func(any) error, handle func(context.Context, *request) (*answer, error)) (any, error) {
	r := &request{}
	if err := read(r); err != nil {
		return nil, err
	}
	defer r.free()
	a, err := handle(ctx, r)
	if err != nil {
		return nil, failure(err)
	}
	return a, nil
}

// modelInfer answers ModelInfer.
func (s *Server) modelInfer(ctx context.Context, r *request) (*answer, error) {
	t, err := scan(r.body)
	if err != nil {
		return nil, err
	}
	return s.call(ctx, r, t, scorer.GRPC)
}

// call answers a unary call, and says in the metadata what served it.
func (s *Server) call(ctx context.Context, r *request, t target, kind scorer.Kind) (*answer, error) {
	h := headersOf(ctx)
	c, began := s.begin(h)
	defer s.path.Done(c)
	err := s.score(ctx, c, r, h, t, kind)
	md := about(c)
	if h.get("x-sluice-timing") == "1" {
		md["server-timing"] = []string{string(c.Times().Append(nil))}
	}
	s.access(ctx, c, r, t, err, began)
	if err != nil {
		return nil, err
	}
	if err := grpc.SetHeader(ctx, md); err != nil {
		return nil, err
	}
	if c.Response.Status != scorer.OK {
		if c.RetryIn > 0 {
			_ = grpc.SetTrailer(ctx, metadata.Pairs("retry-after", strconv.FormatInt(c.RetrySeconds(), 10))) // the stream is there
		}
		return nil, &scorer.Error{Status: c.Response.Status, Message: string(c.Response.Body)}
	}
	a := &answer{}
	a.add(body(&c.Response))
	return a, nil
}

// score sends a request down the path. The answer is in c.Response, unless there is
// an error.
func (s *Server) score(ctx context.Context, c *gateway.Call, r *request, h headers, t target, kind scorer.Kind) (err error) {
	defer s.recovered(&err)
	if len(h.get("x-request-id")) > header.MaxID {
		return scorer.Errorf(scorer.InvalidArgument, "a request id has at most %d characters", header.MaxID)
	}
	c.Name, c.Pin = t.name, t.version
	if len(c.Pin) == 0 {
		c.Pin = h.Peek("azureml-model-deployment")
	}
	if c.Credential, err = h.credential(); err != nil {
		return gateway.Refusal(err)
	}
	c.Timeout, c.Headers = timeout(ctx), h
	c.SetTrace(header.Trace(h.Peek("traceparent")), header.State([]byte(strings.Join(h["tracestate"], ","))))
	c.SetPriority(h.Peek("x-sluice-priority"))
	c.SetCopy(h.Peek("x-sluice-mirror"))
	c.SetBody(kind, 0, r.body)
	r.serving(c)
	stop := context.AfterFunc(ctx, func() {
		if cancelled(ctx) {
			r.leave()
		}
	})
	defer func() {
		if !stop() {
			r.serving(nil)
		}
	}()
	s.path.Serve(c)
	return nil
}

// recovered turns a bug into an error, and keeps the process serving.
func (s *Server) recovered(err *error) {
	if r := recover(); r != nil {
		s.config.Log.Error("request failed by a bug", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "the request could not be answered")
	}
}

// recovering is the same for calls that do not score.
func (s *Server) recovering(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (answer any, err error) {
	defer s.recovered(&err)
	return handle(ctx, req)
}

// about is the metadata of an answer: the request's id, and what served it.
func about(c *gateway.Call) metadata.MD {
	md := make(metadata.MD, 6)
	md["x-request-id"] = []string{string(c.ID)}
	if v := c.Version; v != nil {
		tags := v.Tags()
		name := []string{string(tags.Name)}
		md["azureml-model-deployment"], md["x-sluice-version"] = name, name
		md["x-sluice-variant"] = []string{string(tags.Variant)}
		md["x-sluice-assign"] = []string{string(tags.Reasons[c.Reason])}
		md["x-sluice-generation"] = []string{string(c.Generation)}
	}
	return md
}
