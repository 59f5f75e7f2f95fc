package batch

import (
	"fmt"
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
	// without a priority, or with one that there is not, has DefaultLevel, or the middle
	// one where that is 0. It goes before lower ones, unless they have waited a second
	// longer per level.
	Levels, DefaultLevel int

	// Timeout is the longest wait for a device; 0 leaves it to the request's own. With
	// it, a request's own counts only where Override is set, and if it is shorter.
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
	switch {
	case p.Levels < 2:
		return 0
	case priority > 0 && int64(priority) <= int64(p.Levels):
		return int(priority) - 1
	case p.DefaultLevel > 0:
		return min(p.DefaultLevel, p.Levels) - 1
	}
	return (p.Levels+1)/2 - 1
}

// Words says what p sets, a phrase for each.
func (p *Policy) Words() (list []string) {
	add := func(set bool, format string, args ...any) {
		if set {
			list = append(list, fmt.Sprintf(format, args...))
		}
	}
	add(p.fixed(), "batches are formed by Triton's rule, after %v", p.Delay)
	add(len(p.Preferred) > 0, "or at %v rows", p.Preferred)
	add(p.Levels > 1, "%d priorities, %d where a request has none", p.Levels, p.level(0)+1)
	add(p.Timeout > 0 && p.Demote, "who waited for %v goes last", p.Timeout)
	add(p.Timeout > 0 && !p.Demote, "who waited for %v is refused", p.Timeout)
	add(p.Timeout > 0 && p.Override, "or for its own shorter timeout")
	add(p.MaxWaiting > 0, "at most %d requests wait", p.MaxWaiting)
	add(p.Weight > 0, "a share of %.3g of the device", p.Weight)
	for _, r := range p.Resources {
		add(true, "a run takes %d of %s", r.Count, r.Name)
	}
	return list
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
