package httpapi

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"sluice.dev/scorer"
)

// maxID is the longest request id in bytes that is taken; a longer one is
// answered with 431, as Azure ML's server does.
const maxID = 100

// headers are what the path wants to know of a request's headers. The bytes are
// the request's.
type headers struct {
	credential []byte
	several    bool // Authorization came more than once
	pin        []byte
	requestID  []byte
	origin     []byte // of the page that calls
	traceID    []byte // Azure ML's, which is not the W3C's; given back as it is
	timing     bool   // wants to know where the time went
	clientID   []byte // x-ms-client-request-id, or the deprecated x-ms-request-id
	headLength int    // Inference-Header-Content-Length; -1 if absent, -2 if it is no number
	timeout    time.Duration
	priority   []byte
	mirror     []byte
	trace      scorer.Trace
	encoded    bool // the body is compressed
}

// read takes them in one pass. Later ones of a name win, but for the credential:
// Authorization goes before x-api-key.
func (h *headers) read(r *fasthttp.RequestHeader) {
	*h = headers{headLength: -1}
	var key []byte
	for k, v := range r.All() {
		switch string(k) {
		case "Authorization":
			h.several = h.credential != nil
			h.credential = bearer(v)
		case "X-Api-Key":
			key = v
		case "Azureml-Model-Deployment":
			h.pin = v
		case "X-Request-Id":
			h.requestID = v
		case "X-Ms-Client-Request-Id":
			h.clientID = v
		case "X-Ms-Request-Id":
			if len(h.clientID) == 0 {
				h.clientID = v
			}
		case "Inference-Header-Content-Length":
			h.headLength = natural(v)
		case "X-Request-Timeout-Ms":
			if ms := natural(v); ms > 0 {
				h.timeout = time.Duration(ms) * time.Millisecond
			}
		case "X-Sluice-Priority":
			h.priority = v
		case "X-Sluice-Mirror":
			h.mirror = v
		case "Origin":
			h.origin = v
		case "X-Sluice-Timing":
			h.timing = string(v) == "1"
		case "Traceid":
			h.traceID = v
		case "Traceparent":
			h.trace = traceparent(v)
		case "Content-Encoding":
			h.encoded = len(v) > 0 && string(v) != "identity"
		}
	}
	if len(h.credential) == 0 {
		h.credential = key
	}
}

// bearer is the credential of an Authorization header: with the scheme Bearer,
// or bare, as Azure ML's gRPC clients send it.
func bearer(v []byte) []byte {
	const scheme = "bearer "
	if len(v) < len(scheme) {
		return v
	}
	for i := range len(scheme) {
		c := v[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != scheme[i] {
			return v
		}
	}
	return v[len(scheme):]
}

// natural parses a decimal number of up to 9 digits; -2 if v is none.
func natural(v []byte) int {
	if len(v) == 0 || len(v) > 9 {
		return -2
	}
	n := 0
	for _, c := range v {
		if c < '0' || c > '9' {
			return -2
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// traceparent parses the W3C header; the zero Trace if v is none. What versions to
// come add to version 00 is passed over, as they want it.
// Source: https://www.w3.org/TR/trace-context/#traceparent-header
func traceparent(v []byte) (t scorer.Trace) {
	if len(v) < 55 || v[2] != '-' || v[35] != '-' || v[52] != '-' || bytes.ContainsAny(v[:55], "ABCDEF") {
		return t
	}
	var version, flags [1]byte
	for _, part := range []struct{ dst, src []byte }{{version[:], v[:2]}, {t.TraceID[:], v[3:35]}, {t.SpanID[:], v[36:52]}, {flags[:], v[53:55]}} {
		if _, err := hex.Decode(part.dst, part.src); err != nil {
			return scorer.Trace{}
		}
	}
	future := version[0] > 0 && version[0] < 0xff && (len(v) == 55 || v[55] == '-')
	if t.TraceID == [16]byte{} || t.SpanID == [8]byte{} || !future && (version[0] != 0 || len(v) != 55) {
		return scorer.Trace{}
	}
	t.Flags = flags[0]
	return t
}

// appendTrace appends a trace context as the W3C's headers have it.
func appendTrace(dst []byte, t *scorer.Trace) []byte {
	dst = hex.AppendEncode(append(dst, "00-"...), t.TraceID[:])
	dst = hex.AppendEncode(append(dst, '-'), t.SpanID[:])
	return hex.AppendEncode(append(dst, '-'), []byte{t.Flags})
}

// appendID appends a new request id, a random UUID.
func appendID(dst []byte) []byte {
	var b [16]byte
	hi, lo := rand.Uint64(), rand.Uint64()
	for i := range 8 {
		b[i], b[8+i] = byte(hi>>(8*i)), byte(lo>>(8*i))
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	for i, at := range [...][2]int{{0, 4}, {4, 6}, {6, 8}, {8, 10}, {10, 16}} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, b[at[0]:at[1]])
	}
	return dst
}

// appendMillis appends d in milliseconds with three decimals.
func appendMillis(dst []byte, d time.Duration) []byte {
	return strconv.AppendFloat(dst, float64(d)/float64(time.Millisecond), 'f', 3, 64)
}
