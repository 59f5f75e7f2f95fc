package lane

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/scorer"
)

// conn is what both ends of a connection have: a writer that sends in one system
// call what has gathered, and a watch over a peer that stopped.
//
// Invariant: the writer's system calls read only out, never the memory of a
// request, so who abandons a request can reuse its memory at once.
type conn struct {
	net  net.Conn
	read *reader

	mu     sync.Mutex
	ready  sync.Cond // of mu: there is something to write, or dead is set
	buf    []byte    // frames to write
	large  []*outgoing
	batch  uint64 // of buf; those before it were handed to the kernel
	idle   bool   // the writer waits
	dead   bool
	reason error
	over   chan struct{} // closed when dead is set

	out     []byte       // being written; the writer's
	writing atomic.Int64 // scorer.Instant since when a write blocks; 0 if none does
	heard   atomic.Bool  // a frame came since the watch looked
	waiting atomic.Int64 // requests that wait for the peer
	tasks   sync.WaitGroup
}

// outgoing is a body that goes out in chunks.
type outgoing struct {
	stream uint32
	rest   []byte
}

// Limits of patience.
const (
	stall     = 10 * time.Second // without progress of a write
	pingAfter = 2 * time.Second  // without a frame while requests wait
	deafAfter = 10 * time.Second // without a frame while requests wait, pings sent
	maxKept   = 1 << 20          // bytes of a buffer that is kept
)

var (
	errStalled = errors.New("the peer stopped reading")
	errDeaf    = errors.New("the peer stopped answering")
	errClosed  = errors.New("closed")
)

func newConn(c net.Conn) *conn {
	k := &conn{net: c, read: newReader(c), buf: hello(), over: make(chan struct{})}
	k.ready.L = &k.mu
	k.tasks.Go(k.write)
	k.tasks.Go(k.watch)
	return k
}

// wake makes sure that what was appended is written. Holding mu.
func (c *conn) wake() {
	if c.idle {
		c.idle = false
		c.ready.Signal()
	}
}

// frame appends a frame and returns the batch that it goes with. Holding mu.
func (c *conn) frame(h *header, trace *scorer.Trace, body []byte) uint64 {
	h.total = uint32(len(body))
	first := body[:min(len(body), chunk)]
	if len(first) < len(body) {
		h.flags |= flagMore
		c.large = append(c.large, &outgoing{h.stream, body[len(first):]})
	}
	h.length = uint32(len(first))
	if trace != nil {
		h.flags |= flagTrace
		h.length += traceSize
	}
	c.buf = h.append(c.buf)
	if trace != nil {
		c.buf = appendTrace(c.buf, trace)
	}
	c.buf = append(c.buf, first...)
	c.wake()
	return c.batch
}

// signal appends a frame without a body. Holding mu.
func (c *conn) signal(kind uint8, stream uint32) {
	h := header{kind: kind, stream: stream}
	c.buf = h.append(c.buf)
	c.wake()
}

// unqueue drops what was not yet written of a stream's body, and reports whether
// there was anything. Holding mu.
func (c *conn) unqueue(stream uint32) bool {
	for i, o := range c.large {
		if o.stream == stream {
			c.large = append(c.large[:i], c.large[i+1:]...)
			return true
		}
	}
	return false
}

// write is the writer's goroutine.
//
// It yields once before it takes what has gathered: whoever woke it is often one
// of several that are about to send, and they share the system call. Where
// nothing else can run, that costs nothing.
func (c *conn) write() {
	for c.gather() {
		c.writing.Store(int64(scorer.Now()))
		_, err := c.net.Write(c.out)
		c.writing.Store(0)
		if err != nil {
			c.fail(fmt.Errorf("write: %w", err))
		}
		if cap(c.out) > maxKept {
			c.out = nil
		}
	}
}

// gather waits for something to write and puts it into out: all small frames,
// and a chunk of each large body. False: the connection is dead.
func (c *conn) gather() bool {
	c.mu.Lock()
	for len(c.buf) == 0 && len(c.large) == 0 && !c.dead {
		c.idle = true
		c.ready.Wait()
	}
	c.mu.Unlock()
	runtime.Gosched()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return false
	}
	c.out, c.buf = c.buf, c.out[:0]
	c.batch++
	kept := c.large[:0]
	for _, o := range c.large {
		part := o.rest[:min(len(o.rest), chunk)]
		o.rest = o.rest[len(part):]
		h := header{kind: typeData, stream: o.stream, length: uint32(len(part))}
		if len(o.rest) > 0 {
			h.flags = flagMore
			kept = append(kept, o)
		}
		c.out = append(h.append(c.out), part...)
	}
	clear(c.large[len(kept):])
	c.large = kept
	return true
}

// fail ends the connection. The first reason stays.
func (c *conn) fail(reason error) {
	c.mu.Lock()
	if !c.dead {
		c.dead, c.reason = true, reason
		close(c.over)
		c.ready.Signal()
	}
	c.mu.Unlock()
	_ = c.net.Close() // its reader and writer end
}

// flushed reports whether everything has been handed to the kernel.
func (c *conn) flushed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead || len(c.buf) == 0 && len(c.large) == 0 && c.idle
}

// watch ends a connection whose peer does not read, or does not answer.
func (c *conn) watch() {
	tick := time.NewTicker(pingAfter / 2)
	defer tick.Stop()
	last := scorer.Now() // that a frame had come, or nobody waited for one
	for {
		select {
		case <-c.over:
			return
		case <-tick.C:
		}
		now := scorer.Now()
		if c.heard.Swap(false) || c.waiting.Load() == 0 {
			last = now
		}
		if w := scorer.Instant(c.writing.Load()); w != 0 && now.Sub(w) > stall {
			c.fail(errStalled)
		}
		if now.Sub(last) > deafAfter {
			c.fail(errDeaf)
		} else if now.Sub(last) > pingAfter {
			c.mu.Lock()
			c.signal(typePing, 0)
			c.mu.Unlock()
		}
	}
}

// next reads a frame for the caller, answering pings itself.
func (c *conn) next(h *header) ([]byte, error) {
	for {
		p, err := c.read.next(h)
		if err != nil {
			return nil, err
		}
		if !c.heard.Load() {
			c.heard.Store(true)
		}
		switch h.kind {
		case typePing:
			c.mu.Lock()
			c.signal(typePong, 0)
			c.mu.Unlock()
		case typePong:
		case typeHello:
			return nil, errFrame
		default:
			return p, nil
		}
	}
}

// micros is a duration in the wire's form.
func micros(d time.Duration) uint32 {
	return uint32(min(max(d.Microseconds(), 0), 1<<32-1))
}

func duration(us uint32) time.Duration { return time.Duration(us) * time.Microsecond }
