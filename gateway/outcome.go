package gateway

import (
	"sluice.dev/gateway/balance"
	"sluice.dev/scorer"
)

// leastBurst is how many requests may be sent again at once, however few slots
// there are.
const leastBurst = 10

// outcome is what an answer says of the replica that gave it.
type outcome uint8

const (
	untold  outcome = iota // nothing: the client left, or its own deadline passed
	good                   // it works, whatever it said of the request
	bad                    // it does not
	leaving                // it refused, without having begun
)

// outcome judges the answer that c has.
func (c *Call) outcome(own scorer.Instant) outcome {
	switch r := &c.Response; r.Status {
	case scorer.OK:
		return good
	case scorer.Canceled:
		return untold
	case scorer.Unavailable:
		if r.NotStarted {
			return leaving
		}
		return bad
	case scorer.ModelFailed, scorer.Internal:
		return bad
	case scorer.DeadlineExceeded:
		if c.request.Deadline < own || scorer.Now() < own {
			return untold // the client was in a hurry, as it may have said in the body
		}
		return bad
	}
	return good
}

// release gives a slot back, and reports whether the request may be sent again: it
// never began, it has a try left, and not too many are.
func (p *Pool) release(r *Replica, o outcome, tries int) (again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.busy--
	p.gate.Depart()
	changed := p.judge(r, o) || p.unsettled || r.busy >= r.window // which was larger
	if o == leaving {
		r.gone = true // until it is offered anew
		again = tries > 0 && p.budget.Spend()
	} else {
		p.budget.Earn()
	}
	if again {
		p.retries++
	}
	if r.gone || changed {
		p.resize()
	} else {
		p.admit()
	}
	return again
}

// judge takes an answer of r into account, and reports whether that changes its
// window. Holding mu.
func (p *Pool) judge(r *Replica, o outcome) bool {
	if o == untold || o == good && r.health.Spotless() {
		return false
	}
	switch r.health.Record(o == good) {
	case balance.Back:
		r.health.Recover(scorer.Now())
		return true
	case balance.Failing:
		if p.outlier(r) {
			r.health.Eject(scorer.Now())
			p.ejections++
			return true
		}
	}
	return false
}

// outlier reports whether r fails while the others do not, and they are enough
// to do without it. Holding mu.
func (p *Pool) outlier(r *Replica) bool {
	ready, out, others := 0, 1, 0.0
	for _, o := range p.replicas {
		if p.offered(o) == 0 {
			continue
		}
		ready++
		switch {
		case o == r:
		case o.health.Out():
			out++
		default:
			others += o.health.Rate()
		}
	}
	in := ready - out
	return out <= balance.Floor(ready) && balance.Outlier(r.health.Rate(), others/float64(max(in, 1)))
}
