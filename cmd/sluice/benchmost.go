package main

import (
	"context"
	"fmt"
	"math"

	"sluice.dev/bench"
	"sluice.dev/bench/pace"
)

// span is where the highest rate is: from the highest that passed to the lowest that
// failed.
type span struct {
	first     float64 // the rate that is tried first
	low, high float64 // 0: none has passed, none has failed
}

const (
	narrow = 1.02 // the span is known well enough
	least  = 1e-3 // of the first rate, below which nothing is tried
)

// next is the rate to try, false where there is none any more.
func (s *span) next() (rate float64, more bool) {
	switch {
	case s.low == 0 && s.high == 0:
		return s.first, s.first > 0
	case s.high == 0:
		return 2 * s.low, true
	case s.low == 0:
		return s.high / 2, s.high > 2*least*s.first
	}
	return math.Sqrt(s.low * s.high), s.high > narrow*s.low
}

func (s *span) note(rate float64, passed bool) {
	if passed {
		s.low = rate
	} else {
		s.high = rate
	}
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
	found := &bench.Search{Limit: "a closed loop had wrong answers, or none"}
	defer func() { best.Search = found }()
	s := span{first: best.Rate}
	for rate, more := s.next(); more && best.Failed[bench.WrongAnswer] == 0; rate, more = s.next() {
		res, err := o.ask(ctx, t, o.at(rate, round), round)
		if err != nil {
			found.Limit, found.Client = "it was not looked for to the end", false
			return best, err
		}
		p := o.judge(rate, res)
		found.Probes = append(found.Probes, p)
		s.note(rate, p.Limit == "")
		if p.Limit == "" {
			found.Most = rate
		} else {
			found.Limit, found.Client = p.Limit, p.Client
		}
		if p.Limit == "" || res.Failed[bench.WrongAnswer] > 0 {
			best = res
		}
	}
	return best, nil
}

// judge tells whether a target keeps to the limits at a rate. Where the generator does
// not, nothing is known of the target.
func (o *benchOptions) judge(rate float64, res *bench.Result) bench.Probe {
	p := bench.Probe{Rate: rate, P99: res.Latency.At(99)}
	blame, problems := res.Blame(o.limits), res.Problems(o.limits)
	p.Client = len(blame) > 0
	if p.P99 > o.p99 {
		problems = append(problems, fmt.Sprintf("the 99th percentile is %v, above %v", p.P99, o.p99))
	}
	if list := append(blame, problems...); len(list) > 0 {
		p.Limit = fmt.Sprintf("at %.4g requests/s, %s", rate, list[0])
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
