package httpapi

import (
	"fmt"
	"math"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"sluice.dev/scorer"
)

// Large bodies are let in before memory is allocated for them: they must be sent to
// score, by somebody who may, and their sum is bounded. One of a declared length is
// reserved whole between its head and its body, one in chunks as they are declared.
// Small ones are read first, since to look at them twice costs more than they do.
const largeBody = 64 << 10 // bytes

// maxKept bounds what a connection keeps of a body that was served, in bytes: what it
// keeps is in no sum.
const maxKept = 1 << 20

// large is the sum of the large bodies that are being read or served.
type large struct {
	most int64 // bytes, of all
	each int64 // bytes, of one
	from int64 // bytes: more is large; no less than what a connection reads at a time
	sum  atomic.Int64
}

// enter reserves n more bytes. False: there is no room.
func (l *large) enter(n int64) bool {
	if l.sum.Add(n) > l.most {
		l.sum.Add(-n)
		return false
	}
	return true
}

// unread is the length of a body that is not let in, however it was declared: no client
// can declare it, and the library refuses it before it reads anything.
const unread = math.MaxInt

// Times to read that received gives bodies which are let in, so that the library tells
// the connection, by SetReadDeadline. They are no limits.
const (
	growing = time.Hour     // what comes in chunks, and may be large
	entered = 2 * time.Hour // what is large, and was entered with its length
)

// received is called between a request's head and its body.
func (s *Server) received(h *fasthttp.RequestHeader) (c fasthttp.RequestConfig) {
	n := int64(h.ContentLength())
	chunked := n == -1
	switch {
	case n <= s.large.from && !chunked, n > s.large.each:
	case !h.IsPost() || !parse(h.RequestURI()).op.post(): // nobody reads much of it
		c.MaxRequestBodySize = int(min(s.large.from, s.large.each))
		if !chunked {
			h.SetContentLength(unread)
		}
	case !s.mayCall(h):
		h.SetContentLength(unread)
	case !chunked && !s.large.enter(n):
		c.MaxRequestBodySize = 1 // tooLarge knows it by its length
	case chunked:
		c.ReadTimeout = growing
	default:
		c.ReadTimeout = entered
	}
	return c
}

// mayCall reports whether the caller may call the endpoint that a request names. A bug
// that it meets, whoever answers meets again, and tells.
func (s *Server) mayCall(r *fasthttp.RequestHeader) (may bool) {
	defer func() { _ = recover() }()
	t := parse(r.RequestURI())
	name, ok := unescape(t.name)
	if !ok {
		return false
	}
	var h headers
	h.read(r)
	return !h.several && s.path.MayCall(name, h.credential)
}

// expects answers who waits to be told before sending a body that is not let in.
func (s *Server) expects(ctx *fasthttp.RequestCtx) int {
	if n := int64(ctx.Request.Header.ContentLength()); n <= min(s.large.from, s.large.each) || ctx.Conn().(*conn).letIn {
		return fasthttp.StatusContinue
	}
	s.tooLarge(ctx)
	return ctx.Response.StatusCode()
}

// noRoom says that there are too many large bodies.
var noRoom = &unclean{http.StatusServiceUnavailable, "too many large requests at a time; try again later"}

// tooLarge answers a request whose body exceeds its limit: the server's, or the one
// that received set. Whom the path refuses, it refuses without the body, too.
func (s *Server) tooLarge(ctx *fasthttp.RequestCtx) {
	switch n := int64(ctx.Request.Header.ContentLength()); {
	case n == unread:
		s.handle(ctx)
	case n > s.large.from && n <= s.large.each:
		s.full(ctx)
	default: // of one in chunks, the library has forgotten the head
		most := s.large.each
		if n <= 0 && ctx.Conn().(*conn).frame.sum <= most {
			most = s.large.from
		}
		s.watch.refused[whyBody].Add(1)
		s.refuse(ctx, fasthttp.StatusRequestEntityTooLarge, fmt.Sprintf("the request's body exceeds %d bytes", most))
	}
	hangUp(ctx) // the body was not read
}

// full answers a request with a large body that there is no room for.
func (s *Server) full(ctx *fasthttp.RequestCtx) {
	s.watch.refused[whyLarge].Add(1)
	hint(&ctx.Response, scorer.Overloaded)
	s.refuse(ctx, noRoom.status, noRoom.message)
}

// reserve takes n bytes for the request that is being read or served, until release.
// False: there is no room.
func (c *conn) reserve(n int64) bool {
	if !c.large.enter(n) {
		return false
	}
	c.reserved += n
	return true
}

// release gives back what a request has reserved.
func (c *conn) release() {
	if c.reserved != 0 {
		c.large.sum.Add(-c.reserved)
		c.reserved = 0
	}
}

// SetReadDeadline implements net.Conn for the library, which calls it where received has
// let a body in, and nowhere else. The connection itself uses that of what it wraps.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.letIn = true
	if time.Until(t) > growing {
		c.reserved += c.frame.length // not a later one's: more is not read at a time
	}
	return nil
}

// grown is what the library is to see of b, the last that was read of a large body that
// comes in chunks. Until it asks for more it may not have seen the head, and received
// not decided; what makes the body large is held until then.
func (c *conn) grown(b []byte, err error) (int, error) {
	if n := c.frame.ahead; n > 0 {
		c.held = append(c.held, b[n:]...)
		return n, err
	}
	if !c.grow() {
		c.unclean = noRoom
		return 0, noRoom
	}
	return len(b), err
}

// resume reads what was held.
func (c *conn) resume(b []byte) (int, error) {
	if !c.grow() {
		c.held, c.unclean = nil, noRoom
		return 0, noRoom
	}
	n := copy(b, c.held)
	if c.held = c.held[n:]; len(c.held) == 0 {
		c.held = nil
	}
	return n, nil
}

// grow reserves what was declared of a body that comes in chunks, if it was let in and
// the library will not refuse it. False: there is no room.
func (c *conn) grow() bool {
	more := c.frame.sum - c.reserved
	return !c.letIn || c.frame.sum > c.large.each || more <= 0 || c.reserve(more)
}
