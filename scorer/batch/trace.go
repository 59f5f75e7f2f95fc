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
	Deadline               // more would have been too late for some, or all were
	ByPolicy               // Triton's rule, which the configuration asks for
	Untried                // more is far beyond all that ran
)

var reasons = [...]string{"all that waited", "best size", "limit", "deadline", "policy", "not tried yet"}

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

// Decision is one run that was formed, or, with no rows, that all were refused.
type Decision struct {
	At       scorer.Instant `json:"at"`      // nanoseconds since the process started
	Waiting  int            `json:"waiting"` // rows that waited before and could have run: of its shape, and those of others that joined it
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
	held  bool   // whether the last of them goes on
}

// wait counts the start of a wait; while it goes on, the rule is asked again whenever a job comes.
func (t *trace) wait() {
	if !t.held {
		t.held = true
		t.waits++
	}
}

// add keeps what p decided, before which so many rows waited.
func (t *trace) add(now scorer.Instant, waiting int, p *Plan) {
	t.last[t.n%len(t.last)] = Decision{
		At: now, Waiting: waiting, Rows: p.rows, Late: len(p.Late), Reason: p.why, Expected: p.Took,
	}
	t.n++
}

// Explained is what a Former knows and did last.
type Explained struct {
	Now           scorer.Instant `json:"now"`              // nanoseconds since the process started
	Limit         int            `json:"limit"`            // rows of a run
	Policy        []string       `json:"policy,omitempty"` // what is set
	Waiting       int            `json:"waiting"`          // jobs
	RowsPerSecond float64        `json:"rows_per_second"`
	Waits         uint64         `json:"waits"` // times that a device was left idle since it paid to wait for another job; not by Triton's rule
	Shapes        []ShapeCosts   `json:"shapes"`
	Last          []Decision     `json:"last"` // oldest first
	Used          time.Duration  `json:"used"` // device time, nanoseconds
}

// ShapeCosts is what runs of one shape cost.
type ShapeCosts struct {
	Dims  []int64 `json:"dims,omitempty"` // of all inputs but the first; none where all are fixed
	Best  int     `json:"best"`           // the smallest size with about the most rows per second
	Runs  uint64  `json:"runs"`           // that were observed, those before a restart not included
	Curve []Point `json:"curve"`
}

// Explain tells what f knows and did last.
func (f *Former) Explain(now scorer.Instant) Explained {
	e := Explained{Now: now, Limit: f.limit, Policy: f.policy.Words(), Waiting: f.waiting, RowsPerSecond: f.arrivals.rate(now) * float64(time.Second), Waits: f.trace.waits}
	for _, s := range f.shapes {
		if s.curve.Known() {
			e.Shapes = append(e.Shapes, ShapeCosts{Dims: s.dims, Best: s.curve.Best(), Runs: s.curve.Runs(), Curve: s.curve.Points()})
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
