package main

import (
	"context"
	"fmt"
	"math"

	"sluice.dev/bench"
	"sluice.dev/bench/pace"
)

// search looks for the highest rate that keeps to the limits: between the highest that
// did, which is found.Most, and the lowest that did not.
type search struct {
	first float64 // the rate that is tried first
	high  float64 // 0: none has failed
	again bool    // the last rate is to be tried once more
	found bench.Search
}

const (
	narrow = 1.02 // the span is known well enough
	least  = 1e-3 // of the first rate, below which nothing is tried
)

// next is the rate to try, false where there is none any more.
func (s *search) next() (rate float64, more bool) {
	switch low := s.found.Most; {
	case low == 0 && s.high == 0:
		return s.first, s.first > 0
	case s.high == 0:
		return 2 * low, true
	case low == 0:
		return s.high / 2, s.high > 2*least*s.first
	default:
		return math.Sqrt(low * s.high), s.high > narrow*low
	}
}

// note takes in what came of a rate. What failed by the generator says nothing of the
// target, and is tried once more.
func (s *search) note(p bench.Probe) {
	s.found.Probes = append(s.found.Probes, p)
	again := p.Client && !s.again
	switch {
	case p.Limit == "":
		s.found.Most = p.Rate
	case !again:
		s.high, s.found.Limit, s.found.Client = p.Rate, p.Limit, p.Client
	}
	s.again = again
}

// most finds the highest rate at which a target keeps to the limits. The figures are
// those at that rate; where there is none, of a closed loop; and where an answer was
// wrong, those of when it was. An error comes with the figures so far, if there are some.
func (o *benchOptions) most(ctx context.Context, t *benchTarget, round int) (*bench.Result, error) {
	closed := o.plan
	closed.InFlight = closed.Connections
	best, err := o.ask(ctx, t, closed, round)
	if err != nil {
		return nil, err
	}
	s := &search{first: best.Rate, found: bench.Search{Limit: "a closed loop had wrong answers, or none"}}
	defer func() { best.Search = &s.found }()
	for rate, more := s.next(); more && best.Failed[bench.WrongAnswer] == 0; rate, more = s.next() {
		res, err := o.ask(ctx, t, o.at(rate, round), round)
		if err != nil {
			s.found.Limit, s.found.Client = "it was not looked for to the end", false
			return best, err
		}
		p := o.judge(rate, res)
		s.note(p)
		if p.Limit == "" || res.Failed[bench.WrongAnswer] > 0 {
			best = res
		}
	}
	return best, nil
}

// judge tells whether a target keeps to the limits at a rate. Where the generator does
// not do its part, only wrong answers say something of the target.
func (o *benchOptions) judge(rate float64, res *bench.Result) bench.Probe {
	p := bench.Probe{Rate: rate, P99: res.Latency.At(99)}
	list := res.Problems(o.limits)
	if p.P99 > o.p99 {
		list = append(list, fmt.Sprintf("the 99th percentile is %v, above %v", p.P99, o.p99))
	}
	if blame := res.Blame(o.limits); len(blame) > 0 && res.Failed[bench.WrongAnswer] == 0 {
		list, p.Client = blame, true
	}
	if len(list) > 0 {
		p.Limit = fmt.Sprintf("at %.1f requests/s, %s", rate, list[0])
	}
	return p
}

// at is the plan with Poisson arrivals at a rate.
func (o *benchOptions) at(rate float64, round int) bench.Plan {
	plan := o.plan
	plan.Arrivals = func() bench.Schedule {
		return pace.Poisson(pace.Flat(rate, plan.WarmUp+plan.Duration), uint64(round))
	}
	return plan
}
