package sim

import (
	"time"

	"sluice.dev/scorer"
	"sluice.dev/scorer/batch"
)

// Clipper is the rule of the system of that name: the size of batches grows by one
// row while runs are within the objective, and shrinks by a tenth when one is not. Batches are
// no larger than the device's limit.
//
// D. Crankshaw et al., Clipper: a low-latency online prediction serving system, 2017.
type Clipper struct {
	Objective time.Duration // of a run
	Limit     int           // rows of a run
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
		c.size = min(c.size+1, float64(c.Limit))
	}
}
