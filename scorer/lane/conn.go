package lane

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sluice.dev/scorer"
)

// conn is what both ends of a connection have: a way to send in one system call
// what has gathered, and a watch over a peer that stopped.
//
// One at a time has the turn to write: a caller that adds a frame while nobody
// has it, as far as the kernel takes bytes at once (flush), or the writer's
// goroutine, which may block (write). To wake another goroutine costs more than
// the system call that it would make.
//
// Invariant: the system calls read only out, never the memory of a request, so
// who abandons a request can reuse its memory at once.
type conn struct {
	net  net.Conn
	raw  syscall.RawConn // of net; nil where the kernel does not see the bytes as they are
	read *reader

	mu     sync.Mutex
	ready  sync.Cond // of mu: the writer has the turn, or dead is set
	room   sync.Cond // of mu: the peer has read, or dead is set
	buf    []byte    // frames to write
	large  []*outgoing
	rest   int    // bytes of large
	ponged bool   // a PONG is in buf
	batch  uint64 // of buf; those before it were handed to the kernel
	turn   turn
	held   bool // the reader will send when it has handled what came
	dead   bool
	reason error         // of dead, for good
	over   chan struct{} // closed when dead is set

	// Of who has the turn.
	out   []byte // being written
	left  []byte // of out, for the writer to begin with
	try   func(fd uintptr) bool
	tried int
	paced int // bytes that the writer wrote since writing

	writing atomic.Int64     // scorer.Instant since when the writer has not written pace bytes, nor all; 0 if there is nothing
	heard   atomic.Bool      // a frame came since the watch looked
	waiting atomic.Int64     // requests that wait for the peer
	silent  func(quiet bool) // told when the peer stops to answer and when it does again; nil does not ask it
	tasks   sync.WaitGroup
}

// turn says who may write.
type turn uint8

const (
	nobody turn = iota // and there is nothing to write, or held is set
	caller
	writer
)

// outgoing is a body that goes out in chunks.
type outgoing struct {
	stream uint32
	rest   []byte
}

// Limits of patience.
const (
	stall      = 10 * time.Second // for pace bytes, or all that there is, to be written
	pace       = 1 << 20
	maxUnread  = 16 << 20 // bytes that may wait to be written while more is read from the peer
	watchEvery = 250 * time.Millisecond
	pingAfter  = 500 * time.Millisecond // without a frame while requests wait
	pingIdle   = 5 * time.Second        // without a frame while none does
	quietAfter = time.Second            // without a frame since the first ping: nothing is sent to the peer
	deafAfter  = 10 * time.Second       // the same: the connection is over
	maxKept    = 1 << 20                // bytes of a buffer that is kept
)

var (
	errStalled = errors.New("the peer stopped reading")
	errDeaf    = errors.New("the peer stopped answering")
	errClosed  = errors.New("closed")
)

// newConn starts what serves a connection. silent is the conn's.
func newConn(c net.Conn, silent func(bool)) *conn {
	k := &conn{net: c, read: newReader(c), buf: hello(), turn: writer, over: make(chan struct{}), silent: silent}
	if s, ok := c.(syscall.Conn); ok {
		k.raw, _ = s.SyscallConn() // nil: the writer does all
	}
	k.try = func(fd uintptr) bool { // a lasting error meets the writer too
		k.tried, _ = syscall.Write(int(fd), k.out)
		return true
	}
	k.ready.L, k.room.L = &k.mu, &k.mu
	k.tasks.Go(k.write)
	k.tasks.Go(k.watch)
	return k
}

// wake makes sure that what was appended is written, by others. Holding mu.
func (c *conn) wake() {
	if c.turn == nobody && !c.held {
		c.pass()
	}
}

// pass gives the turn to the writer. Holding mu.
func (c *conn) pass() {
	c.turn = writer
	c.ready.Signal()
}

// frame appends a frame, of a request with what that says of itself, and returns the
// batch that it goes with; wake or flush must follow. Holding mu.
func (c *conn) frame(h *header, req *scorer.Request, body []byte) uint64 {
	h.total = uint32(len(body))
	first := body[:min(len(body), chunk)]
	if len(first) < len(body) {
		h.flags |= flagMore
		c.large = append(c.large, &outgoing{h.stream, body[len(first):]})
		c.rest += len(body) - len(first)
	}
	h.length = h.prefix() + uint32(len(first))
	c.buf = h.append(c.buf)
	if req != nil {
		c.buf = h.appendPrefix(c.buf, req)
	}
	c.buf = append(c.buf, first...)
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
			c.rest -= len(o.rest)
			c.large = append(c.large[:i], c.large[i+1:]...)
			return true
		}
	}
	return false
}

// owed is how many bytes the peer has not read. Holding mu.
func (c *conn) owed() int { return len(c.buf) + c.rest }

// await has a peer that only sends wait until it reads. For the reader, which gives up
// what it held back. Holding mu.
func (c *conn) await() {
	for len(c.buf) > maxUnread && !c.dead {
		c.held = false
		c.wake()
		c.room.Wait()
	}
}

// maxFlushes bounds how long a caller writes for others.
const maxFlushes = 4

// flush writes what has gathered, on the caller's goroutine where nobody has the
// turn. It does not block: what the kernel does not take is left to the writer.
// Holding mu, which it gives up.
func (c *conn) flush() {
	if c.turn != nobody || c.held || c.dead || c.empty() {
		c.mu.Unlock()
		return
	}
	c.turn = caller
	for range maxFlushes {
		if c.raw == nil || len(c.large) > 0 {
			break
		}
		// See write: those who are about to send share the system call.
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
		if c.dead {
			break
		}
		c.take()
		c.mu.Unlock()
		c.tried = 0
		err := c.raw.Write(c.try)
		c.mu.Lock()
		if err != nil || c.tried < len(c.out) {
			c.left = c.out[max(c.tried, 0):]
			break
		}
		if c.empty() {
			c.turn = nobody
			c.mu.Unlock()
			return
		}
	}
	c.pass()
	c.mu.Unlock()
}

// empty reports whether nothing waits to be written. Holding mu.
func (c *conn) empty() bool { return len(c.buf) == 0 && len(c.large) == 0 }

// write is the writer's goroutine.
//
// It yields once before it takes what has gathered: whoever woke it is often one
// of several that are about to send, and they share the system call. Where
// nothing else can run, that costs nothing.
func (c *conn) write() {
	for c.gather() {
		if err := c.writeLeft(); err != nil {
			c.fail(fmt.Errorf("write: %w", err))
		}
		if c.left = nil; cap(c.out) > maxKept {
			c.out = nil
		}
	}
}

// writeLeft writes left. The peer's time begins with the first byte of all that there
// is, and anew with every pace bytes: one that reads a little now and then is not
// waited for.
func (c *conn) writeLeft() error {
	if c.writing.Load() == 0 {
		c.restart()
	}
	for len(c.left) > 0 {
		n, err := c.net.Write(c.left[:min(len(c.left), pace-c.paced)])
		if err != nil {
			return err
		}
		c.left = c.left[n:]
		if c.paced += n; c.paced == pace {
			c.restart()
		}
	}
	return nil
}

// restart gives the peer time for a next pace bytes.
func (c *conn) restart() {
	c.paced = 0
	c.writing.Store(int64(scorer.Now()))
}

// gather waits for the writer's turn and fills out. False: the connection is dead.
func (c *conn) gather() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.turn == writer && c.empty() {
		c.turn = nobody // what was left is written
		c.writing.Store(0)
	}
	for c.turn != writer && !c.dead {
		c.ready.Wait()
	}
	if c.dead {
		return false // perhaps while a caller has the turn, and out
	}
	c.mu.Unlock()
	runtime.Gosched()
	c.mu.Lock()
	if c.dead {
		return false
	}
	if c.left == nil {
		c.take()
		c.left = c.out
	}
	return true
}

// take puts into out what goes next: all small frames, and a chunk of each large
// body. Holding mu.
func (c *conn) take() {
	if len(c.buf) > maxUnread {
		c.room.Signal()
	}
	c.out, c.buf = c.buf, c.out[:0]
	c.ponged = false
	c.batch++
	kept := c.large[:0]
	for _, o := range c.large {
		part := o.rest[:min(len(o.rest), chunk)]
		o.rest = o.rest[len(part):]
		c.rest -= len(part)
		h := header{kind: typeData, stream: o.stream, length: uint32(len(part))}
		if len(o.rest) > 0 {
			h.flags = flagMore
			kept = append(kept, o)
		}
		c.out = append(h.append(c.out), part...)
	}
	clear(c.large[len(kept):])
	c.large = kept
}

// fail ends the connection. The first reason stays.
func (c *conn) fail(reason error) {
	c.mu.Lock()
	if !c.dead {
		c.dead, c.reason = true, reason
		close(c.over)
		c.ready.Signal()
		c.room.Signal()
	}
	c.mu.Unlock()
	_ = c.net.Close() // its reader and writer end
}

// flushed reports whether everything has been handed to the kernel.
func (c *conn) flushed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead || c.empty() && c.turn == nobody
}

// watch ends a connection whose peer does not read, or does not answer.
func (c *conn) watch() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	last := scorer.Now() // that a frame had come
	quiet := false
	for {
		select {
		case <-c.over:
			return
		case <-tick.C:
		}
		now := scorer.Now()
		if c.heard.Swap(false) {
			last = now
		}
		if w := scorer.Instant(c.writing.Load()); w != 0 && now.Sub(w) > stall {
			c.fail(errStalled)
		}
		if c.silent != nil {
			quiet = c.listen(now.Sub(last), quiet)
		}
	}
}

// listen pings a peer that has not been heard for a time, and tells when it does
// not answer. quiet says that this was told before; it returns whether it is so now.
func (c *conn) listen(silence time.Duration, quiet bool) bool {
	patience := pingIdle
	if quiet || c.waiting.Load() > 0 {
		patience = pingAfter
	}
	if unanswered := silence - patience; unanswered > deafAfter {
		c.fail(errDeaf)
	} else if unanswered > 0 {
		c.mu.Lock()
		c.signal(typePing, 0)
		c.mu.Unlock()
		if unanswered > quietAfter && !quiet {
			c.silent(true)
			return true
		}
	} else if quiet {
		c.silent(false)
		return false
	}
	return quiet
}

// next reads a frame. Pings are answered, and returned like any other: what the
// caller holds back until no frame is there must not wait for the one after.
func (c *conn) next(h *header) ([]byte, error) {
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
		if !c.ponged { // one answers all that came before it is sent
			c.ponged = true
			c.signal(typePong, 0)
		}
		c.mu.Unlock()
	case typeHello:
		return nil, errFrame
	}
	return p, nil
}

// micros is a duration in the wire's form.
func micros(d time.Duration) uint32 {
	return uint32(min(max(d.Microseconds(), 0), 1<<32-1))
}

func duration(us uint32) time.Duration { return time.Duration(us) * time.Microsecond }
