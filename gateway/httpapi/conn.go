package httpapi

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"sluice.dev/gateway"
)

// conn is a connection that is watched.
//
// An idle one is parked: after a second the watch makes its read return, the HTTP
// library takes that for the end and gives up its goroutine and its buffers, and
// Close, instead of closing, leaves the connection to the poller, which has it
// served anew when there is something to read. A request on a busy connection
// does nothing for it.
type conn struct {
	net.Conn          // what is read and written: raw, or what decrypts it
	raw      net.Conn // of the operating system
	hands    *hands   // to be shaken before the first read; nil if there are none, or it is done
	client   netip.Prefix
	watch    *watch
	large    *large
	poll     *poller
	id       uint64 // of the watch
	frame    framer
	unclean  *unclean     // why nothing more is read
	lingers  bool         // the client may still be sending when it is closed
	letIn    bool         // the body that is being read or served was, though it is large
	reserved int64        // bytes of large bodies, for the request that is being read or served
	held     []byte       // clean, and not to be read yet
	state    atomic.Int64 // tick of its beginning * phases + phase

	mu   sync.Mutex
	call *gateway.Call // that the client waits for; nil if it does not
	gone bool          // the client has closed the connection
}

// begin tells that the client waits for call until end.
func (c *conn) begin(call *gateway.Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.call = call
	if c.gone {
		call.Leave()
	}
}

func (c *conn) end() {
	c.mu.Lock()
	c.call = nil
	c.mu.Unlock()
}

// left gives up what a client waited for that has gone.
func (c *conn) left() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	if c.call != nil {
		c.call.Leave()
	}
}

// enter begins a phase.
func (c *conn) enter(p phase) {
	c.state.Store(join(p, c.watch.clock.Load()))
}

// split is a state's phase, and since which tick it lasts.
func split(state int64) (phase, int64) {
	return phase(state % int64(phases)), state / int64(phases)
}

// join makes a state.
func join(p phase, since int64) int64 { return since*int64(phases) + int64(p) }

func (c *conn) phase() phase {
	p, _ := split(c.state.Load())
	return p
}

// changed follows what the HTTP library says about a connection.
func changed(n net.Conn, s fasthttp.ConnState) {
	switch s {
	case fasthttp.StateActive: // has read the first byte of a request
		n.(*conn).letIn = false
		n.(*conn).enter(reading)
	case fasthttp.StateIdle:
		n.(*conn).enter(idling)
	}
}

// Read implements net.Conn: what is clean of what the client sends.
func (c *conn) Read(b []byte) (int, error) {
	if c.held != nil {
		return c.resume(b)
	}
	if c.unclean != nil {
		return 0, c.unclean
	}
	if c.hands != nil {
		if err := c.shake(); err != nil {
			return 0, err
		}
	}
	n, err := c.read(b)
	if n == 0 {
		return 0, err
	}
	clean, unclean := c.frame.take(b[:n])
	if unclean != nil {
		c.unclean = unclean
		b[clean] = '!' // the library must have something to answer, and this is neither a request nor an end of one
		n, err = clean+1, nil
	}
	if c.frame.sum <= c.large.from {
		return n, err
	}
	return c.grown(b[:n], err)
}

// read waits for the client.
func (c *conn) read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if n > 0 || err == nil {
			return n, err
		}
		p := c.phase()
		switch {
		case !errors.Is(err, os.ErrDeadlineExceeded):
			if p == reading && (err == io.EOF || errors.Is(err, net.ErrClosed)) {
				err = io.ErrUnexpectedEOF // so that the end of every request is told
			}
			return 0, err
		case p == parking || p == ending:
			return 0, io.EOF
		case p == late:
			return 0, err
		}
		// The deadline was for a phase that has passed.
		if err := c.Conn.SetReadDeadline(never); err != nil {
			return 0, err
		}
	}
}

// piece is how much a client must take within the write limit, in bytes.
const piece = 1 << 20

// Write implements net.Conn.
func (c *conn) Write(b []byte) (n int, err error) {
	before := c.state.Load()
	for err == nil && n < len(b) {
		c.enter(writing) // anew for each piece: who reads slowly is not who does not read
		var m int
		m, err = c.Conn.Write(b[n:min(n+piece, len(b))])
		n += m
	}
	c.state.Store(before)
	return n, err
}

// Close implements net.Conn. One that shall be parked is.
func (c *conn) Close() error {
	if c.phase() == parking && c.poll.park(c) {
		return nil
	}
	if c.lingers {
		c.linger()
	}
	c.release()
	c.watch.remove(c)
	return c.Conn.Close()
}

// lingerTime is how long a client that was refused is listened to.
const lingerTime = 2 * time.Second

// linger takes what the client goes on to send until it has seen the end, or for
// lingerTime: to close a connection with something unread makes the system discard
// the answer that is on its way.
func (c *conn) linger() {
	c.lingers = false
	// Errors mean that it is closed, which ends the copy.
	if t, ok := c.Conn.(*tls.Conn); ok {
		_ = t.CloseWrite()
	}
	if w, ok := c.raw.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
	}
	_ = c.Conn.SetReadDeadline(never)
	c.enter(lingering)
	_, _ = io.Copy(io.Discard, struct{ io.Reader }{c.raw}) // with the small buffer that Discard has
}

// Deadlines: one that has passed, and none.
var past, never = time.Unix(1, 0), time.Time{}
