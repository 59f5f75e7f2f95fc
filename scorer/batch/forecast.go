package batch

import (
	"math"

	"sluice.dev/scorer"
)

// forecast tells what a choice of size costs: the time that all rows that wait,
// and come while they do, spend until they are done. After the run in question
// the next slot to get free takes up to the best size, and what is left then
// shrinks as if it flowed, by what the slots do more than what arrives, and waits
// for a run of the best size at its end. So a short
// queue is split where that answers the first ones sooner, and under load, where
// the queue shrinks slowly, what counts is rows per second.
type forecast struct {
	curve *Curve
	slots float64 // that take from the queue
	idle  bool    // another slot is free now
	rows  float64 // that wait, of all shapes
	rate  float64 // rows per nanosecond that arrive
	best  float64 // rows
	took  float64 // nanoseconds of a run of best
	drain float64 // rows per nanosecond by which a queue shrinks
}

// spare is the part of their capacity that the slots are taken to have left at
// least, since no more can arrive for long than is answered.
const spare = 0.02

func (f *Former) forecast(s *shape, now scorer.Instant, idle int) forecast {
	c := forecast{curve: &s.curve, best: float64(min(s.curve.Best(), f.limit)), slots: float64(f.slots), idle: idle > 0, rows: float64(f.rows)}
	c.took = c.time(c.best)
	capacity := c.slots * c.best / c.took
	c.rate = math.Min(f.arrivals.rate(now), (1-spare)*capacity)
	c.drain = capacity - c.rate
	return c
}

// time is that of a run of rows, as the queue sees it.
func (c *forecast) time(rows float64) float64 { return c.curve.at(math.Max(rows, 1)) + handling }

// busy reports whether nearly all that the slots can do is needed, so that every
// row per second counts.
func (c *forecast) busy() bool { return c.drain < c.rate/20 }

// cost is that of a run of rows that takes so many nanoseconds, in
// row-nanoseconds.
func (c *forecast) cost(rows int, took float64) float64 {
	took += handling
	n := float64(rows)
	free := took / c.slots // until a slot is free again
	if c.idle {
		free = 0
	}
	others := math.Max(c.rows-n, 0)
	left := others + c.rate*free
	next := math.Min(left, c.best)
	cost := n*took + others*free
	if next > 0 {
		took = c.time(next)
		cost += next*took + (left-next)*took/c.slots
		left += c.rate * took / c.slots
	}
	rest := left - next
	return cost + rest*rest/(2*c.drain) + rest*c.took
}

// prospect tells what it gains to wait with a run of all rows of one shape.
type prospect struct {
	forecast
	n float64 // rows
}

// gain is that of waiting so many nanoseconds for more rows, in row-nanoseconds: those
// would else wait for this run and then run by themselves, if nobody comes
// meanwhile, which has the probability quiet, or with who came. What time of the
// device is saved is saved, under load, by all who come later.
func (p *prospect) gain(more, wait, quiet float64) float64 {
	alone, together := p.time(p.n), p.time(p.n+more)
	came := math.Max(p.rate*alone/p.slots, 1)
	with := p.time(more + came)
	next := quiet*p.time(more) + (1-quiet)*with
	extra := quiet*p.time(more) + (1-quiet)*(with-p.time(came))
	apart := p.n*alone + more*(math.Max(alone/p.slots-wait/2, 0)+next)
	joined := p.n*(wait+together) + more*(wait/2+together)
	saved := alone + extra*math.Min(more, 1) - together - wait
	later := p.rate * p.rate * (alone + extra) / (p.slots * p.drain)
	return apart - joined + saved/p.slots*later
}
