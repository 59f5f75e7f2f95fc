package sim

import (
	"math"
	"math/bits"
	"slices"
	"time"
)

// Few is the most requests of which the optimum is searched.
const Few = 8

// Optimum is the best that any rule could do on d with few requests of one row, knowing all
// of them: the least missed, and with that the least sum of latencies of those that are
// answered. Every order of every grouping is tried, for runs that take exactly d.Time.
func Optimum(d Device, arrivals []Arrival) Result {
	s := search{device: d, arrivals: arrivals, missed: len(arrivals) + 1}
	var free [Few]time.Duration
	for i := max(d.Slots, 1); i < len(free); i++ {
		free[i] = math.MaxInt64 // no slot
	}
	s.try(state{free: free})
	r := Result{Requests: len(arrivals), Missed: s.missed, Runs: s.best.runs, played: s.best.rows}
	for i := range arrivals {
		if took := s.best.took[i]; took > 0 {
			r.Latencies = append(r.Latencies, took)
		}
	}
	slices.Sort(r.Latencies)
	r.summarise(len(r.Latencies), s.best.last)
	return r
}

type search struct {
	device   Device
	arrivals []Arrival
	missed   int
	best     state
}

// state is a schedule so far. Its runs are in the order in which they start, so that each
// takes the slot that is free first.
type state struct {
	done       uint               // requests that ran, a bit each
	free       [Few]time.Duration // when, by slot
	took       [Few]time.Duration // latencies, of those that are not missed
	sum        time.Duration
	last       time.Duration // end of a run
	late       int
	runs, rows int
}

// worse reports whether a schedule with so many missed is no better than the best.
func (s *search) worse(missed int, sum time.Duration) bool {
	return missed > s.missed || missed == s.missed && sum >= s.best.sum
}

// try completes a schedule.
func (s *search) try(at state) {
	if s.worse(at.late, at.sum) {
		return
	}
	rest := (uint(1)<<len(s.arrivals) - 1) &^ at.done
	if missed := at.late + bits.OnesCount(rest); !s.worse(missed, at.sum) { // what is left may be given up
		s.missed, s.best = missed, at
	}
	for group := rest; group > 0; group = (group - 1) & rest {
		if bits.OnesCount(group) <= s.device.Limit {
			s.try(s.run(at, group))
		}
	}
}

// run adds a run of group to a schedule.
func (s *search) run(at state, group uint) state {
	slot, n := 0, bits.OnesCount(group)
	for i := range at.free {
		if at.free[i] < at.free[slot] {
			slot = i
		}
	}
	start := at.free[slot]
	for i, a := range s.arrivals {
		if group>>i&1 == 1 {
			start = max(start, a.At)
		}
	}
	end := start + s.device.Time(n)
	for i, a := range s.arrivals {
		switch {
		case group>>i&1 == 0:
		case a.Deadline > 0 && end > a.At+a.Deadline:
			at.late++
		default:
			at.took[i] = end - a.At
			at.sum += end - a.At
		}
	}
	at.done |= group
	at.free[slot] = end
	at.last = max(at.last, end)
	at.runs++
	at.rows += n
	return at
}
