package gateway

import (
	"slices"
	"sync"

	"sluice.dev/gateway/admit"
	"sluice.dev/gateway/balance"
	"sluice.dev/scorer"
)

// Key names a version of an endpoint.
type Key struct{ Endpoint, Version string }

// Pool is the replicas of one version and the queue before them. It outlives
// snapshots. Safe for concurrent use.
//
// A slot belongs to a replica, but who waits does not wait for a certain one:
// the queue is one for all, and a slot is bound to a replica when it is granted.
type Pool struct {
	mu         sync.Mutex
	gate       admit.Gate
	replicas   []*Replica
	former     []*Replica     // that left, and may have requests in flight
	loads      []balance.Load // scratch, one per replica
	perReplica int            // slots; 0 leaves it to the replica's window
	turn       int
	lost       scorer.Instant // when the last ready replica left; 0 while there is one
	unsettled  bool           // windows change with time
	budget     balance.Budget // for work that is sent again

	// Counted since the pool was made.
	ejections, retries uint64
	sheds              [sheds]uint64
}

// Replica is one scorer that serves a version.
type Replica struct {
	scorer scorer.Scorer
	offer  scorer.Offer
	health balance.Health
	window int // slots that it has now
	busy   int
	gone   bool
}

func newPool(limit int) *Pool {
	return &Pool{gate: admit.NewGate(limit), lost: 1, budget: balance.NewBudget(leastBurst)}
}

// Pool is the pool of a version, made when it is first asked for.
func (p *Path) Pool(k Key) *Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pools[k] == nil {
		p.pools[k] = newPool(p.config.MaxQueue)
	}
	return p.pools[k]
}

// SetLimit sets how many requests each replica may have at a time; 0 leaves it
// to the window that the replica offers.
func (p *Pool) SetLimit(perReplica int) {
	p.mu.Lock()
	p.perReplica = perReplica
	p.resize()
	p.mu.Unlock()
}

// Offered is a replica that is to serve a version.
type Offered struct {
	Scorer scorer.Scorer
	Offer  scorer.Offer
}

// SetReplicas makes the given scorers the pool's replicas. Those that were there
// before and stay keep what they have in flight; those that left finish it. One
// that comes to others takes more and more.
func (p *Pool) SetReplicas(offered []Offered) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := make([]*Replica, 0, len(offered))
	for _, o := range offered {
		r := p.find(o.Scorer)
		if r == nil {
			r = &Replica{scorer: o.Scorer}
			if p.lost == 0 {
				r.health.Recover(scorer.Now())
			}
		}
		r.offer = o.Offer
		next = append(next, r)
	}
	p.former = append(p.former, p.replicas...)
	for _, r := range p.former {
		r.gone = true
	}
	for _, r := range next {
		r.gone = false
	}
	p.former = slices.DeleteFunc(p.former, func(r *Replica) bool { return !r.gone || r.busy == 0 })
	p.replicas = next
	p.resize()
}

func (p *Pool) find(s scorer.Scorer) *Replica {
	for _, list := range [][]*Replica{p.replicas, p.former} {
		for _, r := range list {
			if r.scorer == s {
				return r
			}
		}
	}
	return nil
}

// Ready reports whether a replica is there.
func (p *Pool) Ready() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost == 0
}

// Offer is what a replica said of the version; false if there is none.
func (p *Pool) Offer() (scorer.Offer, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.replicas {
		if !r.gone {
			return r.offer, true
		}
	}
	return scorer.Offer{}, false
}

// Load is how many slots there are, how many are busy, and how many requests wait.
func (p *Pool) Load() (slots, busy, waiting int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gate.Slots(), p.gate.Busy(), p.gate.Waiting()
}

// offered is how many requests r wants at a time; 0 if it is not ready.
func (p *Pool) offered(r *Replica) int {
	switch {
	case r.gone || r.offer.Window == 0:
		return 0
	case p.perReplica > 0:
		return p.perReplica
	}
	return r.offer.Window
}

// resize counts the slots anew and grants what became free. Holding mu.
//
// A request that is in flight at a replica that left keeps its slot until it
// ends, beside those of the replicas that are there.
func (p *Pool) resize() {
	now := scorer.Now()
	slots, ready, in := p.gate.Busy(), 0, 0
	p.unsettled = false
	for _, r := range p.replicas {
		p.unsettled = r.health.Settle(now) || p.unsettled
		if p.offered(r) > 0 {
			ready++
			if !r.health.Out() {
				in++
			}
		}
	}
	for _, r := range p.replicas {
		if r.window = p.offered(r); in > 0 { // else those that fail are better than none
			r.window = r.health.Window(r.window, now)
		}
		slots += max(r.window-r.busy, 0)
	}
	p.gate.Resize(slots)
	p.budget.Burst(max(slots, leastBurst))
	switch {
	case ready > 0:
		p.lost = 0
	case p.lost == 0:
		p.lost = now
		p.gate.Forget() // who comes back may be faster
	}
	p.admit()
}

// pick binds a slot to a replica. Holding mu, with a slot granted.
func (p *Pool) pick() *Replica {
	if len(p.replicas) == 1 {
		p.replicas[0].busy++
		return p.replicas[0]
	}
	p.loads = p.loads[:0]
	for _, r := range p.replicas {
		p.loads = append(p.loads, balance.Load{Window: r.window, Busy: r.busy})
	}
	p.turn++
	r := p.replicas[max(balance.Pick(p.loads, p.turn), 0)]
	r.busy++
	return r
}
