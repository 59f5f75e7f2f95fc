package batch

import (
	"math"

	"sluice.dev/scorer"
)

// forecast tells what a choice of size costs: the time that all rows that wait,
// and come while they do, spend until they are done. Beside the run in question
// the slots that are idle share what is left, up to the best size each; where none is, the
// next one to get free takes that. What is left then shrinks as if it flowed, by what the
// slots do more than what arrives, and waits for a run of its own, of the best size at
// most. So a short queue is split where that answers the first ones sooner, and under
// load, where the queue shrinks slowly, what counts is rows per second.
type forecast struct {
	curve *Curve
	slots float64 // that take from the queue
	idle  float64 // other slots that are free now
	rows  float64 // that wait, of all shapes
	rate  float64 // rows per nanosecond that arrive
	best  float64 // rows
	took  float64 // nanoseconds of a run of best
	drain float64 // rows per nanosecond by which a queue shrinks
	load  float64 // 0 where nothing arrives, and 1 from half of what the slots can do on
}

// spare is the part of their capacity that the slots are taken to have left at
// least, since no more can arrive for long than is answered.
const spare = 0.02

func (f *Former) forecast(s *shape, now scorer.Instant, idle int) forecast {
	c := forecast{curve: &s.curve, best: float64(min(s.curve.Best(), f.limit)), slots: float64(f.slots), idle: float64(idle), rows: float64(f.rows)}
	c.took = c.time(c.best)
	capacity := c.slots * c.best / c.took
	c.rate = math.Min(f.arrivals.rate(now), (1-spare)*capacity)
	c.drain = capacity - c.rate
	c.load = math.Min(c.rate/c.drain, 1)
	return c
}

// time is that of a run of rows, as the queue sees it.
func (c *forecast) time(rows float64) float64 { return c.curve.at(math.Max(rows, 1)) + handling }

// busy reports whether nearly all that the slots can do is needed, so that every
// row per second counts.
func (c *forecast) busy() bool { return c.drain < c.rate/20 }

// clearly is what another size than the usual may cost of that one's, to be taken: what
// is known of costs is not exact, and under load more runs than needed are dear.
func (c *forecast) clearly() float64 { return 1 - 0.07*c.load }

// cost is that of a run of rows that takes so many nanoseconds, in
// row-nanoseconds.
func (c *forecast) cost(rows int, took float64) float64 {
	took += handling
	left := math.Max(c.rows-float64(rows), 0)
	cost := float64(rows) * took
	var next, come float64 // rows that run next, and rows per nanosecond that come meanwhile
	if c.idle > 0 {
		next = math.Min(left, c.idle*c.best)
		took = c.time(next / c.idle)
	} else {
		come = c.rate / c.slots
		cost += left * took / c.slots
		left += come * took
		next = math.Min(left, c.best)
		took = c.time(next)
	}
	if next > 0 {
		cost += next*took + (left-next)*took/c.slots
		left += come * took
	}
	rest := left - next
	// The flow ends half of a run's time too late, unless there is no end of it.
	run := math.Min(rest, c.best)
	last := c.time(run) - (1-c.load)*c.took*run/(2*c.best)
	return cost + rest*rest/(2*c.drain) + rest*last
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
