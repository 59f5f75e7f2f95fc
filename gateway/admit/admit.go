// Package admit decides who may be in flight, and in which order the others wait
// for it.
package admit

import (
	"container/heap"
	"time"

	"sluice.dev/scorer"
)

// Class is how much a request matters. Where not all can be served, those of lower
// classes wait longer, and are refused first.
type Class uint8

// The classes, from the lowest.
const (
	Copy Class = iota // of a mirror: nobody waits for it
	Low
	Normal
	High
	Classes // count
)

// String is the class's name in headers and metrics.
func (c Class) String() string { return [...]string{"copy", "low", "normal", "high"}[c] }

// Gate is the slots of one version and the bounded queue before them. It has no
// clock, lock or goroutine; one caller at a time.
//
// A free slot goes to the highest class that waits; within it to the callers in
// turn, so that nobody's burst delays the others; of one caller to the place with
// the earliest deadline. A full queue makes room for an arrival of a higher class,
// or of a caller who has fewer places than another: that one's latest deadline of
// the lowest class goes. So nobody can take the whole queue.
//
// Invariants: between calls nobody waits while a slot is free, where the caller
// keeps Grant's rule; waiting never exceeds the limit.
type Gate struct {
	limit   int // waiting places
	slots   int
	busy    int // may exceed slots after these became fewer
	waiting int
	classes [Classes]class
	drain   drain
	last    uint64 // number of the last place that was queued
}

// Place is a place in a queue. The exported fields are the caller's own, and stay
// as they are while it waits.
type Place struct {
	Owner    any
	Class    Class
	Caller   string         // whose it is; one who is not named is one of many
	Deadline scorer.Instant // it is of no use later

	number uint64
	flow   *flow // where it waits; nil if it does not
	index  int   // in the flow
}

// Verdict is a gate's answer to who wants to wait.
type Verdict uint8

// The verdicts.
const (
	Queued Verdict = iota // Grant will name it, unless Leave comes first
	Full                  // there is no room, and nobody to make some
	Late                  // its turn would come after its deadline
)

// NewGate makes a gate without slots, before which at most limit may wait.
func NewGate(limit int) Gate { return Gate{limit: limit} }

// Slots is how many may be in flight.
func (g *Gate) Slots() int { return g.slots }

// Busy is how many are.
func (g *Gate) Busy() int { return g.busy }

// Waiting is how many wait.
func (g *Gate) Waiting() int { return g.waiting }

// Enter takes a slot if one is free and nobody waits. It is the caller's until
// Depart.
func (g *Gate) Enter() bool {
	if g.busy >= g.slots || g.waiting > 0 {
		return false
	}
	g.busy++
	return true
}

// Queue takes a place for who could not Enter. Where it made room for p, out lost
// its place. wait is how long it will take until p's turn, as far as that is known.
func (g *Gate) Queue(p *Place, now scorer.Instant) (v Verdict, out *Place, wait time.Duration) {
	wait = g.wait(p, now)
	if now.Add(wait+wait/margin) > p.Deadline {
		return Late, nil, wait
	}
	if g.waiting >= g.limit {
		if out = g.victim(p); out == nil {
			return Full, nil, wait
		}
		g.unlink(out)
	}
	g.push(p, now)
	return Queued, out, wait
}

// margin is by what part an estimated wait may turn out longer.
const margin = 8

// Depart gives a slot back.
func (g *Gate) Depart() { g.busy-- }

// Resize changes how many may be in flight.
func (g *Gate) Resize(slots int) { g.slots = slots }

// Forget drops what was measured of how fast the queue moves.
func (g *Gate) Forget() { g.drain = drain{since: g.drain.since} }

// Grantable reports whether Grant would name somebody.
func (g *Gate) Grantable() bool { return g.waiting > 0 && g.busy < g.slots }

// Grant gives a free slot to whose turn it is, if there are both; else it returns
// nil. To be called after Depart and Resize until it does.
func (g *Gate) Grant(now scorer.Instant) *Place {
	if !g.Grantable() {
		return nil
	}
	c := &g.classes[Classes-1]
	for i := Classes - 1; c.waiting == 0; {
		i--
		c = &g.classes[i]
	}
	p := c.head.places[0]
	c.turn()
	g.drain.grant(now)
	g.unlink(p)
	g.busy++
	return p
}

// Leave gives up a place. False means that it is not waiting: it was granted a
// slot, or lost its place, or never had one.
func (g *Gate) Leave(p *Place) bool {
	if p.flow == nil {
		return false
	}
	g.unlink(p)
	return true
}

// wait is how long those who go before p will take, as fast as the queue moves
// now; 0 where that is not known yet, and for whoever is next.
func (g *Gate) wait(p *Place, now scorer.Instant) time.Duration {
	gap := g.drain.estimate(now)
	if all := time.Duration(g.waiting) * gap; now.Add(all+all/margin) <= p.Deadline {
		return all // in time, even if everybody goes first
	}
	return time.Duration(g.ahead(p)) * gap
}

// ahead is how many go before p: all of higher classes, of its caller those with
// earlier deadlines, and of each other one as many as come in turn meanwhile.
func (g *Gate) ahead(p *Place) (n int) {
	for i := p.Class + 1; i < Classes; i++ {
		n += g.classes[i].waiting
	}
	c, own := &g.classes[p.Class], 0
	mine := c.flows[p.Caller]
	if mine != nil {
		for _, other := range mine.places {
			if other.Deadline <= p.Deadline {
				own++
			}
		}
	}
	for f := c.head; f != nil; f = f.next {
		if f != mine {
			n += min(len(f.places), own+1)
		}
	}
	return n + own
}

// victim is the place that p may take from another; nil if there is none.
func (g *Gate) victim(p *Place) *Place {
	for i := range p.Class + 1 {
		c := &g.classes[i]
		if c.waiting == 0 {
			continue
		}
		longest := c.longest()
		if i < p.Class || len(longest.places) > c.places(p.Caller)+1 {
			return longest.latest()
		}
		return nil
	}
	return nil
}

func (g *Gate) push(p *Place, now scorer.Instant) {
	g.drain.begin(now)
	g.last++
	p.number = g.last
	c := &g.classes[p.Class]
	p.flow = c.flow(p.Caller)
	heap.Push(p.flow, p)
	c.waiting++
	g.waiting++
}

func (g *Gate) unlink(p *Place) {
	c, f := &g.classes[p.Class], p.flow
	heap.Remove(f, p.index)
	p.flow = nil
	if len(f.places) == 0 {
		c.drop(f)
	}
	c.waiting--
	if g.waiting--; g.waiting == 0 {
		g.drain.end()
	}
}
