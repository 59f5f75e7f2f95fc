package httpapi

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/gateway"
)

// watch ends connections on which nothing happens in time. A deadline set before
// each read costs more than the rest of a small request's work in this package;
// here a request costs three stores, and one goroutine looks at all connections.
type watch struct {
	read, idle, write time.Duration
	clock             atomic.Int64 // ticks since the start
	tick              time.Duration
	end               sync.Once
	stop              chan struct{}
	done              chan struct{}

	mu    sync.Mutex
	conns map[*conn]struct{}
}

// phase is what a connection waits for.
type phase int64

const (
	idling  phase = iota // the first byte of a request
	reading              // the rest of it
	serving              // the path, which has its own deadline
	writing              // the client, to read the answer
	phases
)

// ticksPer is how many ticks the shortest limit has: limits are exceeded by at
// most a part in so many.
const ticksPer = 8

func newWatch(read, idle, write time.Duration) *watch {
	w := &watch{
		read: read, idle: idle, write: write, tick: min(max(min(read, idle, write)/ticksPer, time.Millisecond), time.Second),
		stop: make(chan struct{}), done: make(chan struct{}), conns: map[*conn]struct{}{},
	}
	go w.run()
	return w
}

// close ends the watch.
func (w *watch) close() {
	w.end.Do(func() { close(w.stop) })
	<-w.done
}

func (w *watch) run() {
	defer close(w.done)
	t := time.NewTicker(w.tick)
	defer t.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-t.C:
			w.sweep(w.clock.Add(1))
		}
	}
}

// sweep makes the calls return that wait for too long at now.
func (w *watch) sweep(now int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		p, since := c.at()
		waited := time.Duration(now-since) * w.tick
		// Errors mean that the connection is closed already.
		switch p {
		case idling:
			if waited > w.idle {
				_ = c.Conn.SetReadDeadline(past)
			}
		case reading:
			if waited > w.read {
				_ = c.Conn.SetReadDeadline(past) // and it can still be answered
			}
		case writing:
			if waited > w.write {
				_ = c.Conn.SetWriteDeadline(past)
			}
		}
	}
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// conn is a connection that is watched.
type conn struct {
	net.Conn
	watch   *watch
	leavers *leavers
	id      uint64       // of leavers
	state   atomic.Int64 // tick of its beginning * phases + phase

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

// listener watches what it accepts.
type listener struct {
	net.Listener
	watch   *watch
	leavers *leavers
}

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	n, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: n, watch: l.watch, leavers: l.leavers}
	c.enter(idling)
	l.watch.mu.Lock()
	l.watch.conns[c] = struct{}{}
	l.watch.mu.Unlock()
	l.leavers.add(c, n)
	return c, nil
}

func (c *conn) enter(p phase) {
	c.state.Store(c.watch.clock.Load()*int64(phases) + int64(p))
}

// at is what c waits for, and since which tick.
func (c *conn) at() (phase, int64) {
	s := c.state.Load()
	return phase(s % int64(phases)), s / int64(phases)
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	p, _ := c.at()
	if err == io.EOF && p == reading {
		err = io.ErrUnexpectedEOF // so that the end of every request is told
	}
	if n > 0 && p == idling {
		c.enter(reading)
	}
	return n, err
}

// piece is how much a client must take within the write limit, in bytes.
const piece = 1 << 20

// Write implements net.Conn.
func (c *conn) Write(b []byte) (n int, err error) {
	for err == nil && n < len(b) {
		c.enter(writing) // anew for each piece: who reads slowly is not who does not read
		var m int
		m, err = c.Conn.Write(b[n:min(n+piece, len(b))])
		n += m
	}
	c.enter(idling)
	return n, err
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.watch.mu.Lock()
	delete(c.watch.conns, c)
	c.watch.mu.Unlock()
	c.leavers.remove(c)
	return c.Conn.Close()
}

// serve tells that the request is complete.
func (c *conn) serve() { c.enter(serving) }

// watched is the connection under n, which may be encrypted.
func watched(n net.Conn) *conn {
	c, plain := n.(*conn)
	if !plain {
		c = n.(interface{ NetConn() net.Conn }).NetConn().(*conn) // of crypto/tls
	}
	return c
}
