package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"sluice.dev/gateway/header"
	"sluice.dev/scorer"
)

// conn is one connection to a server, for one request at a time.
//
// A goroutine of its own reads all the time, also while no request is under way:
// a server that closes an idle connection, or says something unasked, is noticed
// before the next request is sent there. Whoever sends a small request on a
// connection that is there writes it himself; whatever may block (to connect, to
// write a large body) is done elsewhere, so that an abandoned wait returns at once.
//
// Invariant: a connection is idle only when its last request was written whole and
// its answer was read whole, with nothing after it.
type conn struct {
	server *httpServer
	used   bool           // it is connected; the requester's
	since  scorer.Instant // when it became idle; guarded by the server's mu
	out    []byte         // the request's head, and a small body; the requester's
	large  []byte         // a body that is lent; nil where out has it; the requester's
	sent   chan struct{}  // closed when large is not read any more; the requester's
	cancel context.CancelFunc
	ctx    context.Context // ends what connects

	mu       sync.Mutex
	raw      net.Conn // nil until it is connected
	net      net.Conn // raw, or TLS over it
	x        exchange // the zero value while none is under way
	sending  bool     // the request is not written whole
	bulky    bool     // and may take its time, since it is large
	answered bool     // and its answer was read: who sends puts the connection back
	dead     bool

	count *counter // of raw
	began int64    // bytes that were written before the request

	// The reader's.
	head head
	kind []byte // the answer's content type; empty is JSON
	body []byte
}

// exchange is a request that waits for its answer.
type exchange struct {
	wait   *scorer.Waiter
	ticket scorer.Ticket
	resp   *scorer.Response
}

// refuse answers that the request was not sent, if that is still wanted.
func (x exchange) refuse(message string) {
	if x.wait.Claim(x.ticket) {
		x.resp.Fail(scorer.Unavailable, message)
		x.resp.NotStarted = true
		x.wait.Finish(x.ticket)
	}
}

const (
	inline  = 8 << 10 // bytes of a request that an empty send buffer takes at once
	maxKept = 1 << 20 // bytes of a buffer that is kept
)

// newConn makes a connection; begin connects it.
func newConn(h *httpServer) *conn {
	c := &conn{server: h}
	c.ctx, c.cancel = context.WithTimeout(context.Background(), dialWithin)
	return c
}

// begin sends req, or has it sent, and its answer goes to x. False: the connection
// has ended. The channel, if there is one, is closed when the body is not read any
// more.
func (c *conn) begin(x exchange, req *scorer.Request) (sent chan struct{}, ok bool) {
	c.out = c.server.appendHead(c.out[:0], req)
	c.large = nil
	if len(c.out)+len(req.Body) <= inline {
		c.out = append(c.out, req.Body...)
	} else {
		c.large, sent = req.Body, make(chan struct{})
	}
	c.sent = sent
	c.mu.Lock()
	if c.dead {
		c.mu.Unlock()
		return nil, false
	}
	c.x, c.sending, c.bulky = x, true, sent != nil
	if c.count != nil {
		c.began = c.count.written.Load()
	}
	c.mu.Unlock()
	switch {
	case !c.used:
		go c.run()
	case sent != nil:
		go c.write()
	default:
		c.write()
	}
	return sent, true
}

// write writes the request. Errors are the reader's to tell: a connection that
// cannot be written to cannot be read from either, or its request expires.
func (c *conn) write() {
	sent := c.sent
	_, err := c.net.Write(c.out)
	if err == nil && c.large != nil {
		_, err = c.net.Write(c.large)
	}
	c.mu.Lock()
	answered := c.answered
	c.sending, c.answered = false, false
	c.dead = c.dead || err != nil
	c.mu.Unlock()
	switch {
	case answered && err == nil:
		c.server.put(c)
	case answered:
		c.kill()
	}
	if sent != nil {
		close(sent)
	}
}

// run connects, sends, and reads until the connection ends.
func (c *conn) run() {
	defer c.server.tasks.Done()
	err := c.connect()
	c.cancel()
	if err != nil {
		if c.sent != nil {
			close(c.sent)
		}
		c.refused(err)
		return
	}
	if c.sent != nil {
		go c.write()
	} else {
		c.write()
	}
	r := bufio.NewReaderSize(c.net, maxHead)
	for c.settle(c.read(r), r) {
	}
	c.server.drop(c)
}

// connect makes the connection, with TLS where the server wants it.
func (c *conn) connect() error {
	n, err := c.server.dial(c.ctx)
	if err != nil {
		return err
	}
	count := &counter{Conn: n}
	var secure net.Conn = count
	if c.server.secure != nil {
		t := tls.Client(count, c.server.secure)
		if err := t.HandshakeContext(c.ctx); err != nil {
			_ = n.Close()
			return err
		}
		secure = t
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead { // abandoned meanwhile
		_ = n.Close()
		return context.Canceled
	}
	c.raw, c.net, c.count, c.began, c.used = n, secure, count, count.written.Load(), true
	return nil
}

// refused answers a request for which there is no connection.
func (c *conn) refused(err error) {
	x, abandoned := c.detach()
	if abandoned {
		return
	}
	c.server.log.Debug("no connection to a model's server", "server", c.server.base, "error", err)
	x.refuse("the model's server does not take connections; try again later")
}

// detach ends the connection, and returns the exchange that was under way, or that
// it was abandoned.
func (c *conn) detach() (x exchange, abandoned bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	abandoned = c.dead
	c.dead = true
	x, c.x = c.x, exchange{}
	return x, abandoned
}

// abandon ends the connection if x is still under way, so that the server notices.
func (c *conn) abandon(x exchange) {
	c.mu.Lock()
	if c.x != x {
		c.mu.Unlock()
		return
	}
	c.endLocked()
}

// kill ends the connection.
func (c *conn) kill() {
	c.mu.Lock()
	c.endLocked()
}

// endLocked ends the connection. Holding mu, which it gives up.
func (c *conn) endLocked() {
	c.dead = true
	c.x = exchange{}
	raw := c.raw
	c.mu.Unlock()
	c.cancel()
	if raw != nil {
		_ = raw.Close() // its reader and writer end
	}
}

var (
	errLost    = errors.New("the connection ended before an answer began")
	errUnasked = errors.New("the server spoke without being asked")
)

// read reads one answer.
func (c *conn) read(r *bufio.Reader) error {
	if _, err := r.Peek(1); err != nil {
		return errLost
	}
	c.mu.Lock()
	asked := c.x.wait != nil
	c.mu.Unlock()
	if !asked {
		return errUnasked
	}
	if err := readHead(r, &c.head); err != nil {
		return err
	}
	if c.kind = c.kind[:0]; !header.Is(c.head.contentType, "application/json") {
		c.kind = append(c.kind, c.head.contentType...)
	}
	var err error
	c.body, err = readBody(r, &c.head, c.body[:0], c.server.maxBody)
	if err == nil && c.head.headLength > len(c.body) {
		err = unclean("Inference-Header-Content-Length is more than it has")
	}
	return err
}

// settle hands what was read to who waits for it. True: the connection goes on.
func (c *conn) settle(err error, r *bufio.Reader) bool {
	c.mu.Lock()
	x := c.x
	c.x = exchange{}
	keep := err == nil && !c.head.last && r.Buffered() == 0 && !c.dead && !(c.sending && c.bulky)
	c.dead = !keep
	put := keep && !c.sending
	c.answered = keep && c.sending
	began := c.began
	c.mu.Unlock()
	untouched := !keep && x.wait != nil && c.untouched(err, began) // asked before it is closed
	switch {
	case put:
		c.server.put(c)
	case !keep:
		_ = c.raw.Close()
	}
	if x.wait != nil && x.wait.Claim(x.ticket) {
		c.answer(x.resp, err, untouched)
		x.wait.Finish(x.ticket)
	}
	return keep
}

// untouched reports whether the connection ended before the server's machine took
// any byte of the request: what it never got, it cannot have begun.
func (c *conn) untouched(err error, began int64) bool {
	if err != errLost && err != errUnasked {
		return false
	}
	n, known := acked(c.count.Conn)
	return known && n <= began
}

// counter counts what is written to a connection.
type counter struct {
	net.Conn
	written atomic.Int64
}

// Write implements net.Conn.
func (c *counter) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.written.Add(int64(n))
	return n, err
}
