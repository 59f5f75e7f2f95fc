package httpapi

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// listener watches what it accepts, and accepts no more than there may be.
type listener struct {
	net.Listener
	server *Server
	poll   *poller
}

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	for {
		n, err := l.accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: n, raw: n, watch: l.server.watch, large: &l.server.large, poll: l.poll, frame: l.server.framer()}
		c.enter(idling)
		if t := l.server.config.TLS; t != nil {
			c.enter(shaking)
			c.hands = &hands{Conn: n, turns: l.server.turns}
			c.hands.tls = tls.Server(c.hands, t)
			c.Conn = c.hands.tls
		}
		if l.server.config.MaxConnectionsPerClient > 0 {
			c.client = clientOf(n.RemoteAddr())
		}
		if reason, ok := c.watch.add(c); !ok {
			c.watch.refused[reason].Add(1)
			turnAway(n, l.server.config.TLS == nil)
			continue
		}
		l.poll.add(c)
		return c, nil
	}
}

// Close implements net.Listener. It may be called twice.
func (l listener) Close() error {
	if err := l.Listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// accept waits where the system has no descriptor or memory to give just then: it
// will, when a connection is closed.
func (l listener) accept() (net.Conn, error) {
	const longest = time.Second
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, longest) {
		n, err := l.Listener.Accept()
		if err == nil || !passes(err) {
			return n, err
		}
		l.server.config.Log.Error("connection not accepted", "error", err, "again_in", wait.String())
		time.Sleep(wait)
	}
}

// passes reports whether an error of accept may be gone the next time.
func passes(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// clientOf is who connections are counted for: an address, of IPv6 a network, since
// there each host has one.
func clientOf(a net.Addr) netip.Prefix {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{} // a local socket: all are one
	}
	ip := t.AddrPort().Addr().Unmap()
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // of that many bits: cannot fail
	return p
}

// crowded is the answer to a connection too many.
var crowded = func() []byte {
	const body = `{"error":"too many connections; try again later"}`
	return fmt.Appendf(nil, "HTTP/1.1 503 Service Unavailable\r\nServer: sluice\r\nContent-Type: application/json\r\nContent-Length: %d\r\nRetry-After: 1\r\nConnection: close\r\n\r\n%s",
		len(body), body)
}()

// turnAway closes a connection that was just accepted, with an answer where that
// needs no handshake. Neither waits: nothing was written to it before.
func turnAway(n net.Conn, plain bool) {
	if plain {
		_, _ = n.Write(crowded) // who has left does not need it
	}
	_ = n.Close()
}

// hands is the transport under TLS. A handshake takes turns with others while it
// computes, and not while it waits for its client: many at once neither slow down
// requests, nor can slow ones keep others out.
type hands struct {
	net.Conn
	tls   *tls.Conn
	turns chan struct{} // nil once they are shaken
	mine  bool
}

// Read implements net.Conn.
func (h *hands) Read(b []byte) (int, error) {
	h.wait()
	defer h.compute()
	return h.Conn.Read(b)
}

// Write implements net.Conn.
func (h *hands) Write(b []byte) (int, error) {
	h.wait()
	defer h.compute()
	return h.Conn.Write(b)
}

// wait gives the turn to others.
func (h *hands) wait() {
	if h.mine {
		<-h.turns
		h.mine = false
	}
}

// compute waits for a turn.
func (h *hands) compute() {
	if h.turns != nil {
		h.turns <- struct{}{}
		h.mine = true
	}
}

// shake does the handshake of a new connection. Failures end it without an answer.
func (c *conn) shake() error {
	h := c.hands
	err := h.tls.Handshake()
	h.wait()
	h.turns = nil
	if err == nil {
		c.hands = nil
		c.enter(idling)
		return nil
	}
	var other tls.RecordHeaderError
	if errors.As(err, &other) && other.Conn != nil && plain(other.RecordHeader) {
		_, _ = io.WriteString(c.raw, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 55\r\n\r\nthis port speaks HTTPS only; the request came in plain\n")
	}
	if c.phase() != late {
		c.watch.refused[whyHandshake].Add(1)
	}
	return io.EOF
}

// plain reports whether a client began with HTTP where TLS was expected.
func plain(begin [5]byte) bool {
	switch string(begin[:]) {
	case "GET /", "POST ", "HEAD ", "PUT /", "OPTIO":
		return true
	}
	return false
}
