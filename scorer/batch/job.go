// Package batch runs waiting requests together on the devices that get free.
//
// A batch is formed at the moment when a device can take it, from what waits then
// ([Former], pure). How many rows are best is learnt from every run ([Curve]).
// While the devices are busy requests gather, so batches grow with the load by
// themselves ([Runner], the shell).
package batch

import (
	"time"

	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
)

// Job is one request's work on one queue. Its owner fills In, Rows, Deadline and
// Owner, puts it, and must not change it until Done or a successful Remove.
type Job struct {
	In       []tensor.Tensor // one per input in signature order; lent
	Rows     int             // first dimension of every input where the model is batchable, else 1
	Deadline scorer.Instant  // no answer is wanted after it
	Start    scorer.Instant  // the work is not started after it; 0 leaves it to Deadline
	Class    scorer.Class    // higher ones go first
	Flow     uint32          // whose work it is: flows of a class share a full queue; 0 shares with nobody
	Priority uint32          // within class and flow's turn: 1 is the highest; 0 is the policy's default
	Owner    Owner

	// Timing of the run, set before Done. A split job's Device is the sum of its
	// runs, its Queue that of its first one. Of a job that did not run only Queue is
	// set, also by a successful Remove.
	Queue  time.Duration // waiting
	Device time.Duration // running
	Batch  int           // rows of the run, its own included

	arrived scorer.Instant
	node    node[Job]      // in its shape's heap
	shape   *shape         // while it waits; else nil
	latest  scorer.Instant // not started after it; 0 is any time
	demote  scorer.Instant // then it goes last; 0 is never
	turn    uint64         // round in which its first rows are due
	taken   int            // rows handed to runs, less than Rows while waiting
	done    int            // rows whose run ended
	err     error
	parts   []part // a split job's outputs so far
}

// Owner is told about its job by the goroutine that runs it; no call may block.
type Owner interface {
	// Hold is asked before the job's inputs are read. False means that nobody
	// wants the answer any more; else the inputs stay as they are until Release.
	Hold(j *Job) bool
	Release(j *Job)
	// Wanted reports whether somebody still waits for the answer. From any goroutine,
	// between Release and Done.
	Wanted(j *Job) bool
	// Done ends the job, exactly once. out has one tensor per output with this
	// job's rows, lent until Done returns; or err says why there is none
	// (a *scorer.Error: DeadlineExceeded and Canceled have not started).
	Done(j *Job, out []tensor.Tensor, err error)
}

// reset makes a used job ready to wait.
func (j *Job) reset(now scorer.Instant) {
	j.arrived, j.taken, j.done, j.err, j.latest, j.demote = now, 0, 0, nil, 0, 0
	j.Queue, j.Device, j.Batch = 0, 0, 0
	j.parts = j.parts[:0]
}

// Segment is a job's share of a batch: rows [From, From+Rows) of its inputs.
type Segment struct {
	Job  *Job
	From int
	Rows int
}

// whole reports whether the segment is all of its job.
func (s *Segment) whole() bool { return s.Rows == s.Job.Rows }
