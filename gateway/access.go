package gateway

import (
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"time"

	"sluice.dev/scorer"
)

// AccessLog says which scoring requests are written down. The zero value: none.
type AccessLog struct {
	Log   *slog.Logger
	Share float64 // of the requests that were served; those that failed on our side are all written
}

// Wants reports whether a request is written down; failed says that it failed on our
// side.
func (a *AccessLog) Wants(failed bool) bool {
	if a.Log == nil {
		return false
	}
	return failed || a.Share >= 1 || rand.Float64() < a.Share
}

// AppendAttrs adds to list what an access log says of a call whatever the protocol: who
// called, what served it, and for how long. Credentials and bodies are not said.
func (c *Call) AppendAttrs(list []slog.Attr, t scorer.Trace) []slog.Attr {
	if t != (scorer.Trace{}) {
		list = append(list, slog.String("trace_id", hex.EncodeToString(t.TraceID[:])))
	}
	if c.Principal != nil && c.Principal.ID != "" {
		list = append(list, slog.String("caller", c.Principal.ID))
	}
	if c.Endpoint != nil {
		list = append(list, slog.String("endpoint", c.Endpoint.Name))
	}
	if v, r, t := c.Version, &c.Response, c.Times(); v != nil {
		list = append(list, slog.String("version", v.Name), slog.String("variant", v.Variant.String()), slog.String("assigned_by", c.Reason.String()),
			slog.Int("rows", r.Rows), slog.Int("batch", r.Batch), Millis("queue_ms", t.Queue), Millis("batch_ms", t.Batch), Millis("device_ms", t.Device))
	}
	return list
}

// Millis is a time of an access log, to the microsecond.
func Millis(key string, d time.Duration) slog.Attr {
	return slog.Float64(key, float64(d.Microseconds())/1000)
}

// Said is what a client says of itself, cut to a length that a log can bear.
func Said(key, v string) slog.Attr { return slog.String(key, v[:min(len(v), 256)]) }
