package httpapi

import (
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
)

// leavers notices clients that close their connection while they wait, which no
// read would tell, since none is under way. A connection is registered once, for
// the one event that its peer will send nothing more: a request costs no system
// call. A client that closes only its sending half counts as gone, as with other
// gateways.
type leavers struct {
	fd   int      // the epoll instance
	file *os.File // the same, watched by the runtime's own
	raw  syscall.RawConn
	done chan struct{}

	mu    sync.Mutex
	last  uint64
	conns map[uint64]*conn // by a number that is never used again, as a descriptor is
}

func newLeavers() (*leavers, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch for clients that leave: %w", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("watch for clients that leave: %w", err)
	}
	l := &leavers{fd: fd, file: os.NewFile(uintptr(fd), "epoll"), done: make(chan struct{}), conns: map[uint64]*conn{}}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		return nil, fmt.Errorf("watch for clients that leave: %w", err)
	}
	go l.run()
	return l, nil
}

func (l *leavers) close() {
	_ = l.file.Close() // ends run
	<-l.done
}

// edge reports an event once, until there is another.
const edge = 1 << 31 // EPOLLET, which the library has as a negative number

// add registers a connection. One that cannot be is not watched.
func (l *leavers) add(c *conn, n net.Conn) {
	s, ok := n.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	l.mu.Lock()
	l.last++
	c.id = l.last
	l.conns[c.id] = c
	l.mu.Unlock()
	event := syscall.EpollEvent{Events: syscall.EPOLLRDHUP | edge, Fd: int32(c.id), Pad: int32(c.id >> 32)}
	_ = raw.Control(func(fd uintptr) { _ = syscall.EpollCtl(l.fd, syscall.EPOLL_CTL_ADD, int(fd), &event) })
}

// remove forgets a connection that is about to be closed, which ends its registration.
func (l *leavers) remove(c *conn) {
	l.mu.Lock()
	delete(l.conns, c.id)
	l.mu.Unlock()
}

func (l *leavers) run() {
	defer close(l.done)
	events := make([]syscall.EpollEvent, 128)
	for {
		n := 0
		err := l.raw.Read(func(fd uintptr) bool {
			n, _ = syscall.EpollWait(int(fd), events, 0)
			return n > 0
		})
		if err != nil {
			return // closed
		}
		for _, e := range events[:n] {
			l.mu.Lock()
			c := l.conns[uint64(uint32(e.Fd))|uint64(uint32(e.Pad))<<32]
			l.mu.Unlock()
			if c != nil {
				c.left()
			}
		}
	}
}
