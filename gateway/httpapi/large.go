package httpapi

import (
	"sync"

	"github.com/valyala/fasthttp"

	"sluice.dev/scorer"
)

// Large bodies of a declared length are let in before memory is allocated for them: their request must
// have a valid credential, and the sum of what is declared at a time is bounded.
// Small ones are read first, since to look at them twice costs more than they do;
// chunked ones take memory only as they come.
const largeBody = 64 << 10 // bytes

// large is the sum of the large bodies that are being read or served.
type large struct {
	most int64 // bytes

	mu   sync.Mutex
	sum  int64
	each map[*fasthttp.RequestHeader]int64 // what a request has reserved
}

// enter reserves n bytes for a request. False: there is no room.
func (l *large) enter(h *fasthttp.RequestHeader, n int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sum+n > l.most {
		return false
	}
	l.sum += n
	l.each[h] = n
	return true
}

// leave gives back what a request has reserved, if it has.
func (l *large) leave(h *fasthttp.RequestHeader) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum -= l.each[h]
	delete(l.each, h)
}

// received is called between a request's head and its body. A large body that is
// not let in gets a limit that it exceeds; refused tells why.
func (s *Server) received(h *fasthttp.RequestHeader) (c fasthttp.RequestConfig) {
	n := h.ContentLength()
	if n <= largeBody || n > s.config.MaxBody || !h.IsPost() {
		return c
	}
	if s.mayCall(h) != scorer.OK || !s.large.enter(h, int64(n)) {
		c.MaxRequestBodySize = 1
	}
	return c
}

// mayCall is whether the caller may call the endpoint that a request names.
func (s *Server) mayCall(r *fasthttp.RequestHeader) scorer.Status {
	t := parse(r.RequestURI())
	name, ok := unescape(t.name)
	if !t.op.post() || !ok {
		return scorer.NotFound
	}
	var h headers
	h.read(r)
	return s.path.MayCall(name, h.credential)
}

// refused is why a body was not let in, given that it was not.
func (s *Server) refused(h *fasthttp.RequestHeader) (scorer.Status, string) {
	if n := h.ContentLength(); n > s.config.MaxBody || n <= largeBody {
		return scorer.TooLarge, ""
	}
	switch status := s.mayCall(h); status {
	case scorer.OK:
		return scorer.Overloaded, "too many large requests at a time; try again later"
	case scorer.NotFound:
		return status, "the endpoint of this request is not found; its body was not read"
	case scorer.PermissionDenied:
		return status, "the token is valid, and not for this endpoint; the request's body was not read"
	case scorer.Unauthenticated:
		return status, "no valid credential; send the endpoint's key, or a token, as 'Authorization: Bearer KEY'; the request's body was not read"
	default:
		return status, "the credential cannot be verified now; try again later"
	}
}
