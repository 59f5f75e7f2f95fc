//go:build !linux

package httpapi

import (
	"net"
	"sync"
)

// poller does nothing where the kernel is not asked about connections that nobody
// reads: requests of clients that left end with their deadline, and idle
// connections keep their buffers.
type poller struct {
	end   sync.Once
	ended chan struct{}
}

func newPoller(*watch) (*poller, error) { return &poller{ended: make(chan struct{})}, nil }

func (p *poller) stop()         { _ = p.Close() }
func (*poller) add(*conn)       {}
func (*poller) park(*conn) bool { return false }

// parks reports whether connections can be parked.
const parks = false

// Accept implements net.Listener: there is nothing to accept.
func (p *poller) Accept() (net.Conn, error) {
	<-p.ended
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (p *poller) Close() error {
	p.end.Do(func() { close(p.ended) })
	return nil
}

// Addr implements net.Listener.
func (*poller) Addr() net.Addr { return &net.UnixAddr{Name: "parked"} }
