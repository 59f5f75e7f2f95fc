package gateway

import (
	"time"

	"sluice.dev/gateway/admit"
	"sluice.dev/router"
	"sluice.dev/scorer"
)

// acquire waits for a slot, at most for limit and as long as the client allows. The slot
// is the caller's until release.
func (p *Pool) acquire(c *Call, limit time.Duration) (*Replica, scorer.Status) {
	p.mu.Lock()
	entered, standIn := p.gate.Enter(), false
	if !entered && p.lost != 0 {
		p.mu.Unlock()
		standIn = c.standIn() // which locks another pool
		p.mu.Lock()
		entered = p.gate.Enter()
	}
	if entered {
		r := p.pick()
		p.mu.Unlock()
		return r, scorer.OK
	}
	until, status := p.queue(c, limit, standIn)
	p.mu.Unlock()
	if status != scorer.OK {
		return nil, status
	}
	granted := c.wait.Wait()
	c.wait.expires.Store(0)
	now := scorer.Now()
	c.waited = now.Sub(c.start)
	switch {
	case !granted:
		return nil, p.leave(c, until, now)
	case c.replica == nil:
		return nil, scorer.Overloaded
	}
	return c.replica, scorer.OK
}

// queue gives c a place that it keeps until then, and arms its wait, unless nobody is
// there but who stands in. A status other than OK: it has none, and is refused. Holding mu.
func (p *Pool) queue(c *Call, limit time.Duration, standIn bool) (until scorer.Instant, s scorer.Status) {
	now := scorer.Now()
	if p.unsettled {
		p.resize()
	}
	if p.lost != 0 && (now.Sub(p.lost) > limit || standIn) {
		return 0, scorer.Unavailable // nobody has come back for longer than anybody may wait, or there is who does it
	}
	until = c.deadline(limit)
	place := &c.place
	place.Class, place.Caller, place.Deadline = c.Class, c.caller(), until
	v, out, wait := p.gate.Queue(place, now)
	switch {
	case v == admit.Full:
		return 0, p.shed(c, shedFull, scorer.Overloaded)
	case v == admit.Late:
		return 0, p.late(c, wait, limit)
	case out != nil:
		p.displace(out)
	}
	c.wait.expires.Store(int64(until))
	c.ticket = c.wait.Arm()
	return until, scorer.OK
}

// standIn reports whether another version would serve c in place of its own.
func (c *Call) standIn() bool {
	e := c.Endpoint
	return e != nil && e.Fallback != nil && e.Fallback != c.Version && c.Reason != router.Pinned && e.Fallback.Pool.Ready()
}

// late refuses a call that would wait for longer than it may. Holding mu.
func (p *Pool) late(c *Call, wait, limit time.Duration) scorer.Status {
	c.estimate = wait
	if c.Timeout > 0 && c.Timeout < limit {
		return p.shed(c, shedLate, scorer.DeadlineExceeded)
	}
	c.RetryIn = max(wait-limit, time.Second)
	return p.shed(c, shedLate, scorer.Overloaded)
}

// shed counts a call that gets no slot. Holding mu.
func (p *Pool) shed(c *Call, why shed, s scorer.Status) scorer.Status {
	c.shed = why
	p.sheds[why]++
	return s
}

// displace ends the wait of whoever lost a place. Holding mu.
func (p *Pool) displace(place *admit.Place) {
	c := place.Owner.(*Call)
	if c.wait.Claim(c.ticket) {
		c.replica = nil
		p.shed(c, shedDisplaced, scorer.Overloaded)
		c.wait.Finish(c.ticket)
	}
}

// admit binds the slots that are free to replicas and wakes whom they were
// granted to. Holding mu.
func (p *Pool) admit() {
	if !p.gate.Grantable() {
		return
	}
	now := scorer.Now()
	for place := p.gate.Grant(now); place != nil; place = p.gate.Grant(now) {
		c := place.Owner.(*Call)
		if !c.wait.Claim(c.ticket) {
			p.gate.Depart() // abandoned meanwhile: the next one
			continue
		}
		c.replica = p.pick()
		c.wait.Finish(c.ticket)
	}
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
		return p.shed(c, shedExpired, scorer.DeadlineExceeded)
	case p.lost != 0:
		return scorer.Unavailable
	}
	return p.shed(c, shedExpired, scorer.Overloaded)
}

// shed says why a call got no slot.
type shed uint8

const (
	shedNot       shed = iota
	shedFull           // the queue was full
	shedLate           // it would have had to wait for too long
	shedDisplaced      // somebody else needed the place more
	shedExpired        // it waited for too long
	sheds              // count
)

// String is the reason's name in metrics.
func (s shed) String() string {
	return [...]string{"", "queue_full", "too_late", "displaced", "expired"}[s]
}
