package gateway

import (
	"sync"
	"time"

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
	loads      []balance.Load // scratch, one per replica
	perReplica int            // slots; 0 leaves it to the replica's window
	turn       int
	lost       scorer.Instant // when the last ready replica left; 0 while there is one
}

// Replica is one scorer that serves a version.
type Replica struct {
	scorer scorer.Scorer
	offer  scorer.Offer
	busy   int
	gone   bool
}

func newPool(limit int) *Pool { return &Pool{gate: admit.NewGate(limit), lost: 1} }

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
// before and stay keep what they have in flight; those that left finish it.
func (p *Pool) SetReplicas(offered []Offered) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := make([]*Replica, 0, len(offered))
	for _, o := range offered {
		r := p.find(o.Scorer)
		if r == nil {
			r = &Replica{scorer: o.Scorer}
		}
		r.offer = o.Offer
		next = append(next, r)
	}
	for _, r := range p.replicas {
		r.gone = true
	}
	for _, r := range next {
		r.gone = false
	}
	p.replicas = next
	p.resize()
}

func (p *Pool) find(s scorer.Scorer) *Replica {
	for _, r := range p.replicas {
		if r.scorer == s {
			return r
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

// load is what the choice of a replica is made on.
func (p *Pool) load(r *Replica) balance.Load {
	switch {
	case r.gone || r.offer.Window == 0:
		return balance.Load{Busy: r.busy}
	case p.perReplica > 0:
		return balance.Load{Window: p.perReplica, Busy: r.busy}
	}
	return balance.Load{Window: r.offer.Window, Busy: r.busy}
}

// resize counts the slots anew and grants what became free. Holding mu.
//
// A request that is in flight at a replica that left keeps its slot until it
// ends, beside those of the replicas that are there.
func (p *Pool) resize() {
	slots, ready := p.gate.Busy(), false
	for _, r := range p.replicas {
		if l := p.load(r); l.Window > 0 {
			slots += l.Free()
			ready = true
		}
	}
	p.gate.Resize(slots)
	switch {
	case ready:
		p.lost = 0
	case p.lost == 0:
		p.lost = scorer.Now()
	}
	p.admit()
}

// admit binds the slots that are free to replicas and wakes whom they were
// granted to. Holding mu.
func (p *Pool) admit() {
	for place := p.gate.Grant(); place != nil; place = p.gate.Grant() {
		c := place.Owner.(*Call)
		if !c.wait.Claim(c.ticket) {
			p.gate.Depart() // abandoned meanwhile: the next one
			continue
		}
		c.replica = p.pick()
		c.wait.Finish(c.ticket)
	}
}

// acquire waits for a slot, at most for limit and as long as the client allows. The slot
// is the caller's until release.
func (p *Pool) acquire(c *Call, limit time.Duration) (*Replica, scorer.Status) {
	p.mu.Lock()
	verdict := p.gate.Arrive(&c.place)
	switch verdict {
	case admit.Granted:
		r := p.pick()
		p.mu.Unlock()
		return r, scorer.OK
	case admit.Full:
		p.mu.Unlock()
		return nil, scorer.Overloaded
	}
	if p.lost != 0 && scorer.Now().Sub(p.lost) > limit {
		// Nobody has come back for longer than anybody may wait.
		p.gate.Leave(&c.place)
		p.mu.Unlock()
		return nil, scorer.Unavailable
	}
	until := c.deadline(limit)
	c.wait.expires.Store(int64(until))
	c.ticket = c.wait.Arm()
	p.mu.Unlock()

	granted := c.wait.Wait()
	c.wait.expires.Store(0)
	now := scorer.Now()
	c.waited = now.Sub(c.start)
	if granted {
		return c.replica, scorer.OK
	}
	return nil, p.leave(c, until, now)
}

// leave takes an abandoned call out of the queue and says why it was abandoned.
func (p *Pool) leave(c *Call, until, now scorer.Instant) scorer.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate.Leave(&c.place)
	switch {
	case now < until:
		return scorer.Canceled
	case c.Timeout > 0 && now >= c.start.Add(c.Timeout):
		return scorer.DeadlineExceeded
	case p.lost != 0:
		return scorer.Unavailable
	}
	return scorer.Overloaded
}

// release gives a slot back. gone says that the replica refused because it is
// leaving: it is not used again until it is offered anew.
func (p *Pool) release(r *Replica, gone bool) {
	p.mu.Lock()
	r.busy--
	r.gone = r.gone || gone
	p.gate.Depart()
	if r.gone {
		p.resize()
	} else {
		p.admit()
	}
	p.mu.Unlock()
}

// pick binds a slot to a replica. Holding mu, with a slot granted.
func (p *Pool) pick() *Replica {
	if len(p.replicas) == 1 {
		p.replicas[0].busy++
		return p.replicas[0]
	}
	p.loads = p.loads[:0]
	for _, r := range p.replicas {
		p.loads = append(p.loads, p.load(r))
	}
	p.turn++
	r := p.replicas[max(balance.Pick(p.loads, p.turn), 0)]
	r.busy++
	return r
}
