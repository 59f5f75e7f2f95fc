package batch

import (
	"errors"
	"slices"
	"sync"
	"time"

	"sluice.dev/accel"
	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
)

var (
	errLate = &scorer.Error{Status: scorer.DeadlineExceeded, Message: "the deadline passed before the work could start; send less at a time, or allow more time"}
	errWait = &scorer.Error{Status: scorer.DeadlineExceeded, Message: "Request timeout expired: no device was free for as long as the request may wait; send less at a time, or allow more time"}
	errGone = &scorer.Error{Status: scorer.Canceled, Message: "the request was cancelled before the work started"}
)

// late is what a job is told that could not have been done in time.
func late(j *Job, now scorer.Instant, took time.Duration) error {
	switch {
	case j.Deadline <= now:
		return errLate
	case j.latest != 0 && j.latest <= now:
		return errWait
	}
	return scorer.Errorf(scorer.DeadlineExceeded, "not started: a run takes about %v, and %v were left of the allowed time; allow more time",
		took.Round(10*time.Microsecond), j.Deadline.Sub(now).Round(10*time.Microsecond))
}

// worker is one device slot and its goroutine. Whoever holds the slot forms a
// batch, runs it, and hands out the answers.
type worker struct {
	runner *Runner
	spare  bool          // beside the device's slots
	wake   chan struct{} // capacity 1: sent by whoever takes w from the idle list for its goroutine

	patience time.Duration // of a caller who holds it: models whose last run took as long are left to workers; 0 is a worker's own; guarded by runner.mu

	// The holder's.
	queue   *Queue         // of the batch at hand
	plan    Plan           // the batch
	formed  scorer.Instant // when
	began   scorer.Instant // the run at hand: when it was formed
	rows    int            // of a run that succeeded; 0 if none did
	took    time.Duration  // of that, or the last run of queue
	spent   time.Duration  // on the batch, runs that failed included
	charged time.Duration  // to queue, in advance
	ended   scorer.Instant // the run
	cut     slicer

	mu      sync.Mutex // guards spaces against drop, and the run that is under way
	spaces  map[*Queue]*space
	running accel.Call // nil if none is
	members []*Job     // of it

	terminated bool // running is
}

// enter tells which jobs a run is for. False: nobody waits for it any more.
func (w *worker) enter(call accel.Call, run []Segment) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running = call
	for i := range run {
		w.members = append(w.members, run[i].Job)
	}
	return w.wanted()
}

// wanted reports whether somebody waits for the run. Holding mu.
func (w *worker) wanted() bool {
	return slices.ContainsFunc(w.members, func(j *Job) bool { return j.Owner.Wanted(j) })
}

// leave tells that the run is over, and reports whether it was terminated; its jobs
// are settled after it.
func (w *worker) leave() (terminated bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	terminated = w.terminated
	w.running, w.terminated = nil, false
	clear(w.members)
	w.members = w.members[:0]
	return terminated
}

// abandon terminates a run that nobody waits for.
func (w *worker) abandon() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running != nil && !w.wanted() {
		w.running.Terminate()
		w.terminated = true
	}
}

func (w *worker) loop() {
	r := w.runner
	for w.next() {
		w.serve()
		r.mu.Lock()
		r.ended(w)
		r.mu.Unlock()
	}
	for _, s := range w.spaces {
		s.closeAll()
	}
}

// next gives w its next batch, and waits while there is none. False: the end.
func (w *worker) next() bool {
	for woken := false; ; woken = true {
		took, end := w.runner.look(w, woken, true)
		if took || end {
			return took
		}
		<-w.wake
	}
}

// serve runs and answers what form took.
func (w *worker) serve() {
	for _, j := range w.plan.Late {
		j.Queue = w.formed.Sub(j.arrived)
		j.Owner.Done(j, nil, late(j, w.formed, w.plan.Took))
	}
	clear(w.plan.Late)
	w.runBatch()
}

// form takes q's next batch, while idle slots more are free. Holding runner.mu.
func (w *worker) form(q *Queue, now scorer.Instant, idle int, hurry bool) {
	w.queue, w.formed, w.began, w.rows, w.took, w.spent = q, now, now, 0, q.last, 0
	q.former.Form(now, idle, hurry || q.closed, &w.plan)
}

// space is w's memory for the model at hand.
func (w *worker) space() *space {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.spaces[w.queue]
	if s == nil {
		s = newSpace(w.queue.inst, w.queue.limit, w.queue.policy)
		w.spaces[w.queue] = s
	}
	return s
}

// runBatch runs what form took. A batch of several that fails is run one by one,
// so that a bad member fails alone.
func (w *worker) runBatch() {
	s := w.space()
	rows := w.gather(s)
	if rows == 0 {
		return
	}
	if err := w.runGathered(s, w.plan.Run, rows); err == nil || len(w.plan.Run) == 1 {
		return
	}
	for i := range w.plan.Run {
		one := w.plan.Run[i : i+1]
		w.began = scorer.Now()
		s.begin(one)
		if w.hold(s, &one[0]) {
			_ = w.runGathered(s, one, one[0].Rows) // the member has its answer
		}
	}
	w.rows = 0 // what that took is not how long a run of some size takes
}

// gather copies the members' rows, leaving out those that nobody waits for.
func (w *worker) gather(s *space) (rows int) {
	s.begin(w.plan.Run)
	kept := w.plan.Run[:0]
	for _, seg := range w.plan.Run {
		if w.hold(s, &seg) {
			kept = append(kept, seg)
			rows += seg.Rows
		}
	}
	clear(w.plan.Run[len(kept):])
	w.plan.Run = kept
	return rows
}

// hold copies one member's rows, or ends the member.
func (w *worker) hold(s *space, seg *Segment) bool {
	j := seg.Job
	if !j.Owner.Hold(j) {
		if j.Batch == 0 {
			j.Queue = w.began.Sub(j.arrived)
		}
		w.settle(seg, timing{}, nil, errGone)
		return false
	}
	s.gather(seg)
	j.Owner.Release(j)
	return true
}

// runGathered runs the batch in s and answers its members. An error of a batch
// of several is returned, its members unanswered.
func (w *worker) runGathered(s *space, run []Segment, rows int) error {
	gathered := scorer.Now()
	call, err := s.call(rows, run[0].Job)
	if err == nil {
		if err = errGone; w.enter(call, run) {
			err = call.Run()
		}
		if w.leave() {
			err = errGone
			s.discard(rows)
		}
	}
	if err == nil {
		err = s.checkRows(call, rows)
	}
	w.ended = scorer.Now()
	w.took = w.ended.Sub(gathered)
	w.spent += w.took
	if err == nil && w.rows == 0 {
		w.rows = rows
	}
	t := timing{start: w.began, took: w.took, rows: rows}
	r := Run{Rows: rows, Jobs: len(run), Failed: err != nil, Input: gathered.Sub(w.began), Infer: w.took}
	if err != nil && len(run) == 1 {
		w.settle(&run[0], t, nil, failed(err))
	}
	if err == nil {
		w.hand(s, run, call, t, &r)
	}
	if w.queue.observer != nil {
		r.Output = scorer.Now().Sub(w.ended)
		w.queue.observer.Ran(r)
	}
	return err
}

// hand gives the members of a run their rows.
func (w *worker) hand(s *space, run []Segment, call accel.Call, t timing, r *Run) {
	from := 0
	for i := range run {
		seg := &run[i]
		out := w.cut.cut(call, len(s.sig.Outputs), from, seg.Rows, seg.Rows == t.rows)
		from += seg.Rows
		if queued, ok := w.settle(seg, t, out, nil); ok {
			r.Ended++
			r.Queue += queued
		}
	}
}

// timing is what the members of one run are told about it.
type timing struct {
	start scorer.Instant // when the run was formed
	took  time.Duration  // on the device
	rows  int
}

// settle ends a segment, and its job if that was the last one. It reports whether
// the job has ended well, and how long that waited. The job must not be touched
// after it.
func (w *worker) settle(seg *Segment, t timing, out []tensor.Tensor, err error) (queued time.Duration, ended bool) {
	j := seg.Job
	switch whole := seg.whole(); {
	case whole:
		j.clock(t)
	case !w.settlePiece(seg, t, out, err):
		return 0, false
	case j.err != nil:
		err = j.err
	default:
		out, err = j.join()
	}
	queued = j.Queue
	j.Owner.Done(j, out, err)
	return queued, err == nil
}

// settlePiece records one piece of a split job, and reports whether the job is
// complete. Pieces of one job may run on several workers. After an error the
// rows that still wait are given up.
func (w *worker) settlePiece(seg *Segment, t timing, out []tensor.Tensor, err error) bool {
	r, j := w.runner, seg.Job
	r.mu.Lock()
	defer r.mu.Unlock()
	j.clock(t)
	j.done += seg.Rows
	if err == nil {
		j.keep(seg.From, out)
		return j.done == j.Rows
	}
	if j.err == nil {
		j.err = err
	}
	if j.shape != nil {
		w.queue.former.unlink(j)
		j.done += j.Rows - j.taken
	}
	return j.done == j.Rows
}

// clock adds a run to the job's timing. A zero timing is no run.
func (j *Job) clock(t timing) {
	if t.rows == 0 {
		return
	}
	if j.Batch == 0 {
		j.Queue = t.start.Sub(j.arrived)
	}
	j.Batch = max(j.Batch, t.rows)
	j.Device += t.took
}

// failed turns a driver's error into an answer.
func failed(err error) error {
	if known := (*scorer.Error)(nil); errors.As(err, &known) {
		return err
	}
	return &scorer.Error{Status: scorer.ModelFailed, Message: "the model failed: " + err.Error()}
}

// drop frees what w holds of a model that it will not run again.
func (w *worker) drop(q *Queue) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.spaces[q]; s != nil {
		s.closeAll()
		delete(w.spaces, q)
	}
}
