package model

import (
	"encoding/json"
	"slices"
	"sync"
	"time"

	"sluice.dev/scorer"
	"sluice.dev/scorer/batch"
)

// tally counts what a version does: once per run, and once per request that gets
// no answer of the model. It is the version's batch.Observer, and tells next.
type tally struct {
	next batch.Observer // nil is none

	mu      sync.Mutex // guards what follows
	total   scorer.Statistics
	batches map[int]*scorer.BatchStatistics // by rows
}

func newTally(next batch.Observer) *tally {
	return &tally{next: next, batches: map[int]*scorer.BatchStatistics{}}
}

// Ran implements batch.Observer.
func (t *tally) Ran(r batch.Run) {
	if !r.Failed {
		t.count(&r)
	}
	if t.next != nil {
		t.next.Ran(r)
	}
}

func (t *tally) count(r *batch.Run) {
	now := time.Now().UnixMilli()
	input, infer, output, jobs, ended := uint64(r.Input), uint64(r.Infer), uint64(r.Output), uint64(r.Jobs), uint64(r.Ended)
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.total
	s.LastInference = now
	s.Inferences += uint64(r.Rows)
	s.Executions++
	s.Requests.Queue.Add(ended, uint64(r.Queue))
	s.Requests.Input.Add(ended, jobs*input)
	s.Requests.Infer.Add(ended, jobs*infer)
	s.Requests.Output.Add(ended, jobs*output)
	s.Requests.Success.Add(ended, uint64(r.Queue)+jobs*(input+infer+output))
	b := t.batches[r.Rows]
	if b == nil {
		b = &scorer.BatchStatistics{Rows: uint64(r.Rows)}
		t.batches[r.Rows] = b
	}
	b.Input.Add(1, input)
	b.Infer.Add(1, infer)
	b.Output.Add(1, output)
}

// fail counts a request that the model got, or should have got, in vain.
func (t *tally) fail(status scorer.Status, took time.Duration) {
	reason := scorer.FailureOther
	switch status {
	case scorer.DeadlineExceeded:
		reason = scorer.FailureRejected
	case scorer.Canceled:
		reason = scorer.FailureCanceled
	case scorer.ModelFailed:
		reason = scorer.FailureBackend
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total.Requests.Fail.Add(1, uint64(took))
	t.total.Failures[reason]++
}

// statistics is a copy of what was counted.
func (t *tally) statistics() scorer.Statistics {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.total
	s.Batches = make([]scorer.BatchStatistics, 0, len(t.batches))
	for _, b := range t.batches {
		s.Batches = append(s.Batches, *b)
	}
	slices.SortFunc(s.Batches, func(a, b scorer.BatchStatistics) int { return int(a.Rows) - int(b.Rows) })
	return s
}

// Statistics are what the version has done since it was loaded.
func (v *Version) Statistics() scorer.Statistics { return v.tally.statistics() }

// report answers a request of kind scorer.Stats.
func (v *Version) report(resp *scorer.Response) {
	s := v.Statistics()
	body, _ := json.Marshal(&s) // of plain values: cannot fail
	resp.Status, resp.Body, resp.HeadLength = scorer.OK, append(resp.Body[:0], body...), 0
}
