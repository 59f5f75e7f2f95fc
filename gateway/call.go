package gateway

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/auth"
	"sluice.dev/gateway/admit"
	"sluice.dev/gateway/limit"
	"sluice.dev/router"
	"sluice.dev/scorer"
)

// Call is one request on its way through the path. It belongs to one goroutine
// at a time: a front end takes it with Path.Call, fills in the request, serves
// it, reads the answer, and gives it back with Path.Done.
type Call struct {
	// The request. All bytes are lent until Serve returns.
	Name       []byte        // of the endpoint
	Pin        []byte        // the version asked for; empty leaves it to the split
	Credential []byte        // key or token; empty if there is none
	Timeout    time.Duration // what the client allows; 0 if it did not say
	Class      admit.Class   // what the client asks for; Normal if it does not
	Copy       Copy          // what the client wishes of a mirror
	Unread     bool          // the body was left unread, for its caller would not be let in; who is after all is told to try again
	Headers    Headers       // for what an endpoint wants to know of them
	ID         []byte        // that logs know it by, scorers' and other servers' included; the call's own memory

	// The answer.
	Response   scorer.Response
	Endpoint   *Endpoint
	Version    *Version
	Generation []byte // of the snapshot that the request saw; not to be modified
	Reason     router.Reason
	Principal  *auth.Principal
	Refusal    error         // of package auth: why the caller was not let in; nil if it was
	RetryIn    time.Duration // how long a caller should wait; 0 says nothing

	exceeded limit.Kind
	meter    *limit.Meter // of a caller that is limited
	request  scorer.Request
	start    scorer.Instant
	waited   time.Duration // for a slot; 0 where one was free
	shed     shed          // why it got no slot
	estimate time.Duration // how long it would have waited for one
	place    admit.Place
	replica  *Replica // granted by whoever released it; nil if the place went to another
	ticket   scorer.Ticket
	wait     wait
	snapshot atomic.Pointer[Snapshot] // held while not nil
}

// wait is a call's waiter and when to abandon what it waits for.
//
// Invariant: expires is set before the waiter is armed, so whoever sees a ticket
// sees its expiry or a later one.
type wait struct {
	scorer.Waiter
	expires atomic.Int64 // scorer.Instant; 0 while nothing waits
	left    atomic.Bool  // nobody waits for the answer
}

// Leave tells that the client has gone: what the call waits for is given up at
// once, or, where it does not wait just then, within milliseconds of its next
// wait. For anybody, between Path.Call and Path.Done.
func (c *Call) Leave() {
	c.wait.left.Store(true)
	c.wait.Abandon()
}

// Headers are a request's headers, or a call's metadata. Peek is the value of one,
// nil if it is not there, lent until Serve returns.
type Headers interface {
	Peek(name string) []byte
}

// caller is whose call it is; all who are not named are one.
func (c *Call) caller() string {
	if c.Principal == nil {
		return ""
	}
	return c.Principal.ID
}

// Copy is whether a request is to be copied to a mirror.
type Copy uint8

// The wishes.
const (
	AsConfigured Copy = iota
	Always
	Never
)

// SetCopy sets what the client wishes of a mirror by name: always or never. Others
// change nothing.
func (c *Call) SetCopy(name []byte) {
	switch string(name) {
	case "always":
		c.Copy = Always
	case "never":
		c.Copy = Never
	}
}

// SetPriority sets the class by its name: low, normal or high. Others change nothing.
func (c *Call) SetPriority(name []byte) {
	for class := admit.Low; class < admit.Classes; class++ {
		if string(name) == class.String() {
			c.Class = class
		}
	}
}

// SetBody sets what is sent to the scorer.
func (c *Call) SetBody(kind scorer.Kind, headLength int, body []byte) {
	c.request.Kind, c.request.HeadLength, c.request.Body = kind, headLength, body
}

// Times are where a call spent its time, from arrival on.
type Times struct {
	Queue  time.Duration // waiting for a slot, at the gateway
	Batch  time.Duration // waiting for its batch to run, at the scorer
	Device time.Duration // running
	Total  time.Duration // until now
}

// Times are the times of a call; zero for one that was not served.
func (c *Call) Times() Times {
	if c.start == 0 {
		return Times{}
	}
	return Times{c.waited, c.Response.Queue, c.Response.Device, scorer.Now().Sub(c.start)}
}

// Append appends them as the value of a Server-Timing header, in milliseconds.
// Source: https://www.w3.org/TR/server-timing/
func (t Times) Append(dst []byte) []byte {
	dst = AppendMillis(append(dst, "queue;dur="...), t.Queue)
	dst = AppendMillis(append(dst, ", batch;dur="...), t.Batch)
	dst = AppendMillis(append(dst, ", device;dur="...), t.Device)
	return AppendMillis(append(dst, ", total;dur="...), t.Total)
}

// AppendMillis appends d in milliseconds with three decimals.
func AppendMillis(dst []byte, d time.Duration) []byte {
	return strconv.AppendFloat(dst, float64(d)/float64(time.Millisecond), 'f', 3, 64)
}

// RetrySeconds is RetryIn in whole seconds, as Retry-After has it.
func (c *Call) RetrySeconds() int64 { return int64((c.RetryIn + time.Second - 1) / time.Second) }

// SetTrace sets the request's W3C trace context, and its tracestate, which counts for
// nothing without it.
func (c *Call) SetTrace(t scorer.Trace, state []byte) {
	if c.request.Trace = t; t != (scorer.Trace{}) {
		c.request.State = state
	}
}

// What an idle call keeps of an answer's memory, in bytes: at most, and once it has not
// been needed for a second or two.
const (
	maxKept  = 1 << 20
	longKept = 64 << 10
)

// reset empties a call for its next request.
func (c *Call) reset() {
	c.Name, c.Pin, c.Credential, c.Timeout, c.Class, c.Copy, c.Unread, c.Headers = nil, nil, nil, 0, admit.Normal, AsConfigured, false, nil
	c.Endpoint, c.Version, c.Principal, c.Refusal, c.replica, c.meter, c.RetryIn, c.Generation = nil, nil, nil, nil, nil, nil, 0, nil
	c.ID = c.ID[:0]
	c.start, c.waited = 0, 0
	c.wait.left.Store(false)
	c.request = scorer.Request{Wait: &c.wait.Waiter}
	if cap(c.Response.Body) > maxKept {
		c.Response.Body = nil
	}
}

// begin makes c ready for the path.
func (c *Call) begin() {
	c.Response.Reset()
	c.start, c.waited, c.shed = scorer.Now(), 0, shedNot
}

// calls keeps every call of a path, idle or not, so that one goroutine can watch
// the deadlines of all of them: a request costs no timer. There are as many as
// were ever in flight at a time.
type calls struct {
	stop chan struct{}
	done chan struct{}

	mu   sync.Mutex
	all  []*Call
	free []*Call
	wake chan struct{} // capacity 1; the watcher sleeps while asleep is set
	idle bool          // the watcher sleeps
	rest int           // of free, how many were not needed since the last trim: the first, for the last is taken first
}

// resolution is how late a deadline may be noticed.
const resolution = 5 * time.Millisecond

func newCalls() *calls {
	cs := &calls{stop: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1)}
	go cs.watch()
	return cs
}

func (cs *calls) close() {
	close(cs.stop)
	<-cs.done
}

// Call takes an idle call. Path.Done gives it back.
func (p *Path) Call() *Call {
	cs := p.calls
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.idle {
		cs.idle = false
		cs.wake <- struct{}{}
	}
	if n := len(cs.free); n > 0 {
		c := cs.free[n-1]
		cs.free = cs.free[:n-1]
		cs.rest = min(cs.rest, n-1)
		return c
	}
	c := &Call{}
	c.wait.Waiter.Init()
	c.place.Owner = c
	c.reset()
	cs.all = append(cs.all, c)
	return c
}

// Done gives a call back. Nothing of it may be used after.
func (p *Path) Done(c *Call) {
	c.reset()
	p.calls.mu.Lock()
	p.calls.free = append(p.calls.free, c)
	p.calls.mu.Unlock()
}

// active is how many calls are taken.
func (cs *calls) active() int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return len(cs.all) - len(cs.free)
}

// watch abandons waits that have expired, until close. It sleeps after a second
// without a request.
func (cs *calls) watch() {
	defer close(cs.done)
	tick := time.NewTicker(resolution)
	defer tick.Stop()
	const quiet = int(time.Second / resolution)
	for still, ticks := 0, 1; ; ticks++ {
		select {
		case <-cs.stop:
			return
		case <-tick.C:
		}
		if ticks%quiet == 0 {
			cs.mu.Lock()
			cs.trim()
			cs.mu.Unlock()
		}
		if cs.sweep(scorer.Now()) {
			still = 0
			continue
		}
		if still++; still < quiet || !cs.sleep() {
			continue
		}
		tick.Stop()
		select {
		case <-cs.stop:
			return
		case <-cs.wake:
		}
		tick.Reset(resolution)
		still = 0
	}
}

// sleep marks the watcher as asleep, unless a call is active. What sleeps does not
// trim, so all is trimmed before.
func (cs *calls) sleep() bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.idle = len(cs.all) == len(cs.free)
	if cs.idle {
		cs.rest = len(cs.free)
		cs.trim()
	}
	return cs.idle
}

// trim drops the memory of the calls that were not needed since the last trim. Holding mu.
func (cs *calls) trim() {
	for _, c := range cs.free[:cs.rest] {
		if cap(c.Response.Body) > longKept {
			c.Response.Body = nil
		}
	}
	cs.rest = len(cs.free)
}

// sweep abandons what has expired by now, and reports whether any call is active.
func (cs *calls) sweep(now scorer.Instant) bool {
	cs.mu.Lock()
	all, active := cs.all, len(cs.all) > len(cs.free)
	cs.mu.Unlock()
	if !active {
		return false
	}
	for _, c := range all {
		ticket := c.wait.Current()
		if e := scorer.Instant(c.wait.expires.Load()); e != 0 && (e <= now || c.wait.left.Load()) {
			c.wait.AbandonIf(ticket)
		}
	}
	return true
}

// quiesce waits until no call holds s, which is no longer the current snapshot.
func (cs *calls) quiesce(s *Snapshot) {
	cs.mu.Lock()
	all := cs.all
	cs.mu.Unlock()
	for _, c := range all {
		for c.snapshot.Load() == s {
			select {
			case <-cs.stop:
				return
			case <-time.After(resolution):
			}
		}
	}
}
