package httpapi

import (
	"fmt"
	"os"
	"syscall"
)

// poller notices two things that no read would tell, since none is under way:
// that the client of a request has closed its connection, and that there is
// something to read from a parked one.
//
// A connection is registered once, for the one event that its peer will send
// nothing more, so that a request costs no system call; to park it, and to take it
// back, costs one each. A client that closes only its sending half counts as gone,
// as with other gateways.
//
// It is a listener, too: it accepts the connections that were parked.
type poller struct {
	revived
	watch *watch
	fd    int      // the epoll instance
	file  *os.File // the same, watched by the runtime's own
	raw   syscall.RawConn
	done  chan struct{}
}

func newPoller(w *watch) (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch for clients that leave: %w", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("watch for clients that leave: %w", err)
	}
	p := &poller{
		revived: revived{awake: make(chan *conn, 128), ended: make(chan struct{})},
		watch:   w, fd: fd, file: os.NewFile(uintptr(fd), "epoll"), done: make(chan struct{}),
	}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		return nil, fmt.Errorf("watch for clients that leave: %w", err)
	}
	go p.run()
	return p, nil
}

// stop ends run, and closes what was not accepted.
func (p *poller) stop() {
	_ = p.Close()
	_ = p.file.Close()
	<-p.done
	for {
		select {
		case c := <-p.awake:
			_ = c.Close()
		default:
			return
		}
	}
}

const (
	// edge reports an event once, until there is another.
	edge = 1 << 31 // EPOLLET, which the library has as a negative number
	// leaves is the event of a client that will send nothing more.
	leaves = syscall.EPOLLRDHUP | edge
	// wakes are those of a parked connection, until the next call of control.
	wakes = syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT
)

// control registers c for events. One that cannot be is not watched.
func (p *poller) control(c *conn, op int, events uint32) error {
	s, ok := c.raw.(syscall.Conn)
	if !ok {
		return syscall.ENOTSUP
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	event := syscall.EpollEvent{Events: events, Fd: int32(c.id), Pad: int32(c.id >> 32)}
	if e := raw.Control(func(fd uintptr) { err = syscall.EpollCtl(p.fd, op, int(fd), &event) }); e != nil {
		return e
	}
	return err
}

// add begins to notice that c's client leaves; closing c ends it.
func (p *poller) add(c *conn) { _ = p.control(c, syscall.EPOLL_CTL_ADD, leaves) }

// parks reports whether connections can be parked.
const parks = true

// park keeps c until there is something to read. False: it must be closed.
func (p *poller) park(c *conn) bool {
	p.watch.mu.Lock()
	defer p.watch.mu.Unlock()
	is, since := split(c.state.Load())
	if p.watch.closed || is != parking || p.control(c, syscall.EPOLL_CTL_MOD, wakes) != nil {
		return false
	}
	c.state.Store(join(parked, since))
	return true
}

// wake finds a connection, and takes it back if it is parked. How long it was idle
// goes on being counted. Nil: it is closed already.
func (p *poller) wake(id uint64) (c *conn, was bool) {
	p.watch.mu.Lock()
	defer p.watch.mu.Unlock()
	c = p.watch.conns[id]
	if c == nil {
		return nil, false
	}
	is, since := split(c.state.Load())
	if is != parked {
		return c, false
	}
	// Errors mean that it is closed, which its next reader finds.
	_ = p.control(c, syscall.EPOLL_CTL_MOD, leaves)
	_ = c.Conn.SetReadDeadline(never)
	c.state.Store(join(idling, since))
	return c, true
}

// happened deals with one event of the connection id.
func (p *poller) happened(id uint64, events uint32) {
	c, woken := p.wake(id)
	switch {
	case woken:
		select {
		case p.awake <- c:
		case <-p.ended:
			_ = c.Close()
		}
	case c != nil && events&syscall.EPOLLRDHUP != 0:
		c.left()
	}
}

func (p *poller) run() {
	defer close(p.done)
	events := make([]syscall.EpollEvent, 128)
	for {
		n := 0
		err := p.raw.Read(func(fd uintptr) bool {
			n, _ = syscall.EpollWait(int(fd), events, 0)
			return n > 0
		})
		if err != nil {
			return // stopped
		}
		for _, e := range events[:n] {
			p.happened(uint64(uint32(e.Fd))|uint64(uint32(e.Pad))<<32, e.Events)
		}
	}
}
