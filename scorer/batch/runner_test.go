package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice.dev/accel"
	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sums is the signature of summer: rows of width floats in, their sum out.
func sums(rows, width int64) *tensor.Signature {
	return &tensor.Signature{
		Inputs:  []tensor.Info{{Name: "x", DType: tensor.Float32, Shape: []int64{rows, width}}},
		Outputs: []tensor.Info{{Name: "sum", DType: tensor.Float32, Shape: []int64{-1}}},
	}
}

// summer is a device that adds up each row. It fails on a row with a NaN, can be
// made to wait, and writes down what it ran.
type summer struct {
	sig  *tensor.Signature
	gate chan struct{} // if not nil, every run takes one token
	stop chan struct{} // Terminate sends one token
	open atomic.Int64  // calls that were bound and not closed

	mu   sync.Mutex
	runs []int // rows of each run
}

func (s *summer) Signature() *tensor.Signature { return s.sig }
func (s *summer) Close() error                 { return nil }

func (s *summer) Bind(in, out []tensor.Tensor) (accel.Call, error) {
	s.open.Add(1)
	in[0].Shape, out[0].Shape = slices.Clone(in[0].Shape), slices.Clone(out[0].Shape)
	return &sum{device: s, in: in[0], out: out[0]}, nil
}

func (s *summer) ran() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.runs)
}

type sum struct {
	device  *summer
	in, out tensor.Tensor
}

func (c *sum) Run() error {
	if c.device.gate != nil {
		select {
		case <-c.device.gate:
		case <-c.device.stop:
			return errors.New("terminated")
		}
	}
	rows, width := int(c.in.Shape[0]), int(c.in.Shape[1])
	c.device.mu.Lock()
	c.device.runs = append(c.device.runs, rows)
	c.device.mu.Unlock()
	if c.out.Data == nil {
		c.out = tensor.Tensor{DType: tensor.Float32, Shape: []int64{int64(rows)}, Data: make([]byte, 4*rows)}
	}
	for r := range rows {
		var total float32
		for i := range width {
			total += math.Float32frombits(binary.LittleEndian.Uint32(c.in.Data[4*(r*width+i):]))
		}
		if total != total {
			return errors.New("a row is not a number")
		}
		binary.LittleEndian.PutUint32(c.out.Data[4*r:], math.Float32bits(total))
	}
	return nil
}

func (c *sum) Terminate() {
	select {
	case c.device.stop <- struct{}{}:
	default: // once is enough
	}
}
func (c *sum) Output(int) tensor.Tensor { return c.out }
func (c *sum) Close() error             { c.device.open.Add(-1); return nil }

// caller owns one job and keeps its answer.
type caller struct {
	job     Job
	gone    atomic.Bool
	sums    []float32
	err     error
	answers atomic.Int32
	by      string // the goroutine that answered
	done    chan struct{}
}

func newCaller(width int, rows ...float32) *caller {
	c := &caller{done: make(chan struct{})}
	data := make([]byte, 0, 4*width*len(rows))
	for _, v := range rows {
		for range width {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
		}
	}
	in := tensor.Tensor{DType: tensor.Float32, Shape: []int64{int64(len(rows)), int64(width)}, Data: data}
	c.job = Job{In: []tensor.Tensor{in}, Rows: len(rows), Deadline: math.MaxInt64, Owner: c}
	return c
}

func (c *caller) Hold(*Job) bool   { return !c.gone.Load() }
func (c *caller) Release(*Job)     {}
func (c *caller) Wanted(*Job) bool { return !c.gone.Load() }
func (c *caller) Done(_ *Job, out []tensor.Tensor, err error) {
	c.err, c.by = err, goroutine()
	if err == nil {
		for i := range int(out[0].Shape[0]) {
			c.sums = append(c.sums, math.Float32frombits(binary.LittleEndian.Uint32(out[0].Data[4*i:])))
		}
	}
	if c.answers.Add(1) == 1 {
		close(c.done)
	}
}

// want checks a caller's only answer.
func (c *caller) want(t *testing.T, status scorer.Status, sums ...float32) {
	t.Helper()
	<-c.done
	got := scorer.OK
	if known := (*scorer.Error)(nil); errors.As(c.err, &known) {
		got = known.Status
	} else if c.err != nil {
		t.Errorf("error %v is not a scorer.Error", c.err)
	}
	if got != status || !slices.Equal(c.sums, sums) || c.answers.Load() != 1 {
		t.Errorf("answered %v %v (%v), %d times; want %v %v", got, c.sums, c.err, c.answers.Load(), status, sums)
	}
}

// flat is a queue of which a run takes no time however many rows it has.
func flat(device *summer, limit int) Options {
	var dims []int64
	if device.sig.Inputs[0].Shape[1] < 0 {
		dims = []int64{3}
	}
	c := ShapeCosts{Dims: dims}
	for i := range cellOf(limit) + 1 {
		c.Curve = append(c.Curve, Point{Rows: sizeOf(i), Time: 1, Runs: 4})
	}
	return Options{Limit: limit, Learnt: []ShapeCosts{c}}
}

// start runs device behind one worker, and stops it when the test ends.
func start(t *testing.T, device *summer, slots, limit int) *Queue {
	r := NewRunner(slots)
	q := r.Open(device, flat(device, limit))
	t.Cleanup(func() {
		q.Close()
		r.Close()
		if n := device.open.Load(); n != 0 {
			t.Errorf("%d calls were not closed", n)
		}
	})
	return q
}

// Submit puts a job and has a worker run it.
func (q *Queue) Submit(j *Job) bool {
	err := q.Put(j)
	q.Start(0)
	return err == nil
}

// taken returns when the device has what waits.
func taken(q *Queue) {
	for q.Waiting() > 0 {
		runtime.Gosched()
	}
}

func TestWhatWaitsRunsTogether(t *testing.T) {
	for _, width := range []int64{3, -1} { // memory bound once; memory bound per run
		device := &summer{sig: sums(-1, width), gate: make(chan struct{}, 100)}
		q := start(t, device, 1, 4)
		first := newCaller(3, 1)
		q.Submit(&first.job)
		taken(q)
		var rest []*caller
		for i := range 5 {
			c := newCaller(3, float32(i))
			rest = append(rest, c)
			q.Submit(&c.job)
		}
		for range 10 {
			device.gate <- struct{}{}
		}
		first.want(t, scorer.OK, 3)
		for i, c := range rest {
			c.want(t, scorer.OK, float32(3*i))
		}
		if got := device.ran(); !slices.Equal(got, []int{1, 4, 1}) {
			t.Errorf("ran %v rows; want 1, then 4 that waited, then 1", got)
		}
	}
}

func TestAJobOverTheLimitIsSplitAndJoinedInOrder(t *testing.T) {
	for _, slots := range []int{1, 3} {
		q := start(t, &summer{sig: sums(-1, 2)}, slots, 4)
		c := newCaller(2, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
		q.Submit(&c.job)
		c.want(t, scorer.OK, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18)
	}
}

func TestABadMemberFailsAlone(t *testing.T) {
	device := &summer{sig: sums(-1, 2), gate: make(chan struct{}, 100)}
	q := start(t, device, 1, 8)
	first := newCaller(2, 1)
	q.Submit(&first.job)
	taken(q)
	good, bad, also := newCaller(2, 1, 2), newCaller(2, float32(math.NaN())), newCaller(2, 3)
	for _, c := range []*caller{good, bad, also} {
		q.Submit(&c.job)
	}
	for range 10 {
		device.gate <- struct{}{}
	}
	good.want(t, scorer.OK, 2, 4)
	bad.want(t, scorer.ModelFailed)
	also.want(t, scorer.OK, 6)
}

func TestABadPieceFailsItsWholeJob(t *testing.T) {
	q := start(t, &summer{sig: sums(-1, 1)}, 2, 2)
	rows := make([]float32, 20)
	rows[3] = float32(math.NaN())
	c := newCaller(1, rows...)
	q.Submit(&c.job)
	c.want(t, scorer.ModelFailed)
	after := newCaller(1, 7)
	q.Submit(&after.job)
	after.want(t, scorer.OK, 7)
}

func TestNobodyRunsForWhoLeft(t *testing.T) {
	device := &summer{sig: sums(-1, 1), gate: make(chan struct{}, 100)}
	q := start(t, device, 1, 8)
	first, left, removed, late := newCaller(1, 1), newCaller(1, 2), newCaller(1, 3), newCaller(1, 4)
	q.Submit(&first.job)
	taken(q)
	late.job.Deadline = scorer.Now()
	for _, c := range []*caller{left, removed, late} {
		q.Submit(&c.job)
	}
	left.gone.Store(true)
	if !q.Remove(&removed.job) || q.Remove(&removed.job) || q.Remove(&first.job) {
		t.Error("Remove did not take out exactly the job that waits")
	}
	for range 10 {
		device.gate <- struct{}{}
	}
	first.want(t, scorer.OK, 1)
	left.want(t, scorer.Canceled)
	late.want(t, scorer.DeadlineExceeded)
	if got := device.ran(); !slices.Equal(got, []int{1}) || removed.answers.Load() != 0 {
		t.Errorf("ran %v rows, answered the removed job %d times", got, removed.answers.Load())
	}
}

// goroutine is the number of the calling goroutine.
func goroutine() string {
	b := make([]byte, 64)
	return strings.Fields(string(b[:runtime.Stack(b, false)]))[1]
}

func TestACallerRunsAShortModelItself(t *testing.T) {
	device := &summer{sig: sums(-1, 1)}
	q := start(t, device, 1, 2)
	first := newCaller(1, 1)
	_ = q.Put(&first.job)
	q.Start(time.Hour)
	first.want(t, scorer.OK, 1)
	if first.by == goroutine() {
		t.Error("the caller ran a model whose time is not known")
	}
	idle(q)
	lone := newCaller(1, 2)
	_ = q.Put(&lone.job)
	q.Start(time.Hour)
	if lone.answers.Load() != 1 || lone.by != goroutine() {
		t.Fatal("Start returned before it had run the job itself")
	}
	lone.want(t, scorer.OK, 2)

	// Four batches are the caller's; what they leave is the worker's.
	var nine []*caller
	for i := range 9 {
		c := newCaller(1, float32(i))
		nine = append(nine, c)
		_ = q.Put(&c.job)
	}
	q.Start(time.Hour)
	for i, c := range nine {
		c.want(t, scorer.OK, float32(i))
		if mine := c.by == goroutine(); mine != (i < 8) {
			t.Errorf("job %d ran on the caller: %v", i, mine)
		}
	}
	idle(q)
	slow := newCaller(1, 3)
	_ = q.Put(&slow.job)
	q.Start(0)
	slow.want(t, scorer.OK, 3)
	if slow.by == goroutine() {
		t.Error("a caller without patience ran the model")
	}
}

func TestACallerHoldsTheSlotWhileTheRunnerCloses(t *testing.T) {
	device := &summer{sig: sums(-1, 1), gate: make(chan struct{}, 1)}
	r := NewRunner(1)
	q := r.Open(device, Options{})
	device.gate <- struct{}{}
	first := newCaller(1, 1)
	q.Submit(&first.job)
	first.want(t, scorer.OK, 1)
	idle(q)
	c := newCaller(1, 2)
	_ = q.Put(&c.job)
	led := make(chan struct{})
	go func() { q.Start(time.Hour); close(led) }()
	taken(q)
	closed := make(chan struct{})
	go func() { q.Close(); r.Close(); close(closed) }()
	device.gate <- struct{}{}
	<-led
	<-closed
	c.want(t, scorer.OK, 2)
}

// idle returns when every slot of q's runner is free.
func idle(q *Queue) {
	for r := q.runner; ; runtime.Gosched() {
		r.mu.Lock()
		free := len(r.idle) == r.slots() && r.spare != nil
		r.mu.Unlock()
		if free {
			return
		}
	}
}

func TestAClosedQueueFinishesAndRefuses(t *testing.T) {
	device := &summer{sig: sums(-1, 1), gate: make(chan struct{}, 100)}
	r := NewRunner(2)
	q := r.Open(device, Options{Limit: 2})
	var all []*caller
	for i := range 9 {
		c := newCaller(1, float32(i))
		all = append(all, c)
		q.Submit(&c.job)
	}
	closed := make(chan struct{})
	go func() { q.Close(); close(closed) }()
	for c := newCaller(1, 0); q.Submit(&c.job); c = newCaller(1, 0) {
		all = append(all, c)
		c.sums = nil
	}
	close(device.gate) // every run may go on
	<-closed
	for i, c := range all[:9] {
		c.want(t, scorer.OK, float32(i))
	}
	r.Close()
	if device.open.Load() != 0 {
		t.Error("calls of a closed queue are still bound")
	}
}

// While one model holds the only slot, another one's batch runs beside it.
func TestAQuietModelDoesNotWaitForAFloodedOne(t *testing.T) {
	r := NewRunner(1)
	defer r.Close()
	busy, quiet := &summer{sig: sums(-1, 1), gate: make(chan struct{}, 100)}, &summer{sig: sums(-1, 1)}
	qb, qq := r.Open(busy, Options{}), r.Open(quiet, Options{})
	defer qb.Close()
	defer qq.Close()
	var flood []*caller
	for range 20 {
		c := newCaller(1, 1)
		flood = append(flood, c)
		qb.Submit(&c.job)
	}
	for n := 19; n > 0; n = qb.Waiting() - 19 {
		runtime.Gosched() // until the slot is held
	}
	lone := newCaller(1, 5)
	qq.Submit(&lone.job)
	lone.want(t, scorer.OK, 5)
	close(busy.gate)
	for _, c := range flood {
		c.want(t, scorer.OK, 1)
	}
}

// A delay that was set is kept by the timer, and ends when the queue closes.
func TestADelayIsKept(t *testing.T) {
	device := &summer{sig: sums(-1, 1)}
	r := NewRunner(1)
	defer r.Close()
	q := r.Open(device, Options{Limit: 4, Policy: &Policy{Delay: 20 * time.Millisecond}})
	began := time.Now()
	a, b := newCaller(1, 1), newCaller(1, 2)
	q.Submit(&a.job)
	q.Submit(&b.job)
	a.want(t, scorer.OK, 1)
	b.want(t, scorer.OK, 2)
	if took := time.Since(began); took < 20*time.Millisecond || !slices.Equal(device.ran(), []int{2}) {
		t.Errorf("ran %v after %v", device.ran(), took)
	}
	q.Close()
	endless := r.Open(device, Options{Limit: 4, Policy: &Policy{Delay: time.Hour}})
	c := newCaller(1, 3)
	endless.Submit(&c.job)
	endless.Close()
	c.want(t, scorer.OK, 3)
}

// Two flooded models get as much of the device's time each, not as many runs.
func TestModelsShareADeviceByTime(t *testing.T) {
	r := &Runner{free: map[string]int{}, most: map[string]int{}}
	r.all = make([]*worker, 2)
	w := &worker{runner: r, wake: make(chan struct{}, 1)}
	var queues [2]*Queue
	for i := range queues {
		queues[i] = r.Open(&summer{sig: sums(-1, 1)}, Options{})
		for range 1000 {
			if err := queues[i].Put(&newCaller(1, 1).job); err != nil {
				t.Fatal(err)
			}
		}
	}
	cost := [2]time.Duration{time.Millisecond, 7 * time.Millisecond}
	for range 800 {
		if took, _ := r.take(w, 1, 0, false); !took {
			t.Fatal("nothing to run")
		}
		for i := range queues {
			if w.queue == queues[i] {
				w.took, w.spent, w.rows = cost[i], cost[i], 1
			}
		}
		r.ended(w)
	}
	if a, b := queues[0].total, queues[1].total; max(a, b)-min(a, b) > 7*time.Millisecond {
		t.Errorf("the device worked for %v and %v", a, b)
	}
}

// A run that takes two slots waits for both, and nobody takes one from it meanwhile.
func TestAWideRunHasItsSlots(t *testing.T) {
	r := &Runner{free: map[string]int{}, most: map[string]int{}}
	r.all = make([]*worker, 3)
	workers := [2]*worker{{runner: r}, {runner: r}}
	open := func(width int) *Queue {
		q := r.Open(&summer{sig: sums(-1, 1)}, Options{Width: width})
		for range 10 {
			if err := q.Put(&newCaller(1, 1).job); err != nil {
				t.Fatal(err)
			}
		}
		return q
	}
	take := func(i int, want *Queue) {
		t.Helper()
		took, _ := r.take(workers[i], 1, 0, false)
		if took != (want != nil) || took && workers[i].queue != want {
			t.Fatalf("slot %d took %v; want %p", i, took, want)
		}
	}
	end := func(i int) {
		workers[i].spent = time.Millisecond
		r.ended(workers[i])
	}
	narrow, wide := open(1), open(2)
	take(0, narrow)
	narrow.used = 2 // so that it is the wide one's turn
	take(1, nil)
	end(0)
	take(0, wide)
	take(1, nil)
	end(0)
	wide.used *= 3
	take(1, narrow)
}

// A slot that became free while the spare was about to look woke nobody: the spare does.
func TestTheSpareWakesAFreeSlot(t *testing.T) {
	q := start(t, &summer{sig: sums(-1, 1)}, 1, 1)
	idle(q)
	c := newCaller(1, 7)
	if err := q.Put(&c.job); err != nil {
		t.Fatal(err)
	}
	r := q.runner
	r.mu.Lock()
	w := r.spare
	r.spare, r.waking = nil, true
	r.mu.Unlock()
	if took, _ := r.look(w, true, false); took {
		t.Fatal("the spare took what a free slot shall")
	}
	c.want(t, scorer.OK, 7)
}

// Whichever model's turn it is, a caller runs none that lasts longer than it has patience for.
func TestACallerRunsNoLongModel(t *testing.T) {
	r := &Runner{free: map[string]int{}, most: map[string]int{}}
	r.all = make([]*worker, 2)
	long, short := r.Open(&summer{sig: sums(-1, 1)}, Options{}), r.Open(&summer{sig: sums(-1, 1)}, Options{})
	long.last, short.last = time.Second, time.Microsecond
	w := &worker{runner: r, wake: make(chan struct{}, 1), patience: time.Millisecond}
	_ = long.Put(&newCaller(1, 1).job)
	if took, _ := r.take(w, 1, 0, false); took {
		t.Error("took the long one")
	}
	_ = short.Put(&newCaller(1, 1).job)
	if took, _ := r.take(w, 1, 0, false); !took || w.queue != short {
		t.Error("did not take the short one")
	}
}

// That one model waits is not forgotten where another one runs.
func TestAWaitIsKeptBesideARun(t *testing.T) {
	r := &Runner{free: map[string]int{}, most: map[string]int{}}
	r.all = make([]*worker, 2)
	waits := r.Open(&summer{sig: sums(-1, 1)}, Options{Limit: 2, Policy: &Policy{Delay: time.Hour}})
	runs := r.Open(&summer{sig: sums(-1, 1)}, Options{})
	_, _ = waits.Put(&newCaller(1, 1).job), runs.Put(&newCaller(1, 1).job)
	w := &worker{runner: r}
	took, at := r.take(w, scorer.Now(), 0, false)
	if !took || w.queue != runs || waits.wait == 0 || at != waits.wait {
		t.Errorf("took %v; wakes at %v, not at %v", took, at, waits.wait)
	}
}

// Members that ran one by one since all together failed tell nothing of what runs cost.
func TestAFailedBatchTeachesNothing(t *testing.T) {
	device := &summer{sig: sums(-1, 1), gate: make(chan struct{}, 9)}
	q := start(t, device, 1, 4)
	first := newCaller(1, 1) // holds the slot until the others wait
	q.Submit(&first.job)
	taken(q)
	good, bad := newCaller(1, 2), newCaller(1, float32(math.NaN()))
	_, _ = q.Put(&good.job), q.Put(&bad.job)
	for range 4 {
		device.gate <- struct{}{}
	}
	q.Start(0)
	first.want(t, scorer.OK, 1)
	good.want(t, scorer.OK, 2)
	bad.want(t, scorer.ModelFailed)
	idle(q)
	q.runner.mu.Lock()
	defer q.runner.mu.Unlock()
	if n := q.former.shapes[0].curve.Runs(); n != 1 {
		t.Errorf("%d runs were observed", n)
	}
}

func TestManyCallersGetTheirOwnAnswers(t *testing.T) {
	q := start(t, &summer{sig: sums(-1, 5)}, 2, 16)
	var callers sync.WaitGroup
	for g := range 32 {
		callers.Go(func() {
			for i := range 200 {
				v := float32(g*1000 + i)
				c := newCaller(5, v, v+1)
				if err := q.Put(&c.job); err != nil {
					t.Error(err)
					return
				}
				q.Start(time.Duration(g) * time.Microsecond) // some run batches, some wake workers
				c.want(t, scorer.OK, 5*v, 5*(v+1))
			}
		})
	}
	callers.Wait()
}

func ExampleFormer() {
	f := NewFormer(sums(-1, 4), 4, nil)
	for rows := range 3 {
		f.Add(&Job{Rows: rows + 1, Deadline: 100}, 1)
	}
	for p := new(Plan); f.Waiting() > 0; {
		f.Form(1, 0, false, p)
		fmt.Println("a run of", len(p.Run), "jobs")
	}
	// Output:
	// a run of 2 jobs
	// a run of 1 jobs
}

func BenchmarkSubmit(b *testing.B) {
	for _, callers := range []int{1, 32} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			r := NewRunner(2)
			defer r.Close()
			q := r.Open(&summer{sig: sums(-1, 64)}, Options{Limit: 64})
			defer q.Close()
			var wg sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for range callers {
				wg.Go(func() {
					o := newWaiting(64)
					for range b.N / callers {
						o.ticket = o.wait.Arm()
						_ = q.Put(&o.job)
						q.Start(time.Millisecond)
						o.wait.Wait()
					}
				})
			}
			wg.Wait()
		})
	}
}

// waiting is an owner that waits as the scorer's callers do.
type waiting struct {
	job    Job
	wait   *scorer.Waiter
	ticket scorer.Ticket
}

func newWaiting(width int) *waiting {
	w := &waiting{wait: scorer.NewWaiter(), job: newCaller(width, 1).job}
	w.job.Owner = w
	return w
}

func (w *waiting) Hold(*Job) bool   { return w.wait.Claim(w.ticket) }
func (w *waiting) Release(*Job)     { w.wait.Release(w.ticket) }
func (w *waiting) Wanted(*Job) bool { return w.wait.Wanted(w.ticket) }
func (w *waiting) Done(*Job, []tensor.Tensor, error) {
	if w.wait.Claim(w.ticket) {
		w.wait.Finish(w.ticket)
	}
}

// A run ends when its last member has gone, and not before.
func TestARunThatNobodyWaitsForIsTerminated(t *testing.T) {
	device := &summer{sig: sums(-1, 3), gate: make(chan struct{}, 1), stop: make(chan struct{}, 1)}
	q := start(t, device, 1, 4)
	first, a, b := newCaller(3, 1), newCaller(3, 2), newCaller(3, 3)
	q.Submit(&first.job)
	taken(q)
	q.Submit(&a.job)
	q.Submit(&b.job)
	device.gate <- struct{}{}
	first.want(t, scorer.OK, 3)
	taken(q)
	a.gone.Store(true)
	for range 1000 {
		q.Abandon()
		runtime.Gosched()
	}
	if len(device.stop) > 0 {
		t.Error("a run that somebody waits for was terminated")
	}
	b.gone.Store(true)
	for over := false; !over; {
		q.Abandon()
		select {
		case <-b.done:
			over = true
		default:
			runtime.Gosched()
		}
	}
	a.want(t, scorer.Canceled)
	b.want(t, scorer.Canceled)
}

// What a worker keeps for a model grows with the largest batch that it got, and the
// calls over smaller buffers are given back.
func TestMemoryGrowsWithTheBatches(t *testing.T) {
	device := &summer{sig: sums(-1, 4)}
	s := newSpace(device, 64, &Policy{})
	for _, step := range []struct{ rows, room, open int }{{1, 1, 1}, {1, 1, 1}, {2, 2, 1}, {1, 2, 2}, {3, 4, 1}, {50, 50, 1}, {60, 64, 1}, {64, 64, 2}} {
		job := &Job{Rows: step.rows, In: []tensor.Tensor{{DType: tensor.Float32, Shape: []int64{int64(step.rows), 4}, Data: make([]byte, 16*step.rows)}}}
		run := []Segment{{Job: job, Rows: step.rows}}
		s.begin(run)
		s.gather(&run[0])
		call, err := s.call(step.rows, job)
		if err != nil || call.Run() != nil || len(call.Output(0).Data) != 4*step.rows {
			t.Fatalf("%d rows: %v, %v", step.rows, call, err)
		}
		if cap(s.in[0]) != 16*step.room || int(device.open.Load()) != step.open {
			t.Errorf("after %d rows: %d bytes and %d calls; want %d and %d", step.rows, cap(s.in[0]), device.open.Load(), 16*step.room, step.open)
		}
	}
	if s.closeAll(); device.open.Load() != 0 {
		t.Errorf("%d calls are left", device.open.Load())
	}
}
