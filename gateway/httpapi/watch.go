package httpapi

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// watch ends connections on which nothing happens in time, and parks those that
// are idle. A deadline set before each read costs more than the rest of a small
// request's work in this package; here a request costs a few stores, and one
// goroutine looks at all connections.
type watch struct {
	limits  [phases]time.Duration // of the phases that have one
	park    time.Duration         // idle connections are parked after it
	clock   atomic.Int64          // ticks since the start
	tick    time.Duration
	end     sync.Once
	stop    chan struct{}
	done    chan struct{}
	late    [phases]atomic.Uint64 // connections that exceeded the limit of a phase
	refused [whys]atomic.Uint64   // connections and requests

	most          int // connections
	mostPerClient int // of them; 0 does not count

	mu      sync.Mutex
	last    uint64
	conns   map[uint64]*conn     // by a number that is never used again, as a descriptor is
	clients map[netip.Prefix]int // connections of each
	closed  bool                 // nothing is parked any more
}

// phase is what a connection waits for.
type phase int64

const (
	shaking   phase = iota // a TLS handshake
	idling                 // the first byte of a request
	reading                // the rest of it
	serving                // the path, which has its own deadline
	writing                // the client, to read the answer
	lingering              // a client that was refused, to stop sending
	parked                 // the first byte of a request, without a goroutine or a buffer
	// The watch makes a call of the connection return with a time-out, and the
	// phase tells the call what to make of it. One that has become another
	// phase meanwhile was not late after all.
	parking // was idling, and shall be parked
	ending  // was idling for too long
	late    // was shaking, reading, writing or lingering for too long
	phases
)

// ticksPer is how many ticks the shortest limit has: limits are exceeded by at
// most a part in so many.
const ticksPer = 8

func newWatch(c *Config) *watch {
	shortest := min(c.ReadTimeout, c.IdleTimeout, c.WriteTimeout, c.HandshakeTimeout)
	w := &watch{
		limits: [phases]time.Duration{shaking: c.HandshakeTimeout, idling: c.IdleTimeout, reading: c.ReadTimeout, writing: c.WriteTimeout, lingering: lingerTime, parked: c.IdleTimeout},
		park:   c.ParkAfter, tick: min(max(shortest/ticksPer, time.Millisecond), c.ParkAfter),
		stop: make(chan struct{}), done: make(chan struct{}),
		most: c.MaxConnections, mostPerClient: c.MaxConnectionsPerClient, conns: map[uint64]*conn{}, clients: map[netip.Prefix]int{},
	}
	go w.run()
	return w
}

// close ends the watch.
func (w *watch) close() {
	w.end.Do(func() { close(w.stop) })
	<-w.done
}

func (w *watch) run() {
	defer close(w.done)
	t := time.NewTicker(w.tick)
	defer t.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-t.C:
			w.sweep(w.clock.Add(1))
		}
	}
}

// sweep looks at every connection at tick now.
func (w *watch) sweep(now int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		w.judge(c, now)
	}
}

// judge makes the call of c return that waits for too long at now. Holding mu.
func (w *watch) judge(c *conn, now int64) {
	state := c.state.Load()
	p, since := split(state)
	to := w.next(p, time.Duration(now-since)*w.tick)
	if to == p && p < parking {
		return
	}
	if to != p {
		if !c.state.CompareAndSwap(state, join(to, since)) {
			return // not any more
		}
		if to != parking {
			w.late[p].Add(1)
		}
	}
	if p == parked {
		w.evict(c)
		return
	}
	// Errors mean that the connection is closed already.
	_ = c.Conn.SetReadDeadline(past) // once more where the call was on its way to drop the one before
	if to == late && (p == writing || p == shaking) {
		_ = c.SetWriteDeadline(past) // a request that is late is still answered
	}
}

// next is what becomes of a connection that has been in a phase for some time.
func (w *watch) next(p phase, waited time.Duration) phase {
	tooLong := w.limits[p] > 0 && waited > w.limits[p]
	switch {
	case tooLong && (p == idling || p == parked):
		return ending
	case tooLong:
		return late
	case p == idling && parks && waited > w.park:
		return parking
	}
	return p
}

// evict closes a connection that was parked. Holding mu.
func (w *watch) evict(c *conn) {
	w.forget(c)
	_ = c.raw.Close() // what encrypts would wait for a client that may not read
}

// evictAll closes what is parked, for good.
func (w *watch) evictAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, c := range w.conns {
		if p, since := split(c.state.Load()); p == parked && c.state.CompareAndSwap(join(p, since), join(ending, since)) {
			w.evict(c)
		}
	}
}

// why a connection is turned away, or a request refused before it reaches the path.
type why int

const (
	whyConnections why = iota // there are too many
	whyClient                 // its client has too many
	whyHandshake              // it failed
	whyFrame                  // it is not clean HTTP/1.1
	whyHead                   // it is too large
	whyBody                   // it is too large
	whyLarge                  // too many bytes of large bodies at a time
	whys
)

// add begins to watch c, unless there are too many: then it says of what.
func (w *watch) add(c *conn) (why, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.conns) >= w.most {
		return whyConnections, false
	}
	if w.mostPerClient > 0 {
		if w.clients[c.client] >= w.mostPerClient {
			return whyClient, false
		}
		w.clients[c.client]++
	}
	w.last++
	c.id = w.last
	w.conns[c.id] = c
	return 0, true
}

// remove ends that.
func (w *watch) remove(c *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forget(c)
}

// forget is remove, holding mu.
func (w *watch) forget(c *conn) {
	if w.conns[c.id] == nil {
		return
	}
	delete(w.conns, c.id)
	if w.mostPerClient == 0 {
		return
	}
	if w.clients[c.client]--; w.clients[c.client] == 0 {
		delete(w.clients, c.client)
	}
}
