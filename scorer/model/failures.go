package model

import (
	"context"
	"encoding/hex"
	"log/slog"
	"sync/atomic"
	"time"

	"sluice.dev/scorer"
)

// failures is when a version's requests that failed on our side are written down, by
// the names that gateways and clients know them by: at most one in a while, since a
// model that fails may fail all.
type failures struct {
	next   atomic.Int64 // scorer.Instant from which one is written again
	unsaid atomic.Int64 // those since the last that was
}

// pause is the least time between two lines of a version.
const pause = time.Second

// note writes req down, which v has answered with resp, if that is our failure.
func (v *Version) note(req *scorer.Request, resp *scorer.Response) {
	if resp.Status != scorer.ModelFailed && resp.Status != scorer.Internal {
		return
	}
	f := &v.failures
	now, next := scorer.Now(), f.next.Load()
	if int64(now) < next || !f.next.CompareAndSwap(next, int64(now.Add(pause))) {
		f.unsaid.Add(1)
		return
	}
	list := []slog.Attr{
		slog.String("endpoint", v.config.Endpoint), slog.String("version", v.config.Version), slog.String("error", string(resp.Body)),
		slog.Int64("others_unsaid", f.unsaid.Swap(0)),
	}
	if len(req.ID) > 0 {
		list = append(list, slog.String("request_id", string(req.ID)))
	}
	if req.Trace != (scorer.Trace{}) {
		list = append(list, slog.String("trace_id", hex.EncodeToString(req.Trace.TraceID[:])), slog.String("parent_id", hex.EncodeToString(req.Trace.SpanID[:])))
	}
	if len(req.State) > 0 {
		list = append(list, slog.String("trace_state", string(req.State)))
	}
	v.log.LogAttrs(context.Background(), slog.LevelWarn, "request failed", list...)
}
