package grpcapi

import (
	"context"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	"sluice.dev/gateway"
	"sluice.dev/gateway/header"
	"sluice.dev/scorer"
)

// begin takes a call without an answer for a request with metadata h, and says when it
// began, if that may be written down.
func (s *Server) begin(h headers) (c *gateway.Call, began scorer.Instant) {
	c = s.path.Call()
	c.ID = header.AppendRequestID(c.ID, h.Peek("x-request-id"))
	c.Response.Reset()
	if s.config.Access.Log != nil {
		began = scorer.Now()
	}
	return c, began
}

// access writes one scoring request down, of a call or of a stream, that ended with err
// or else with c.Response.
func (s *Server) access(ctx context.Context, c *gateway.Call, r *request, t target, err error, began scorer.Instant) {
	reason := outcome(c, err)
	if !s.config.Access.Wants(ours(code(reason))) {
		return
	}
	h, list := headersOf(ctx), make([]slog.Attr, 0, 24)
	method, _ := grpc.Method(ctx)
	list = append(list, slog.String("request_id", string(c.ID)))
	if p, ok := peer.FromContext(ctx); ok {
		list = append(list, slog.String("remote", p.Addr.String()))
	}
	list = append(list, slog.String("path", method), slog.String("grpc_status", code(reason).String()), slog.String("reason", reason.String()),
		slog.Int("bytes_in", len(r.body)), slog.Int("bytes_out", len(c.Response.Body)), gateway.Millis("ms", scorer.Now().Sub(began)))
	for _, said := range [...]struct{ key, value string }{
		{"client_request_id", string(t.id)}, {"user_agent", h.get("user-agent")}, {"forwarded_for", h.get("x-forwarded-for")},
	} {
		if said.value != "" {
			list = append(list, gateway.Said(said.key, said.value))
		}
	}
	list = c.AppendAttrs(list, header.Trace(h.Peek("traceparent")))
	s.config.Access.Log.LogAttrs(context.Background(), slog.LevelInfo, "request", list...)
}

// outcome is how a request ended.
func outcome(c *gateway.Call, err error) scorer.Status {
	if err == nil {
		return c.Response.Status
	}
	return scorer.Known(err).Status
}

// ours reports whether a code says that our side failed, as HTTP's from 500 on do.
func ours(c codes.Code) bool {
	return c == codes.Internal || c == codes.Unavailable || c == codes.DeadlineExceeded || c == codes.Unimplemented
}
