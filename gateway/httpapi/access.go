package httpapi

import (
	"bytes"
	"context"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/valyala/fasthttp"

	"sluice.dev/gateway"
	"sluice.dev/scorer"
)

// AccessLog says which scoring requests are written down. The zero value: none.
type AccessLog struct {
	Log   *slog.Logger
	Share float64 // of the requests that were served; those that failed on our side are all written
}

// wants reports whether a request with this status is written down.
func (a *AccessLog) wants(s scorer.Status) bool {
	if a.Log == nil {
		return false
	}
	return code(s) >= fasthttp.StatusInternalServerError || a.Share >= 1 || rand.Float64() < a.Share
}

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
		slog.Float64("ms", millis(scorer.Now().Sub(began))),
	)
	if len(h.clientID) > 0 {
		list = append(list, slog.String("client_request_id", string(h.clientID)))
	}
	for _, said := range [...]struct{ key, header string }{{"user_agent", "User-Agent"}, {"forwarded_for", "X-Forwarded-For"}} {
		if v := ctx.Request.Header.Peek(said.header); len(v) > 0 {
			list = append(list, slog.String(said.key, string(v[:min(len(v), mostSaid)])))
		}
	}
	if h.trace != (scorer.Trace{}) {
		list = append(list, slog.String("trace_id", hex.EncodeToString(h.trace.TraceID[:])))
	}
	if c.Principal != nil && c.Principal.ID != "" {
		list = append(list, slog.String("caller", c.Principal.ID))
	}
	if c.Endpoint != nil {
		list = append(list, slog.String("endpoint", c.Endpoint.Name))
	}
	if v, t := c.Version, c.Times(); v != nil {
		list = append(list, slog.String("version", v.Name), slog.String("variant", v.Variant.String()), slog.String("assigned_by", c.Reason.String()),
			slog.Int("rows", r.Rows), slog.Int("batch", r.Batch), slog.Float64("queue_ms", millis(t.Queue)), slog.Float64("batch_ms", millis(t.Batch)), slog.Float64("device_ms", millis(t.Device)))
	}
	s.config.Access.Log.LogAttrs(context.Background(), slog.LevelInfo, "request", list...)
}

// mostSaid bounds in bytes what a client says of itself.
const mostSaid = 256

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
