package batch

import (
	"math"

	"sluice.dev/scorer"
)

// forecast tells what a choice of size costs: the time that all rows that wait,
// and come while they do, spend until they are done. After the run in question
// what is left is taken to run at the best size, and to shrink at the rate by
// which that is faster than what arrives. So a short queue is split where that
// answers the first ones sooner, and under load, where the queue shrinks slowly,
// what counts is rows per second. Several slots share queue and arrivals.
type forecast struct {
	curve *Curve
	rows  float64 // that wait, of all shapes
	rate  float64 // rows per nanosecond that arrive
	best  float64 // rows
	took  float64 // nanoseconds of a run of best
	drain float64 // rows per nanosecond by which a queue shrinks
}

// spare is the part of its capacity that a slot is taken to have left at least,
// since no more can arrive for long than is answered.
const spare = 0.02

func (f *Former) forecast(s *shape, now scorer.Instant) forecast {
	c := forecast{curve: &s.curve, best: float64(min(s.curve.Best(), f.limit))}
	c.rows = float64(f.rows) / float64(f.slots)
	c.rate = f.arrivals.rate(now) / float64(f.slots)
	c.took = s.curve.at(c.best) + handling
	capacity := c.best / c.took
	c.rate = math.Min(c.rate, (1-spare)*capacity)
	c.drain = capacity - c.rate
	return c
}

// cost is that of a run of rows that takes so many nanoseconds, in
// row-nanoseconds.
func (c *forecast) cost(rows int, took float64) float64 {
	took += handling
	n := math.Max(c.rows, float64(rows))
	left := n - float64(rows) + c.rate*took
	// The next run, and what comes meanwhile, as if it flowed.
	next := math.Min(left, c.best)
	time := 0.0
	if next > 0 {
		time = c.curve.at(math.Max(next, 1)) + handling
	}
	rest := left - next + c.rate*time
	return n*took + left*time + rest*rest/(2*c.drain) + rest*c.took/2
}
