package scorer

import "sync/atomic"

// Waiter is where the one goroutine that serves a request waits, for a queue
// place, for a slot or for an answer. Whoever has what it waits for claims it,
// fills in the answer and finishes; whoever knows that nobody wants the answer
// any more (deadline, disconnect) abandons it. The first wins, and the loser
// must not touch the request.
//
// Every Arm starts a new generation, a Ticket, and only its holder can claim
// that wait: a late answer to an abandoned wait finds its ticket void. The zero
// value is not usable; see NewWaiter and Init.
//
// Invariant: the channel holds at most one token, sent by whoever moved the
// state from armed or claimed to an outcome, and received by Wait.
type Waiter struct {
	state atomic.Uint64 // generation<<2 | phase
	wake  chan struct{} // capacity 1
}

// Ticket names one wait of one Waiter.
type Ticket uint64

const (
	idle      = iota // nobody waits, or the outcome is there
	armed            // somebody waits, or is about to
	claimed          // somebody fills in the answer
	abandoned        // nobody wants the answer
	phases    = 4
)

// NewWaiter makes a Waiter, to be reused for request after request.
func NewWaiter() *Waiter {
	w := new(Waiter)
	w.Init()
	return w
}

// Init makes a Waiter that is part of something else usable.
func (w *Waiter) Init() { w.wake = make(chan struct{}, 1) }

// Arm starts a wait. For the owner only, who must then call Wait.
func (w *Waiter) Arm() Ticket {
	t := w.state.Load()/phases + 1
	w.state.Store(t*phases + armed)
	return Ticket(t)
}

// Wait blocks until the wait is finished or abandoned, and reports whether it
// was finished.
func (w *Waiter) Wait() bool {
	<-w.wake
	return w.state.Load()%phases == idle
}

// Claim reserves the wait for the caller, who must soon Release or Finish it.
// False means that it is not to be touched: abandoned, or long over.
func (w *Waiter) Claim(t Ticket) bool {
	return w.state.CompareAndSwap(uint64(t)*phases+armed, uint64(t)*phases+claimed)
}

// Release gives a claim back: the wait goes on.
func (w *Waiter) Release(t Ticket) { w.state.Store(uint64(t)*phases + armed) }

// Finish ends a claimed wait. The caller must not touch the request after it.
func (w *Waiter) Finish(t Ticket) {
	w.state.Store(uint64(t)*phases + idle)
	w.wake <- struct{}{}
}

// Current is the ticket of the last Arm. For anybody.
func (w *Waiter) Current() Ticket { return Ticket(w.state.Load() / phases) }

// Wanted reports whether somebody still waits with ticket t. For anybody.
func (w *Waiter) Wanted(t Ticket) bool {
	s := w.state.Load()
	return s/phases == uint64(t) && (s%phases == armed || s%phases == claimed)
}

// AbandonIf ends the wait t if it is still armed, and reports whether it was. For
// whoever decided on what it read after Current: a later wait is not hit.
func (w *Waiter) AbandonIf(t Ticket) bool {
	if !w.state.CompareAndSwap(uint64(t)*phases+armed, uint64(t)*phases+abandoned) {
		return false
	}
	w.wake <- struct{}{}
	return true
}

// Abandon ends whatever wait is armed now, and reports whether there was one. A
// claimed wait is left alone: its answer is being filled in. For anybody.
func (w *Waiter) Abandon() bool {
	return w.AbandonIf(w.Current())
}
