// Package admit decides who may be in flight and who waits for it.
package admit

// Gate is the slots of one version and the bounded queue before them, first come
// first served. It has no clock, lock or goroutine; one caller at a time. What
// waits too long is taken out by Leave.
//
// Invariants: between calls nobody waits while a slot is free, where the caller
// keeps Grant's rule; waiting never exceeds the limit.
type Gate struct {
	limit   int // waiting places
	slots   int
	busy    int // may exceed slots after these became fewer
	waiting int
	head    *Place
	tail    *Place
}

// Place is a place in a queue. The zero value is ready for use; Owner is the
// caller's own.
type Place struct {
	Owner      any
	prev, next *Place
	queued     bool
}

// Verdict is a gate's answer to an arrival.
type Verdict uint8

// The verdicts.
const (
	Granted Verdict = iota // a slot is the caller's until Depart
	Queued                 // Grant will name it, unless Leave comes first
	Full                   // no slot and no place
)

// NewGate makes a gate without slots, before which at most limit may wait.
func NewGate(limit int) Gate { return Gate{limit: limit} }

// Slots is how many may be in flight.
func (g *Gate) Slots() int { return g.slots }

// Busy is how many are.
func (g *Gate) Busy() int { return g.busy }

// Waiting is how many wait.
func (g *Gate) Waiting() int { return g.waiting }

// Arrive asks for a slot.
func (g *Gate) Arrive(p *Place) Verdict {
	if g.busy < g.slots && g.waiting == 0 {
		g.busy++
		return Granted
	}
	if g.waiting >= g.limit {
		return Full
	}
	g.push(p)
	return Queued
}

// Depart gives a slot back.
func (g *Gate) Depart() { g.busy-- }

// Resize changes how many may be in flight.
func (g *Gate) Resize(slots int) { g.slots = slots }

// Grant gives a free slot to the first in the queue, if there are both; else it
// returns nil. To be called after Depart and Resize until it does.
func (g *Gate) Grant() *Place {
	p := g.head
	if p == nil || g.busy >= g.slots {
		return nil
	}
	g.unlink(p)
	g.busy++
	return p
}

// Leave gives up a place. False means that it was granted a slot already.
func (g *Gate) Leave(p *Place) bool {
	if !p.queued {
		return false
	}
	g.unlink(p)
	return true
}

func (g *Gate) push(p *Place) {
	p.prev, p.next, p.queued = g.tail, nil, true
	if g.tail == nil {
		g.head = p
	} else {
		g.tail.next = p
	}
	g.tail = p
	g.waiting++
}

func (g *Gate) unlink(p *Place) {
	if p.prev == nil {
		g.head = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		g.tail = p.prev
	} else {
		p.next.prev = p.prev
	}
	p.prev, p.next, p.queued = nil, nil, false
	g.waiting--
}
