package httpapi

import (
	"time"

	"github.com/valyala/fasthttp"

	"sluice.dev/gateway/header"
	"sluice.dev/scorer"
)

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
	state      []byte // tracestate, all of its lines
	encoded    bool   // the body is compressed
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
			h.credential = header.Bearer(v)
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
			h.trace = header.Trace(v)
		case "Tracestate":
			if len(h.state) > 0 {
				v = append(append(h.state[:len(h.state):len(h.state)], ','), v...)
			}
			h.state = v
		case "Content-Encoding":
			h.encoded = len(v) > 0 && !header.Is(v, "identity")
		}
	}
	if len(h.credential) == 0 {
		h.credential = key
	}
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
