package batch

import (
	"fmt"
	"time"

	"sluice.dev/scorer"
)

// Reason says why a run has the rows that it has.
type Reason uint8

// The reasons.
const (
	All      Reason = iota // all that waited
	Best                   // more would have cost those that wait more time
	Limit                  // the most rows of a run
	Deadline               // more would have been too late for some
	ByPolicy               // Triton's rule, which the configuration asks for
)

var reasons = [...]string{"all that waited", "best size", "limit", "deadline", "policy"}

// MarshalText is the reason in words.
func (r Reason) MarshalText() ([]byte, error) { return []byte(reasons[r]), nil }

// UnmarshalText reads the words.
func (r *Reason) UnmarshalText(text []byte) error {
	for i, words := range reasons {
		if words == string(text) {
			*r = Reason(i)
			return nil
		}
	}
	return fmt.Errorf("unknown reason %q", text)
}

// Decision is one run that was formed.
type Decision struct {
	At       scorer.Instant `json:"at"`      // nanoseconds since the process started
	Waiting  int            `json:"waiting"` // rows that waited before, of all shapes
	Rows     int            `json:"rows"`
	Late     int            `json:"late"` // jobs that were refused
	Reason   Reason         `json:"reason"`
	Expected time.Duration  `json:"expected"` // of the run, nanoseconds; 0 where nothing was known
}

// trace keeps the last decisions.
type trace struct {
	last  [16]Decision
	n     int
	waits uint64 // times that it was decided to wait
}

func (t *trace) add(f *Former, now scorer.Instant, p *Plan) {
	t.last[t.n%len(t.last)] = Decision{
		At: now, Waiting: f.rows + p.rows, Rows: p.rows, Late: len(p.Late), Reason: p.why, Expected: p.Took,
	}
	t.n++
}

// Explained is what a Former knows and did last.
type Explained struct {
	Limit         int           `json:"limit"`            // rows of a run
	Policy        []string      `json:"policy,omitempty"` // what is set
	Waiting       int           `json:"waiting"`          // jobs
	RowsPerSecond float64       `json:"rows_per_second"`
	Waits         uint64        `json:"waits"` // times that it paid to wait for another job
	Shapes        []ShapeCosts  `json:"shapes"`
	Last          []Decision    `json:"last"` // oldest first
	Used          time.Duration `json:"used"` // device time, nanoseconds
}

// ShapeCosts is what runs of one shape cost.
type ShapeCosts struct {
	Dims  []int64 `json:"dims,omitempty"` // of all inputs but the first; none where all are fixed
	Best  int     `json:"best"`           // the smallest size with about the most rows per second
	Curve []Point `json:"curve"`
}

// Explain tells what f knows and did last.
func (f *Former) Explain(now scorer.Instant) Explained {
	e := Explained{Limit: f.limit, Policy: f.policy.Words(), Waiting: f.waiting, RowsPerSecond: f.arrivals.rate(now) * float64(time.Second), Waits: f.trace.waits}
	for _, s := range f.shapes {
		if s.curve.Known() {
			e.Shapes = append(e.Shapes, ShapeCosts{Dims: s.dims, Best: s.curve.Best(), Curve: s.curve.Points()})
		}
	}
	size := len(f.trace.last)
	for i := max(0, f.trace.n-size); i < f.trace.n; i++ {
		e.Last = append(e.Last, f.trace.last[i%size])
	}
	return e
}

// Restore takes curves that were learnt before.
func (f *Former) Restore(learnt []ShapeCosts) {
	for _, l := range learnt {
		if f.uniform != (len(l.Dims) == 0) || !f.uniform && len(f.shapes) >= maxShapes {
			continue
		}
		if !f.uniform {
			f.shapes = append(f.shapes, newShape(l.Dims, hashOf(l.Dims)))
		}
		f.shapes[len(f.shapes)-1].curve.Restore(l.Curve)
	}
}
