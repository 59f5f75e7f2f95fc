package httpapi

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// rejected reports how often a server turned something away for a reason.
func rejected(s *Server, w why) uint64 { return s.watch.refused[w].Load() }

func TestConnectionsBeyondTheLimitGet503(t *testing.T) {
	f := func(c Config, w why) {
		t.Helper()
		address, server := serve(t, c)
		first := connect(t, address)
		if _, err := io.WriteString(first, score+"Content-Length: 3\r\n\r\nabc"); err != nil {
			t.Fatal(err)
		}
		if status, _ := answer(t, bufio.NewReader(first)); status != 200 {
			t.Fatalf("answered %d", status)
		}
		until(t, "parked", func() bool { return !parks || phased(server, parked) == 1 })
		second := connect(t, address)
		r := bufio.NewReader(second)
		if status, body := answer(t, r); status != 503 || !strings.Contains(body, `"error":`) {
			t.Errorf("answered %d %q; want 503", status, body)
		}
		if _, err := r.ReadByte(); err == nil || rejected(server, w) != 1 {
			t.Errorf("not closed, or counted %d times; want once", rejected(server, w))
		}
		_ = first.Close()
		until(t, "forgotten", func() bool { return phased(server, idling)+phased(server, parked) == 0 })
		if statuses, _, _ := talk(t, address, next, 1, silence); len(statuses) != 1 || statuses[0] != 200 {
			t.Errorf("with room again: answered %v", statuses)
		}
	}
	f(Config{ParkAfter: time.Millisecond, MaxConnections: 1}, whyConnections)
	f(Config{ParkAfter: time.Millisecond, MaxConnectionsPerClient: 1}, whyClient)
}

func TestClientsAreAddressesAndNetworks(t *testing.T) {
	f := func(address, want string) {
		t.Helper()
		if got := clientOf(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))); got != netip.MustParsePrefix(want) {
			t.Errorf("clientOf(%s) = %s; want %s", address, got, want)
		}
	}
	f("10.1.2.3:80", "10.1.2.3/32")
	f("[::ffff:10.1.2.3]:80", "10.1.2.3/32")
	f("[2001:db8:1:2:3:4:5:6]:80", "2001:db8:1:2::/64")
	if got := clientOf(&net.UnixAddr{Name: "x"}); got != (netip.Prefix{}) {
		t.Errorf("a local socket is %s", got)
	}
}

// exhausted has no descriptor for the first connections.
type exhausted struct {
	net.Listener
	mu    sync.Mutex
	fails int
}

func (e *exhausted) Accept() (net.Conn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fails > 0 {
		e.fails--
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return e.Listener.Accept()
}

// A process at the system's limit goes on, and serves again when there is room.
func TestAcceptingOutlivesALackOfDescriptors(t *testing.T) {
	address, _ := serveOn(t, Config{}, func(l net.Listener) net.Listener { return &exhausted{Listener: l, fails: 3} })
	if statuses, _, _ := talk(t, address, next, 1, silence); len(statuses) != 1 || statuses[0] != 200 {
		t.Errorf("answered %v", statuses)
	}
}

func TestHandshakesThatFailEndQuietly(t *testing.T) {
	pair, _ := certificate(t)
	address, server := serve(t, Config{HandshakeTimeout: 50 * time.Millisecond, TLS: &tls.Config{Certificates: []tls.Certificate{pair}}})
	counts := func(failed, late uint64) {
		t.Helper()
		if f, l := rejected(server, whyHandshake), server.watch.late[shaking].Load(); f != failed || l != late {
			t.Errorf("%d failed and %d late; want %d and %d", f, l, failed, late)
		}
	}
	ended := func(what, sent, want string) {
		t.Helper()
		c := connect(t, address)
		if _, err := io.WriteString(c, sent); err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(c); !strings.HasPrefix(string(got), want) || want == "" && len(got) > 7 { // an alert has 7 bytes
			t.Errorf("%s: answered %q", what, got)
		}
	}
	ended("plain HTTP", next, "HTTP/1.1 400 ")
	counts(1, 0)
	ended("garbage", strings.Repeat("x", 100), "")
	counts(2, 0)
	ended("silence", "", "")
	counts(2, 1)
	ended("half a hello", "\x16\x03\x01\x02\x00\x01\x00", "")
	counts(2, 2)
}

// Clients that stop in the middle of a handshake do not keep others from theirs.
func TestSlowHandshakesHoldUpNobody(t *testing.T) {
	for name, dial := range transports(t, Config{}) {
		if name != "TLS" {
			continue
		}
		first, server := dial()
		for range 8 * cap(server.turns) {
			c := connect(t, first.RemoteAddr().String())
			if _, err := io.WriteString(c, "\x16\x03\x01\x02\x00\x01\x00"); err != nil {
				t.Fatal(err)
			}
		}
		until(t, "begun", func() bool { return phased(server, shaking) == 8*cap(server.turns) })
		dial()
	}
}

// A client that comes again does a shorter handshake, with its ticket.
func TestSessionsAreResumed(t *testing.T) {
	pair, trust := certificate(t)
	address := listen(t, Config{TLS: &tls.Config{Certificates: []tls.Certificate{pair}}})
	config := &tls.Config{RootCAs: trust, ServerName: "127.0.0.1", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	for i := range 2 {
		c := tls.Client(connect(t, address), config)
		if _, err := io.WriteString(c, next); err != nil {
			t.Fatal(err)
		}
		if status, _ := answer(t, bufio.NewReader(c)); status != 200 { // has read the ticket, too
			t.Fatalf("answered %d", status)
		}
		if got := c.ConnectionState().DidResume; got != (i > 0) {
			t.Errorf("connection %d resumed: %v", i, got)
		}
		_ = c.Close()
	}
}
