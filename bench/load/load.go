// Package load sends requests as a plan says and measures what comes back.
//
// In a closed loop every connection asks as soon as it has its answer: that finds
// out what a target can do, and what it costs. In an open loop a schedule says when
// requests are due, whatever comes back: latency counts from then, so that a target
// that stalls is charged for all who came meanwhile. A request that is due while all
// connections are busy waits in a queue of ours, and is counted as held. What makes
// the generator itself late is counted apart.
package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/bench"
)

// Work is what a run asks, and whom.
type Work struct {
	Dial  bench.Dial
	Items []bench.Item // asked in turn
	PIDs  []int        // the target's processes: their CPU time and memory count, and those of all that they start
	// Progress, where given, is told twice a second how far the run is.
	Progress func(Progress)
}

// Progress is how far a run is.
type Progress struct {
	At          time.Duration // since the start, the warm-up included
	Right       int64         // answers so far, the warm-up's included
	Failed      int64
	P99         time.Duration // of those measured so far
	Connections int
	Held        int // due and not sent
}

// run is a measurement under way.
type run struct {
	plan  bench.Plan
	work  *Work
	ctx   context.Context // done: nothing is sent or opened any more
	start time.Time       // of the warm-up
	rec   *recorder
	next  atomic.Int64 // items asked
	wg    sync.WaitGroup

	mu      sync.Mutex
	callers []*caller // guarded by mu
	queue   *queue    // guarded by mu; nil in a closed loop
}

func (r *run) now() time.Duration { return time.Since(r.start) }

func (r *run) end() time.Duration { return r.plan.WarmUp + r.plan.Duration }

// Run measures a target as plan says. It fails where nothing can be measured: the
// plan is wrong, or a connection cannot be opened at the start.
func Run(ctx context.Context, plan bench.Plan, work *Work) (*bench.Result, error) {
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	if len(work.Items) == 0 {
		return nil, errors.New("there is nothing to ask")
	}
	conns, err := open(ctx, plan.Connections, work.Dial)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &run{plan: plan, work: work, ctx: ctx, rec: newRecorder(&plan, len(work.Items)), start: time.Now()}
	defer context.AfterFunc(ctx, r.abort)()
	m := startMeter(r)
	loop := (*caller).ask
	if plan.Arrivals != nil {
		r.queue, loop = &queue{}, (*caller).serve
	}
	for _, c := range conns {
		r.begin(c, loop)
	}
	if plan.Arrivals != nil {
		r.pace(plan.Arrivals())
	}
	r.wg.Wait()
	m.stop()
	return r.result(m), ctx.Err()
}

// begin starts a caller on a connection, or on one that it opens itself.
func (r *run) begin(c bench.Conn, loop func(*caller)) {
	k := &caller{run: r, conn: c}
	k.sent.Store(idle)
	r.mu.Lock()
	k.shard = r.rec.shard(len(r.callers))
	r.callers = append(r.callers, k)
	r.mu.Unlock()
	r.wg.Go(func() {
		if k.conn != nil || k.connect() {
			loop(k)
		}
		if k.conn != nil {
			_ = k.conn.Close()
		}
	})
}

// abort ends what is under way.
func (r *run) abort() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.callers {
		k.hangUp()
	}
}

// expire ends requests that take too long, and gives up those that have been due for
// so long and were not even sent.
func (r *run) expire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	oldest := r.now() - r.plan.Timeout
	for _, k := range r.callers {
		if sent := k.sent.Load(); sent != idle && time.Duration(sent) < oldest {
			k.late.Store(true)
			k.hangUp()
		}
	}
	for q := r.queue; q != nil && q.len() > 0 && q.due[q.first] < oldest; {
		r.drop()
	}
}

// open opens n connections, at most 64 at a time.
func open(ctx context.Context, n int, dial bench.Dial) ([]bench.Conn, error) {
	conns, fails := make([]bench.Conn, n), make([]error, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, 64) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if conns[i], fails[i] = dial(ctx); fails[i] != nil {
					next.Add(int64(n)) // the others need not try
				}
			}
		})
	}
	wg.Wait()
	for i, err := range fails {
		if err == nil {
			continue
		}
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
		return nil, fmt.Errorf("open connection %d of %d: %w", i+1, n, err)
	}
	return conns, nil
}

// Once asks one thing over a connection of its own. The answer is the caller's.
func Once(ctx context.Context, dial bench.Dial, item *bench.Item) (*bench.Answer, error) {
	c, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if err := c.Send(item); err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	a := &bench.Answer{}
	if err := c.Receive(a); err != nil && !complete(err) {
		return nil, fmt.Errorf("receive: %w", errors.Join(err, ctx.Err()))
	}
	return a, nil
}

// Right is Once where only a right answer will do.
func Right(ctx context.Context, dial bench.Dial, item *bench.Item) (*bench.Answer, error) {
	a, err := Once(ctx, dial, item)
	if err == nil && a.Failure != "" {
		err = fmt.Errorf("%s: %.300q", a.Failure, a.Body)
	}
	if err == nil && item.Check != nil {
		err = item.Check(a)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", item.Name, err)
	}
	return a, nil
}
