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
// every slot that gets free takes the next batch of the model that has used the
// device least among those that have work, so that no model starves another.
//
// A slot is held by its worker's goroutine, or by a caller of Start who runs a few
// batches itself: to wake another goroutine costs more than a small model's run.
//
// There is one worker more than slots, the spare: where every slot is held by
// other models, a model of which nothing runs has one batch there, beside them.
// So a model with little traffic does not wait for a flooded one's long runs.
type Runner struct {
	all     []*worker
	workers sync.WaitGroup

	mu      sync.Mutex
	idle    []*worker      // slots that nobody holds, last one first; their goroutines are parked
	spare   *worker        // nil while it is held
	waking  bool           // somebody took a slot and has not yet looked for work
	busy    int            // slots that batches take
	ready   []*Queue       // with waiting jobs
	virtual float64        // device time of a model that always had work, nanoseconds
	free    map[string]int // resources that no run has taken, of as many as any model takes
	most    map[string]int
	alarm   alarm
	rings   scorer.Instant // when it wakes a worker; 0: it is not set
	closed  bool
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

// Options of a queue. The zero value is the default.
type Options struct {
	Limit    int          // rows per run; 0 is 1
	Width    int          // slots that a run takes, such as its threads; 0 is 1
	Policy   *Policy      // nil leaves everything to be learnt
	Observer Observer     // nil observes nothing
	Learnt   []ShapeCosts // of runs before, on such a device
}

// Queue is one model on one runner.
type Queue struct {
	runner   *Runner
	inst     accel.Instance
	limit    int
	width    int
	policy   *Policy
	observer Observer

	// Guarded by runner.mu.
	former *Former
	listed bool           // in runner.ready
	wait   scorer.Instant // it was decided to wait until then, or for another job; 0 if not
	inRun  int            // batches running
	used   float64        // device time, weighed, nanoseconds; at least what the others had when it had no work
	total  time.Duration  // device time
	last   time.Duration  // of its last run; before the first, as long as can be
	closed bool
	drain  chan struct{} // closed when closed and nothing waits or runs
}

// NewRunner starts a worker for each of slots >= 1 device slots.
func NewRunner(slots int) *Runner {
	r := &Runner{free: map[string]int{}, most: map[string]int{}}
	r.alarm = newAlarm(r.ring)
	for i := range slots + 1 {
		w := &worker{runner: r, spare: i == slots, wake: make(chan struct{}, 1), spaces: map[*Queue]*space{}}
		r.all = append(r.all, w)
		r.workers.Go(w.loop)
	}
	return r
}

// slots is how many runs go side by side, but for the spare.
func (r *Runner) slots() int { return len(r.all) - 1 }

// Close ends the workers when nothing runs any more. Queues must be closed before.
func (r *Runner) Close() {
	r.mu.Lock()
	r.closed = true
	r.wakeAll()
	r.mu.Unlock()
	r.workers.Wait()
	r.alarm.stop()
}

// Open adds a model.
func (r *Runner) Open(inst accel.Instance, o Options) *Queue {
	f := NewFormer(inst.Signature(), o.Limit, o.Policy)
	width := min(max(o.Width, 1), r.slots())
	f.Share(r.slots() / width)
	f.Restore(o.Learnt)
	q := &Queue{runner: r, inst: inst, limit: f.limit, width: width, policy: f.policy, observer: o.Observer, former: f, last: math.MaxInt64, drain: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, need := range q.policy.Resources {
		if more := need.Count - r.most[need.Name]; more > 0 {
			r.most[need.Name] += more
			r.free[need.Name] += more
		}
	}
	return q
}

var (
	errClosed = &scorer.Error{Status: scorer.Unavailable, Message: "this version is being replaced; send the request again"}
	errFull   = &scorer.Error{Status: scorer.Overloaded, Message: "Exceeds maximum queue size: as many requests wait for this version as its policy allows; send the request again later"}
)

// Put queues a job that is sure to run only after the next Start. After an error
// (a *scorer.Error: closed, or full) nothing is kept.
func (q *Queue) Put(j *Job) error {
	now := scorer.Now()
	r := q.runner
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case q.closed:
		return errClosed
	case q.former.Full():
		return errFull
	}
	q.former.Add(j, now)
	q.wait = 0
	if !q.listed {
		q.listed = true
		if q.inRun == 0 {
			q.used = max(q.used, r.virtual)
		}
		r.ready = append(r.ready, q)
	}
	return nil
}

// Start has what waits run. Where a slot is idle and the next model's last run
// took less than patience, the caller runs it itself, a few batches at most, and Start
// returns when their owners have their answers; else workers do. It is needed after Put, by
// whoever put or by anybody later.
func (r *Runner) Start(patience time.Duration) {
	r.mu.Lock()
	w := r.claim()
	if w != nil && r.next(w).last >= patience {
		w.wake <- struct{}{}
		w = nil
	}
	if w == nil {
		r.mu.Unlock()
		return
	}
	w.patience = patience
	r.mu.Unlock()
	for n := 1; ; n++ {
		if took, _ := r.look(w, true, false); !took {
			return
		}
		w.serve()
		if !r.again(w, n) {
			return
		}
	}
}

// again ends a caller's nth batch, and reports whether it is to look for another one: to
// wake a worker for what is left costs more than a short run, and the system may take
// milliseconds until it runs that. Else the slot is given back.
func (r *Runner) again(w *worker, n int) bool {
	const most = 4 // batches, most of which are others'
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended(w)
	w.patience -= w.spent
	if n < most && w.patience > 0 && !r.waking && r.next(w) != nil {
		r.waking = true
		return true
	}
	r.park(w)
	r.rouse()
	return false
}

// Start has what waits on q's runner run; see Runner.Start.
func (q *Queue) Start(patience time.Duration) { q.runner.Start(patience) }

// park gives a slot back. Holding mu.
func (r *Runner) park(w *worker) {
	w.patience = 0
	if w.spare {
		r.spare = w
	} else {
		r.idle = append(r.idle, w)
	}
	if r.closed { // Close saw the slot held
		r.wakeAll()
	}
}

// wakeAll wakes the workers of idle slots, which end if nothing waits. Holding mu.
func (r *Runner) wakeAll() {
	for _, w := range r.idle {
		w.wake <- struct{}{}
	}
	if r.spare != nil {
		r.spare.wake <- struct{}{}
	}
	r.idle, r.spare = nil, nil
}

// claim takes an idle slot for somebody who will look for work, unless there is
// none, or somebody is about to look: that one takes all that fits one run, and
// rouses the next if more is left. Holding mu.
func (r *Runner) claim() *worker {
	if r.waking || len(r.ready) == 0 {
		return nil
	}
	w := r.spare
	if n := len(r.idle); n > 0 {
		w = r.idle[n-1]
	}
	if w == nil || r.next(w) == nil {
		return nil
	}
	if w.spare {
		r.spare = nil
	} else {
		r.idle = r.idle[:len(r.idle)-1]
	}
	r.waking = true
	return w
}

// rouse wakes the worker of an idle slot if it is needed. Holding mu.
func (r *Runner) rouse() {
	if w := r.claim(); w != nil {
		w.wake <- struct{}{}
	}
}

// next is the model whose turn it is on w; nil if there is none. Where its runs
// take more slots than are free it waits for them, and nobody overtakes. Holding mu.
func (r *Runner) next(w *worker) (next *Queue) {
	if w.spare && r.busy < r.slots() {
		return nil // a slot is, or is about to look
	}
	for _, q := range r.ready {
		switch {
		case q.wait != 0, w.patience != 0 && q.last >= w.patience, next != nil && next.used <= q.used, w.spare && (q.inRun > 0 || q.width > 1), !r.has(q):
		default:
			next = q
		}
	}
	if next != nil && next.width > r.slots()-r.busy && !w.spare {
		return nil
	}
	return next
}

// decided reports whether w need not let others submit first. Holding mu.
func (r *Runner) decided(w *worker) bool {
	q := r.next(w)
	return q != nil && q.former.Decided()
}

// has reports whether the resources that a run of q takes are free. Holding mu.
func (r *Runner) has(q *Queue) bool {
	for _, need := range q.policy.Resources {
		if r.free[need.Name] < need.Count {
			return false
		}
	}
	return true
}

// reserve takes or, with -1, gives back what a run of q takes. Holding mu.
func (r *Runner) reserve(q *Queue, sign int) {
	for _, need := range q.policy.Resources {
		r.free[need.Name] -= sign * need.Count
	}
}

// expire ends the waits that were decided until now, and returns when the next one
// ends; 0 if there is none. Holding mu.
func (r *Runner) expire(now scorer.Instant) (at scorer.Instant) {
	for _, q := range r.ready {
		if q.wait <= now {
			q.wait = 0
		}
		at = earlier(at, q.wait)
	}
	return at
}

// wakeAt has a worker woken at an instant; 0 is not at all. Holding mu.
func (r *Runner) wakeAt(at, now scorer.Instant) {
	if at != 0 && earlier(at, r.rings) != r.rings {
		r.rings = at
		r.alarm.set(at.Sub(now))
	}
}

// ring is called by the alarm.
func (r *Runner) ring() {
	now := scorer.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rings = 0
	r.wakeAt(r.expire(now), now)
	r.rouse()
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

// Abandon terminates the runs that nobody waits for. To be called when jobs that
// Remove did not get were given up.
func (r *Runner) Abandon() {
	for _, w := range r.all {
		w.abandon()
	}
}

// Abandon terminates the runs on q's runner that nobody waits for.
func (q *Queue) Abandon() { q.runner.Abandon() }

// Waiting is how many jobs wait.
func (q *Queue) Waiting() int {
	q.runner.mu.Lock()
	defer q.runner.mu.Unlock()
	return q.former.Waiting()
}

// Explain tells what was learnt, and why the last batches are as they are.
func (q *Queue) Explain() Explained {
	q.runner.mu.Lock()
	defer q.runner.mu.Unlock()
	e := q.former.Explain(scorer.Now())
	e.Used = q.total
	return e
}

// Close refuses new jobs, waits for those that are there, and frees what the
// workers hold of the model. The instance stays open.
func (q *Queue) Close() {
	r := q.runner
	r.mu.Lock()
	q.closed, q.wait = true, 0
	q.finished()
	r.rouse()
	r.mu.Unlock()
	<-q.drain
	for _, w := range r.all {
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

// look finds w's next batch; false parks w, but its own worker, where the runner
// is closed, is let go. waking says that r.waking is the caller's.
//
// It yields before it looks, where little waits. Whoever woke w, or was just answered
// by it, is often one of several that are about to submit: those that can run do so
// first, and w finds a fuller queue. Not for requests that lately met nobody: to
// yield wakes another thread, which takes the goroutine over, on a core that sleeps.
// Where much else runs, such as to refuse requests, it would cost the device's time.
// Where the next job is worth a wait that is shorter than an alarm is exact, w's worker
// goes on to yield. A caller runs what there is: it may be the one who brings the next.
func (r *Runner) look(w *worker, waking, own bool) (took, end bool) {
	const brief = 50 * time.Microsecond // a longer wait is left to the alarm
	for {
		r.mu.Lock()
		if !r.decided(w) {
			r.mu.Unlock()
			runtime.Gosched()
			r.mu.Lock()
		}
		now := scorer.Now()
		at := r.expire(now)
		took, at = r.take(w, now, at, false)
		near := !took && at != 0 && at.Sub(now) < brief
		if near && own {
			waking = waking || !r.waking
			r.waking = true
			r.mu.Unlock()
			continue
		}
		if near {
			took, at = r.take(w, now, r.expire(at), true)
		}
		if waking {
			r.waking = false
		}
		switch {
		case took:
			r.wakeAt(at, now)
			r.rouse()
		case r.closed && own:
			end = true
		default:
			r.wakeAt(at, now)
			r.park(w)
			r.rouse() // others that became free meanwhile woke nobody, and w may be of no use for what waits
		}
		r.mu.Unlock()
		return took, end
	}
}

// take forms w's batch from the first model that has work. If there is none, at is
// when to look again, the earlier of what it was and what was decided; 0 is when a
// job comes. hurry has nobody wait but where a policy wants it. Holding mu.
func (r *Runner) take(w *worker, now, at scorer.Instant, hurry bool) (took bool, _ scorer.Instant) {
	for q := r.next(w); q != nil; q = r.next(w) {
		w.form(q, now, (r.slots()-r.busy)/q.width-1, hurry && !q.former.fixed)
		if q.former.Waiting() == 0 {
			q.listed = false
			r.unlist(q)
		}
		switch {
		case w.plan.Wait != 0:
			q.wait = w.plan.Wait
			at = earlier(at, q.wait)
		case len(w.plan.Run) > 0 || len(w.plan.Late) > 0:
			r.virtual = max(r.virtual, q.used)
			w.charged = 0
			if len(w.plan.Run) > 0 {
				w.charged = w.plan.Took
			}
			q.charge(w.charged)
			r.reserve(q, 1)
			r.count(w, 1)
			q.inRun++
			return true, at
		}
	}
	return false, at
}

// earlier is the earlier of two instants, of which 0 is never.
func earlier(a, b scorer.Instant) scorer.Instant {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

func (r *Runner) unlist(q *Queue) {
	for i := range r.ready {
		if r.ready[i] == q {
			r.ready = append(r.ready[:i], r.ready[i+1:]...)
			return
		}
	}
}

// count counts a batch that w begins or ends. Holding mu.
func (r *Runner) count(w *worker, n int) {
	if !w.spare {
		r.busy += n * w.queue.width
	}
}

// charge adds device time to what q has used. Holding mu.
func (q *Queue) charge(d time.Duration) {
	weight := q.policy.Weight
	if weight <= 0 {
		weight = 1
	}
	q.used += float64(d) / weight
}

// ended tells that w's batch is over. Holding mu.
func (r *Runner) ended(w *worker) {
	q := w.queue
	q.inRun--
	r.reserve(q, -1)
	r.count(w, -1)
	q.last = w.took
	q.total += w.spent
	q.charge(w.spent - w.charged)
	if w.rows > 0 {
		// What counts is how long the slot was taken: so long did others wait for it.
		q.former.Ran(&w.plan, w.rows, scorer.Now().Sub(w.formed), w.ended)
	}
	q.finished()
}
