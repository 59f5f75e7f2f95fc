package httpapi

import (
	"net"
	"sync"
)

// revived is the listener from which the HTTP library accepts the connections that
// were parked, when there is something to read.
type revived struct {
	awake chan *conn
	end   sync.Once
	ended chan struct{} // nothing is accepted any more
}

// Accept implements net.Listener.
func (r *revived) Accept() (net.Conn, error) {
	select {
	case c := <-r.awake:
		return c, nil
	case <-r.ended:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It may be called twice.
func (r *revived) Close() error {
	r.end.Do(func() { close(r.ended) })
	return nil
}

// Addr implements net.Listener.
func (*revived) Addr() net.Addr { return &net.UnixAddr{Name: "parked"} }
