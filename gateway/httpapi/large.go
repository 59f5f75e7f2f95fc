package httpapi

import (
	"fmt"
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

// enter reserves n more bytes for a request. False: there is no room.
func (l *large) enter(h *fasthttp.RequestHeader, n int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sum+n > l.most {
		return false
	}
	l.sum += n
	l.each[h] += n
	return true
}

// leave gives back what a request has reserved, if it has.
func (l *large) leave(h *fasthttp.RequestHeader) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum -= l.each[h]
	delete(l.each, h)
}

// bytes is the sum.
func (l *large) bytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sum
}

// received is called between a request's head and its body. A large body that is
// not let in gets a limit that it exceeds; tooLarge answers.
func (s *Server) received(h *fasthttp.RequestHeader) (c fasthttp.RequestConfig) {
	n := h.ContentLength()
	if n <= largeBody || n > s.config.MaxBody || !h.IsPost() {
		return c
	}
	if !s.mayCall(h) || !s.large.enter(h, int64(n)) {
		c.MaxRequestBodySize = 1
	}
	return c
}

// mayCall reports whether the caller may call the endpoint that a request names.
func (s *Server) mayCall(r *fasthttp.RequestHeader) bool {
	t := parse(r.RequestURI())
	name, ok := unescape(t.name)
	if !t.op.post() || !ok {
		return false
	}
	var h headers
	h.read(r)
	return !h.several && s.path.MayCall(name, h.credential)
}

// tooLarge answers a request whose body exceeds its limit: the server's, or the one
// that received set. Whom the path refuses, it refuses without the body, too.
func (s *Server) tooLarge(ctx *fasthttp.RequestCtx) {
	h := &ctx.Request.Header
	switch n := h.ContentLength(); {
	case n <= largeBody || n > s.config.MaxBody: // a chunked one has no length
		s.watch.refused[whyBody].Add(1)
		s.refuse(ctx, fasthttp.StatusRequestEntityTooLarge, fmt.Sprintf("the request's body exceeds %d bytes", s.config.MaxBody))
	case s.mayCall(h):
		s.watch.refused[whyLarge].Add(1)
		hint(&ctx.Response, scorer.Overloaded)
		s.refuse(ctx, code(scorer.Overloaded), "too many large requests at a time; try again later")
	default:
		s.handle(ctx)
	}
	hangUp(ctx) // the body was not read
}
