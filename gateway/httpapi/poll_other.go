//go:build !linux

package httpapi

// poller does nothing where the kernel is not asked about connections that nobody
// reads: requests of clients that left end with their deadline, and idle
// connections keep their buffers. There is never anything to accept.
type poller struct{ revived }

func newPoller(*watch) (*poller, error) {
	return &poller{revived{ended: make(chan struct{})}}, nil
}

func (p *poller) stop()         { _ = p.Close() }
func (*poller) add(*conn)       {}
func (*poller) park(*conn) bool { return false }

// parks reports whether connections can be parked.
const parks = false
