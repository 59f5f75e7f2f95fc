package batch

import (
	"math"
	"runtime"
	"sync"
	"time"

	"sluice.dev/accel"
	"sluice.dev/scorer"
)

// Runner runs the models of one device: it owns a worker per device slot, and
// every slot that gets free takes the next batch of the next model that has work,
// in turn, so that no model starves another.
//
// A slot is held by its worker's goroutine, or by a caller of Start who runs one
// batch itself: to wake another goroutine costs more than a small model's run.
type Runner struct {
	all     []*worker
	workers sync.WaitGroup

	mu     sync.Mutex
	idle   []*worker // slots that nobody holds, last one first; their goroutines are parked
	waking bool      // somebody took a slot and has not yet looked for work
	ready  []*Queue  // with waiting jobs, in turn
	closed bool
}

// Observer is told about every run, after its members have their answers; it must
// not block.
type Observer interface {
	Ran(Run)
}

// Run is what one run was.
type Run struct {
	Rows   int  // that ran
	Jobs   int  // members; one in pieces is a member of each of its runs
	Ended  int  // of those, the ones that are done with it, and well
	Failed bool // no member got an answer of it

	Queue time.Duration // waiting of the members that Ended, in sum
	// What one member saw: gathering the rows, the run, and handing out its rows.
	Input, Infer, Output time.Duration
}

// Queue is one model on one runner.
type Queue struct {
	runner   *Runner
	inst     accel.Instance
	limit    int
	observer Observer

	// Guarded by runner.mu.
	former Former
	listed bool          // in runner.ready
	inRun  int           // batches running
	last   time.Duration // of its last run; before the first, as long as can be
	closed bool
	drain  chan struct{} // closed when closed and nothing waits or runs
}

// NewRunner starts a worker for each of slots >= 1 device slots.
func NewRunner(slots int) *Runner {
	r := &Runner{}
	for range slots {
		w := &worker{runner: r, wake: make(chan struct{}, 1), spaces: map[*Queue]*space{}}
		r.all = append(r.all, w)
		r.workers.Go(w.loop)
	}
	return r
}

// Close ends the workers when nothing runs any more. Queues must be closed before.
func (r *Runner) Close() {
	r.mu.Lock()
	r.closed = true
	r.wakeAll()
	r.mu.Unlock()
	r.workers.Wait()
}

// Open adds a model: runs have at most limit rows.
func (r *Runner) Open(inst accel.Instance, limit int, o Observer) *Queue {
	f := NewFormer(inst.Signature(), limit)
	return &Queue{runner: r, inst: inst, limit: f.limit, observer: o, former: f, last: math.MaxInt64, drain: make(chan struct{})}
}

// Put queues a job that is sure to run only after the next Start. False means
// that the queue is closed; nothing is kept.
func (q *Queue) Put(j *Job) bool {
	now := scorer.Now()
	r := q.runner
	r.mu.Lock()
	defer r.mu.Unlock()
	if q.closed {
		return false
	}
	q.former.Add(j, now)
	if !q.listed {
		q.listed = true
		r.ready = append(r.ready, q)
	}
	return true
}

// Start has what waits run. Where a slot is idle and the next model's last run
// took less than patience, the caller runs one batch itself, and Start returns when
// its owners have their answers; else workers do. It is needed after Put, by
// whoever put or by anybody later.
func (r *Runner) Start(patience time.Duration) {
	r.mu.Lock()
	w := r.claim()
	if w != nil && r.ready[0].last >= patience {
		w.wake <- struct{}{}
		w = nil
	}
	r.mu.Unlock()
	if w == nil {
		return
	}
	runtime.Gosched() // see next
	r.mu.Lock()
	r.waking = false
	if !r.take(w) {
		r.park(w)
		r.mu.Unlock()
		return
	}
	r.rouse()
	r.mu.Unlock()
	w.serve()
	r.mu.Lock()
	r.ended(w)
	r.park(w)
	r.rouse()
	r.mu.Unlock()
}

// Start has what waits on q's runner run; see Runner.Start.
func (q *Queue) Start(patience time.Duration) { q.runner.Start(patience) }

// park gives a slot back. Holding mu.
func (r *Runner) park(w *worker) {
	r.idle = append(r.idle, w)
	if r.closed { // Close saw the slot held
		r.wakeAll()
	}
}

// wakeAll wakes the workers of idle slots, which end if nothing waits. Holding mu.
func (r *Runner) wakeAll() {
	for _, w := range r.idle {
		w.wake <- struct{}{}
	}
	r.idle = nil
}

// claim takes an idle slot for somebody who will look for work, unless there is
// none, or somebody is about to look: that one takes all that fits one run, and
// rouses the next if more is left. Holding mu.
func (r *Runner) claim() *worker {
	n := len(r.idle)
	if n == 0 || r.waking || len(r.ready) == 0 {
		return nil
	}
	w := r.idle[n-1]
	r.idle = r.idle[:n-1]
	r.waking = true
	return w
}

// rouse wakes the worker of an idle slot if it is needed. Holding mu.
func (r *Runner) rouse() {
	if w := r.claim(); w != nil {
		w.wake <- struct{}{}
	}
}

// Remove takes back a job that no run has begun. False means that its owner
// will hear Done, or has heard it.
func (q *Queue) Remove(j *Job) bool {
	q.runner.mu.Lock()
	defer q.runner.mu.Unlock()
	removed := q.former.Remove(j)
	if removed {
		j.Queue = scorer.Now().Sub(j.arrived)
	}
	q.finished()
	return removed
}

// Waiting is how many jobs wait.
func (q *Queue) Waiting() int {
	q.runner.mu.Lock()
	defer q.runner.mu.Unlock()
	return q.former.Waiting()
}

// Close refuses new jobs, waits for those that are there, and frees what the
// workers hold of the model. The instance stays open.
func (q *Queue) Close() {
	q.runner.mu.Lock()
	q.closed = true
	q.finished()
	q.runner.mu.Unlock()
	<-q.drain
	for _, w := range q.runner.all {
		w.drop(q)
	}
}

// finished tells Close when nothing waits or runs. Holding mu.
func (q *Queue) finished() {
	if q.closed && q.former.Waiting() == 0 && q.inRun == 0 {
		select {
		case <-q.drain:
		default:
			close(q.drain)
		}
	}
}

// next gives w its next batch, parking it while there is none. False: the end.
//
// It yields before it looks. Whoever woke w, or was just answered by it, is
// often one of several that are about to submit: those that can run do so
// first, and w finds a fuller queue. Where nothing else can run, that costs
// nothing, so a lone request is not delayed.
func (r *Runner) next(w *worker) bool {
	for woken := false; ; woken = true {
		runtime.Gosched()
		r.mu.Lock()
		if woken {
			r.waking = false
		}
		if r.take(w) {
			r.rouse()
			r.mu.Unlock()
			return true
		}
		if r.closed {
			r.mu.Unlock()
			return false
		}
		r.idle = append(r.idle, w)
		r.mu.Unlock()
		<-w.wake
	}
}

// take forms w's batch from the first model that has work. Holding mu.
func (r *Runner) take(w *worker) bool {
	for len(r.ready) > 0 {
		q := r.ready[0]
		r.ready = append(r.ready[:0], r.ready[1:]...)
		w.form(q)
		q.listed = q.former.Waiting() > 0
		if q.listed {
			r.ready = append(r.ready, q)
		}
		if len(w.run) > 0 || len(w.late) > 0 {
			q.inRun++
			return true
		}
	}
	return false
}

// ended tells that w's batch is over. Holding mu.
func (r *Runner) ended(w *worker) {
	q := w.queue
	q.inRun--
	q.last = w.took
	q.finished()
}
