package batch

import (
	"slices"

	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
)

// Former is the queue of one model: it decides which waiting jobs run next,
// together. It has no clock, lock or goroutine; one caller at a time.
//
// Rules: the oldest job always runs next; others of its shape join it in order
// of arrival as long as they fit; a job with more rows than the limit runs in
// pieces. Jobs whose deadline has passed are handed back unrun.
type Former struct {
	limit     int  // rows per run, >= 1
	batchable bool // else every job runs alone
	uniform   bool // all jobs have one shape: no need to compare

	head, tail *Job
	waiting    int // jobs
}

// NewFormer makes the queue of a model with sig, for runs of at most limit rows.
func NewFormer(sig *tensor.Signature, limit int) Former {
	f := Former{limit: max(limit, 1), batchable: sig.Batchable(), uniform: true}
	for _, in := range sig.Inputs {
		if len(in.Shape) == 0 || slices.Contains(in.Shape[1:], -1) {
			f.uniform = false
		}
	}
	return f
}

// Waiting is how many jobs wait.
func (f *Former) Waiting() int { return f.waiting }

// Add queues j, which arrived at now.
func (f *Former) Add(j *Job, now scorer.Instant) {
	j.reset(now)
	j.waiting = true
	j.prev, j.next = f.tail, nil
	if f.tail == nil {
		f.head = j
	} else {
		f.tail.next = j
	}
	f.tail = j
	f.waiting++
}

// Remove takes j out of the queue. False means that j is not waiting, or that a
// part of it runs already.
func (f *Former) Remove(j *Job) bool {
	if !j.waiting || j.taken > 0 {
		return false
	}
	f.unlink(j)
	return true
}

func (f *Former) unlink(j *Job) {
	if j.prev == nil {
		f.head = j.next
	} else {
		j.prev.next = j.next
	}
	if j.next == nil {
		f.tail = j.prev
	} else {
		j.next.prev = j.prev
	}
	j.prev, j.next, j.waiting = nil, nil, false
	f.waiting--
}

// Form appends to run what runs next, at most limit rows, and to late the jobs
// that are too late to start. Both leave the queue; a job in pieces leaves with
// its last piece.
func (f *Former) Form(now scorer.Instant, run []Segment, late []*Job) ([]Segment, []*Job) {
	var first *Job
	free := f.limit
	for j := f.head; j != nil && free > 0; {
		next := j.next
		switch {
		case j.Deadline <= now && j.taken == 0:
			f.unlink(j)
			late = append(late, j)
		case first != nil && !f.joins(first, j):
		default:
			rows := f.take(j, free)
			if rows == 0 {
				return run, late // the next in line does not fit: it goes first next time
			}
			run = append(run, Segment{Job: j, From: j.taken, Rows: rows})
			if first == nil {
				first = j
			}
			j.taken += rows
			free -= rows
			if j.taken == j.Rows {
				f.unlink(j)
			}
			if !f.batchable {
				return run, late
			}
		}
		j = next
	}
	return run, late
}

// take is how many of j's remaining rows go into a run with room for free rows:
// all of them or none, except for a job that no run could hold whole.
func (f *Former) take(j *Job, free int) int {
	left := j.Rows - j.taken
	if left <= free || !f.batchable {
		return left
	}
	if j.Rows > f.limit {
		return free
	}
	return 0
}

// joins reports whether j can run in the same batch as first.
func (f *Former) joins(first, j *Job) bool {
	if f.uniform {
		return true
	}
	for i := range first.In {
		if !slices.Equal(first.In[i].Shape[1:], j.In[i].Shape[1:]) {
			return false
		}
	}
	return true
}
