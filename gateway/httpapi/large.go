package httpapi

import (
	"fmt"
	"sync"

	"github.com/valyala/fasthttp"

	"sluice.dev/scorer"
)

// Large bodies are let in before memory is allocated for them: their request must
// have a valid credential, and the sum of what is declared at a time is bounded. One
// in chunks declares nothing, but the library allocates what a chunk does: until it
// has been read it counts with as much as it may have.
// Small ones are read first, since to look at them twice costs more than they do.
const largeBody = 64 << 10 // bytes

// large is the sum of the large bodies that are being read or served.
type large struct {
	most int64 // bytes

	mu   sync.Mutex
	sum  int64
	each map[*fasthttp.RequestHeader]reserved
}

// reserved is what a request has of the sum.
type reserved struct {
	bytes int64
	none  bool // there was no room for it
}

// enter reserves n more bytes for a request. False: there is no room.
func (l *large) enter(h *fasthttp.RequestHeader, n int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.each[h]
	if r.none = l.sum+n > l.most; !r.none {
		l.sum += n
		r.bytes += n
	}
	l.each[h] = r
	return !r.none
}

// leave gives back what a request has reserved, if it has, and returns that.
func (l *large) leave(h *fasthttp.RequestHeader) reserved {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.each[h]
	l.sum -= r.bytes
	delete(l.each, h)
	return r
}

// keep gives back all but n bytes of what a request has reserved, if it has.
func (l *large) keep(h *fasthttp.RequestHeader, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r, ok := l.each[h]; ok && r.bytes > n {
		l.sum -= r.bytes - n
		l.each[h] = reserved{bytes: n}
	}
}

// bytes is the sum.
func (l *large) bytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sum
}

// inChunks is the length of a body in chunks, as the library says it.
const inChunks = -1

// received is called between a request's head and its body. A large body that is
// not let in gets a limit that it exceeds; tooLarge answers.
func (s *Server) received(h *fasthttp.RequestHeader) (c fasthttp.RequestConfig) {
	n := h.ContentLength()
	if n == inChunks {
		n = int(min(int64(s.config.MaxBody), s.large.most))
		c.MaxRequestBodySize = n
	}
	if n <= largeBody || n > s.config.MaxBody {
		return c
	}
	if !h.IsPost() || !s.mayCall(h) || !s.large.enter(h, int64(n)) {
		c.MaxRequestBodySize = largeBody
	}
	return c
}

// mayCall reports whether the caller may call the endpoint that a request names. A bug
// that it meets, whoever answers meets again, and tells.
func (s *Server) mayCall(r *fasthttp.RequestHeader) (may bool) {
	defer func() { _ = recover() }()
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
// that received set. Whom the path refuses, it refuses without the body, too; but of a
// request with a body in chunks the library has forgotten the head.
func (s *Server) tooLarge(ctx *fasthttp.RequestCtx, r reserved) {
	say := func(why why, status int, format string, args ...any) {
		s.watch.refused[why].Add(1)
		s.refuse(ctx, status, fmt.Sprintf(format, args...))
	}
	switch n := ctx.Request.Header.ContentLength(); {
	case r.bytes > 0, n > s.config.MaxBody, s.config.MaxBody <= largeBody:
		say(whyBody, fasthttp.StatusRequestEntityTooLarge, "the request's body exceeds %d bytes", s.config.MaxBody)
	case r.none:
		hint(&ctx.Response, scorer.Overloaded)
		say(whyLarge, code(scorer.Overloaded), "too many large requests at a time; try again later")
	case n > largeBody:
		s.handle(ctx)
	default:
		say(whyBody, fasthttp.StatusRequestEntityTooLarge,
			"the request's body exceeds %d bytes, which is the most without a valid credential for the endpoint that it calls", largeBody)
	}
	hangUp(ctx) // the body was not read
}
