// Package pace says when requests are due: arrival schedules, pure and the same
// for the same seed.
//
// A schedule never looks at answers. Its times are those from which latency is
// measured, so that a server which stalls is charged for everybody who would have
// come meanwhile (no coordinated omission).
package pace

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Segment is a stretch of time over which the rate goes in a straight line.
type Segment struct {
	From, To float64 // requests per second, not negative
	For      time.Duration
}

// Flat is one segment of one rate.
func Flat(rate float64, d time.Duration) []Segment { return []Segment{{rate, rate, d}} }

// Steps are rates one after the other, each for an equal share of d.
func Steps(rates []float64, d time.Duration) []Segment {
	list := make([]Segment, len(rates))
	for i, r := range rates {
		list[i] = Segment{r, r, d / time.Duration(len(rates))}
	}
	return list
}

// Ramp goes from one rate to another in d.
func Ramp(from, to float64, d time.Duration) []Segment { return []Segment{{from, to, d}} }

// Validate tells what is wrong with a profile.
func Validate(profile []Segment) error {
	if len(profile) == 0 {
		return fmt.Errorf("an arrival profile needs a rate")
	}
	for _, s := range profile {
		if !good(s.From) || !good(s.To) || s.From+s.To == 0 || s.For <= 0 {
			return fmt.Errorf("rate %v to %v for %v: rates must be finite, not negative, and above 0 somewhere, and times above 0", s.From, s.To, s.For)
		}
	}
	return nil
}

func good(rate float64) bool { return rate >= 0 && !math.IsInf(rate, 0) && !math.IsNaN(rate) }

// Arrivals are the times at which requests are due. One goroutine uses it.
type Arrivals struct {
	profile []Segment
	gap     func() float64 // to the next arrival, in expected arrivals
	began   float64        // of the current segment, s
	load    float64        // expected arrivals since the segment's start
}

// Even spaces arrivals by exactly the inverse of the rate.
func Even(profile []Segment) *Arrivals {
	return &Arrivals{profile: profile, gap: func() float64 { return 1 }}
}

// Poisson spaces arrivals as independent clients do: gaps are exponential, with
// the rate of the moment.
func Poisson(profile []Segment, seed uint64) *Arrivals {
	rng := rand.New(rand.NewPCG(seed, seed^0x9E3779B97F4A7C15))
	return &Arrivals{profile: profile, gap: rng.ExpFloat64}
}

// Next is when the next request is due, from the schedule's start. Times never
// decrease. ok is false at the end.
func (a *Arrivals) Next() (at time.Duration, ok bool) {
	want := a.load + a.gap()
	for len(a.profile) > 0 {
		s := &a.profile[0]
		length := s.For.Seconds()
		if all := (s.From + s.To) / 2 * length; want < all {
			a.load = want
			return time.Duration((a.began + s.when(want)) * 1e9), true
		} else {
			want -= all
		}
		a.began += length
		a.load = 0
		a.profile = a.profile[1:]
	}
	return 0, false
}

// when is the time, in s from the segment's start, by which n arrivals are
// expected: the root of From·t + (To-From)/(2·For)·t² = n, in the form that stays
// exact where the rate does not change.
func (s *Segment) when(n float64) float64 {
	slope := (s.To - s.From) / s.For.Seconds()
	root := math.Sqrt(max(0, s.From*s.From+2*slope*n))
	if s.From+root == 0 {
		return 0
	}
	return 2 * n / (s.From + root)
}
