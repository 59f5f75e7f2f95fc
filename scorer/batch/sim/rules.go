package sim

import (
	"time"

	"sluice.dev/scorer"
	"sluice.dev/scorer/batch"
)

// Clipper is the rule of the system of that name: the size of batches grows by one
// row while runs are within the objective, and shrinks by a tenth when one is not.
//
// D. Crankshaw et al., Clipper: a low-latency online prediction serving system, 2017.
type Clipper struct {
	Objective time.Duration // of a run
	size      float64
	queue     []*batch.Job
}

// Add implements Rule.
func (c *Clipper) Add(j *batch.Job, _ scorer.Instant) { c.queue = append(c.queue, j) }

// Form implements Rule.
func (c *Clipper) Form(_ scorer.Instant, _ int, _ bool, p *batch.Plan) {
	p.Run, p.Late, p.Wait = p.Run[:0], p.Late[:0], 0
	n := min(max(int(c.size), 1), len(c.queue))
	for _, j := range c.queue[:n] {
		p.Run = append(p.Run, batch.Segment{Job: j, Rows: j.Rows})
	}
	c.queue = c.queue[n:]
}

// Ran implements Rule.
func (c *Clipper) Ran(p *batch.Plan, _ int, took time.Duration, _ scorer.Instant) {
	switch {
	case took > c.Objective:
		c.size = max(c.size*0.9, 1)
	case len(p.Run) >= int(c.size):
		c.size++
	}
}

// Optimum is the best that any rule could do with few requests of one row on one
// slot, knowing all of them: the least missed, and with that the least sum of latencies
// of those that are answered. Every order of every grouping is tried.
func Optimum(time func(rows int) time.Duration, arrivals []Arrival) (missed int, sum time.Duration) {
	s := search{time: time, arrivals: arrivals, missed: len(arrivals) + 1}
	s.try(0, 0, 0, 0)
	return s.missed, s.sum
}

type search struct {
	time     func(int) time.Duration
	arrivals []Arrival
	missed   int
	sum      time.Duration
}

// try completes a schedule in which the requests in done ran until free.
func (s *search) try(done uint, free time.Duration, missed int, sum time.Duration) {
	if missed > s.missed || missed == s.missed && sum >= s.sum {
		return
	}
	all := uint(1)<<len(s.arrivals) - 1
	if done == all {
		s.missed, s.sum = missed, sum
		return
	}
	rest := all &^ done
	for group := rest; group > 0; group = (group - 1) & rest {
		start, n := free, 0
		for i, a := range s.arrivals {
			if group>>i&1 == 1 {
				start, n = max(start, a.At), n+1
			}
		}
		end, late, spent := start+s.time(n), 0, sum
		for i, a := range s.arrivals {
			if group>>i&1 == 0 {
				continue
			}
			if a.Deadline > 0 && end > a.At+a.Deadline {
				late++
			} else {
				spent += end - a.At
			}
		}
		s.try(done|group, end, missed+late, spent)
	}
	// What is left may be given up.
	left := 0
	for i := range s.arrivals {
		left += int(rest >> i & 1)
	}
	if m := missed + left; m < s.missed || m == s.missed && sum < s.sum {
		s.missed, s.sum = m, sum
	}
}
