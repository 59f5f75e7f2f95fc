package httpapi

import (
	"bytes"
	"context"
	"log/slog"

	"github.com/valyala/fasthttp"

	"sluice.dev/gateway"
	"sluice.dev/scorer"
)

// access writes one scoring request down. Credentials, queries and bodies are not
// written.
func (s *Server) access(ctx *fasthttp.RequestCtx, c *gateway.Call, h *headers, began scorer.Instant) {
	r := &c.Response
	path, _, _ := bytes.Cut(ctx.Request.Header.RequestURI(), []byte("?"))
	list := make([]slog.Attr, 0, 24)
	list = append(list,
		slog.String("request_id", string(ctx.Response.Header.PeekBytes(keyRequest))), slog.String("remote", ctx.RemoteAddr().String()),
		slog.String("method", string(ctx.Request.Header.Method())), slog.String("path", string(path)),
		slog.Int("status", ctx.Response.StatusCode()), slog.String("reason", r.Status.String()),
		slog.Int("bytes_in", len(ctx.Request.Body())), slog.Int("bytes_out", len(ctx.Response.Body())),
		gateway.Millis("ms", scorer.Now().Sub(began)),
	)
	if len(h.clientID) > 0 {
		list = append(list, slog.String("client_request_id", string(h.clientID)))
	}
	for _, said := range [...]struct{ key, header string }{{"user_agent", "User-Agent"}, {"forwarded_for", "X-Forwarded-For"}} {
		if v := ctx.Request.Header.Peek(said.header); len(v) > 0 {
			list = append(list, gateway.Said(said.key, string(v)))
		}
	}
	list = c.AppendAttrs(list, h.trace)
	s.config.Access.Log.LogAttrs(context.Background(), slog.LevelInfo, "request", list...)
}
