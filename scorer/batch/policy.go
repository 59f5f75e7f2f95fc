package batch

import (
	"slices"
	"time"
)

// Policy is what people who come from Triton set instead of leaving it to be
// learnt; the names are those of its dynamic batcher. The zero value sets nothing.
type Policy struct {
	// Delay is how long the oldest request may wait for others; 0 takes what waits.
	// With it or Preferred set, batches are formed by Triton's rule, not by what
	// was learnt.
	Delay time.Duration
	// Preferred are sizes in rows at which a batch is cut at once, smallest first.
	Preferred []int
	// Fixed has batches formed by Triton's rule though neither of the two is set.
	Fixed bool

	// Levels is how many priorities there are, 1 the highest; 0 is one. A request
	// without a priority has DefaultLevel, or the middle one where that is 0. It
	// goes before lower ones, unless they have waited a second longer per level.
	Levels, DefaultLevel int

	// Timeout is the longest wait for a device where the request sets none of its
	// own; 0 is none. Where Override is set a request may set a shorter or longer one.
	Timeout  time.Duration
	Override bool
	// Demote has a request that waited longer run after all others; else it is refused.
	Demote bool
	// MaxWaiting is the most requests that wait; 0 does not bound them. Further ones
	// are refused.
	MaxWaiting int

	// Resources are what a run takes of its device's while it lasts. There is as much of
	// each as any model takes.
	Resources []Resource
	// Weight is the model's share of a device that is fully used, against other
	// models; 0 is 1. Triton's rate limiter priority p is a weight of 1/p.
	Weight float64

	// Pad names the inputs whose inner dimensions may be filled up, and with what
	// value, so that requests of different shapes run together where that pays.
	// Every input with a free inner dimension must be named.
	Pad map[string]float64
}

// Resource is something of which a device has so many.
type Resource struct {
	Name  string
	Count int
}

// fixed reports whether batches are formed by Triton's rule.
func (p *Policy) fixed() bool { return p.Fixed || p.Delay > 0 || len(p.Preferred) > 0 }

// level is how many levels below the highest a priority is.
func (p *Policy) level(priority uint32) int {
	if p.Levels < 2 {
		return 0
	}
	if priority == 0 {
		if p.DefaultLevel > 0 {
			return min(p.DefaultLevel, p.Levels) - 1
		}
		return (p.Levels+1)/2 - 1
	}
	return int(min(priority, uint32(p.Levels))) - 1
}

// cut is how many of rows waiting rows Triton's rule takes at once, at most limit;
// 0 waits. A preferred size that can be had is taken, the largest that fits.
func (p *Policy) cut(rows, limit int, over bool) int {
	largest := limit
	if len(p.Preferred) > 0 {
		largest = min(slices.Max(p.Preferred), limit)
	}
	if rows >= largest && len(p.Preferred) == 0 {
		return limit
	}
	best := 0
	for _, s := range p.Preferred {
		if s <= rows && s <= limit {
			best = max(best, s)
		}
	}
	switch {
	case best > 0 && !over:
		return best
	case rows >= largest || over || p.Delay == 0:
		return limit
	}
	return 0
}
