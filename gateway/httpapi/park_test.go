//go:build linux

package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"sluice.dev/gateway"
)

// An idle connection has no goroutine and no buffer, and its next request is
// served like any other.
func TestIdleConnectionsAreParkedAndServedAgain(t *testing.T) {
	for name, dial := range transports(t, Config{ParkAfter: 2 * time.Millisecond}) {
		t.Run(name, func(t *testing.T) {
			c, server := dial()
			r := bufio.NewReader(c)
			for i := range 5 {
				until(t, "parked", func() bool { return phased(server, parked) == 1 })
				if n := server.http.GetCurrentConcurrency(); n != 0 {
					t.Errorf("%d goroutines serve a parked connection", n)
				}
				body := fmt.Sprint("request ", i)
				// In two parts, and two requests at once: the second is not lost.
				ask := fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", score, len(body), body)
				for _, part := range []string{ask[:10], ask[10:] + ask} {
					if _, err := io.WriteString(c, part); err != nil {
						t.Fatal(err)
					}
				}
				for range 2 {
					if status, got := answer(t, r); status != 200 || got != body {
						t.Fatalf("answered %d %q; want %q", status, got, body)
					}
				}
			}
		})
	}
}

// What has begun is not idle, however long it takes: half a request behind a whole
// one is in a buffer that must not be given up.
func TestHalfARequestIsNotParked(t *testing.T) {
	address, server := serve(t, Config{ParkAfter: 2 * time.Millisecond})
	c := connect(t, address)
	r := bufio.NewReader(c)
	ask := score + "Content-Length: 3\r\n\r\nabc"
	if _, err := io.WriteString(c, ask+ask[:20]); err != nil {
		t.Fatal(err)
	}
	if status, _ := answer(t, r); status != 200 {
		t.Fatalf("answered %d", status)
	}
	after := server.watch.clock.Load() + 10
	until(t, "ten ticks later", func() bool { return server.watch.clock.Load() > after })
	if phased(server, reading) != 1 {
		t.Error("half a request is not being read")
	}
	if _, err := io.WriteString(c, ask[20:]); err != nil {
		t.Fatal(err)
	}
	if status, body := answer(t, r); status != 200 || body != "abc" {
		t.Errorf("answered %d %q", status, body)
	}
}

// A server that is shut down before it serves does not serve.
func TestShutdownMayComeFirst(t *testing.T) {
	path := gateway.NewPath(gateway.Config{})
	defer path.Close()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s, served := New(path, Config{}), make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		if err := s.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := <-served; err != nil {
			t.Fatal(err)
		}
	}
}

func TestParkedConnectionsEnd(t *testing.T) {
	gone := func(s *Server) func() bool {
		return func() bool {
			s.watch.mu.Lock()
			defer s.watch.mu.Unlock()
			return len(s.watch.conns) == 0
		}
	}
	ended := func(c net.Conn) {
		t.Helper()
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("read %d bytes, %v; want the end", n, err)
		}
	}
	address, server := serve(t, Config{ParkAfter: 2 * time.Millisecond, IdleTimeout: 40 * time.Millisecond})
	c := connect(t, address)
	until(t, "parked", func() bool { return phased(server, parked) == 1 })
	ended(c) // it was idle for too long
	until(t, "forgotten", gone(server))

	address, server = serve(t, Config{ParkAfter: 2 * time.Millisecond})
	c = connect(t, address)
	until(t, "parked", func() bool { return phased(server, parked) == 1 })
	c.Close() // by its client
	until(t, "forgotten", gone(server))

	c = connect(t, address)
	until(t, "parked", func() bool { return phased(server, parked) == 1 })
	ctx, cancel := context.WithTimeout(context.Background(), forever)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	ended(c)
	if !gone(server)() {
		t.Error("a connection outlives its server")
	}
}
