package load

import (
	"errors"
	"slices"
	"time"

	"sluice.dev/bench"
	"sluice.dev/bench/stats"
)

// queue is the open loop's state. All is guarded by run.mu.
type queue struct {
	due     []time.Duration // due and not sent, from first on
	first   int
	idle    []*caller // have nothing to do; the last one is asked next
	opening int       // connections that are being opened for queued requests
	ended   bool      // nothing will be due any more
	held    int64     // measured ones that had to wait here
	unsent  int64     // measured ones that were never sent
	offered int64     // measured ones
	late    int64     // measured ones that the generator noticed too late
	lag     *stats.Histogram
}

// longest is how many requests may be queued.
const longest = 1 << 20

func (q *queue) len() int { return len(q.due) - q.first }

// push queues a request.
func (q *queue) push(at time.Duration) {
	if q.first > 1024 && q.first > len(q.due)/2 {
		q.due = slices.Delete(q.due, 0, q.first)
		q.first = 0
	}
	q.due = append(q.due, at)
}

// pop takes the request that waits longest.
func (q *queue) pop() (at time.Duration, ok bool) {
	if q.len() == 0 {
		return 0, false
	}
	q.first++
	return q.due[q.first-1], true
}

// pace is the open loop: it hands requests to connections when they are due, until
// the schedule ends, and never waits for an answer.
func (r *run) pace(s bench.Schedule) {
	r.queue.lag = stats.Fine()
	sleep, done := precise(r.ctx)
	defer done()
	for at, ok := s.Next(); ok && at < r.end() && r.ctx.Err() == nil; at, ok = s.Next() {
		now := r.now()
		for ; now < at && r.ctx.Err() == nil; now = r.now() {
			sleep(at - now)
		}
		r.arrive(at, now)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue.ended = true
	for _, k := range r.queue.idle {
		k.hangUp() // which ends its wait
	}
}

// arrive sends a request that is due over an idle connection, or queues it.
func (r *run) arrive(at, now time.Duration) {
	r.mu.Lock()
	q := r.queue
	measured := at >= r.plan.WarmUp
	if measured {
		q.offered++
		q.lag.Record(now - at)
		if now-at > bench.LateAfter {
			q.late++
		}
	}
	if n := len(q.idle); n > 0 {
		k := q.idle[n-1]
		q.idle = q.idle[:n-1]
		k.free = false
		conn, item := k.conn, k.mark(at, now) // under mu: the connection may end by itself, and its receiver then tells what of
		r.mu.Unlock()
		send(conn, item)
		return
	}
	if measured {
		q.held++
	}
	if q.len() == longest {
		r.drop()
	}
	q.push(at)
	grow := q.opening < q.len() && len(r.callers) < r.plan.InFlight
	if grow {
		q.opening++
	}
	r.mu.Unlock()
	if grow {
		r.begin(nil, (*caller).join)
	}
}

// drop gives up the request that was queued first. The caller holds mu.
func (r *run) drop() {
	if at, ok := r.queue.pop(); ok && at >= r.plan.WarmUp {
		r.queue.unsent++
	}
}

// join is serve, of a connection that was opened for a queued request.
func (k *caller) join() {
	k.run.mu.Lock()
	k.run.queue.opening--
	k.run.mu.Unlock()
	k.serve()
}

var errUnasked = errors.New("an answer came to nothing")

// serve receives answers in the open loop.
func (k *caller) serve() {
	for k.take() {
		err := k.conn.Receive(&k.answer)
		if k.leave() {
			if err == nil || complete(err) {
				err = errUnasked
			}
		} else {
			k.finish(err)
		}
		if err != nil && !k.connect() {
			return
		}
	}
}

// take sends what is queued, else makes the caller idle. It returns false when there
// is nothing left to do.
func (k *caller) take() bool {
	r := k.run
	r.mu.Lock()
	now := r.now()
	at, ok := r.queue.pop()
	if ok || r.queue.ended || r.ctx.Err() != nil {
		r.mu.Unlock()
		if ok && r.ctx.Err() == nil {
			send(k.conn, k.mark(at, now))
			return true
		}
		return false
	}
	k.free = true
	r.queue.idle = append(r.queue.idle, k)
	r.mu.Unlock()
	return true
}

// leave takes the caller out of the idle ones, and tells whether it was one.
func (k *caller) leave() bool {
	r := k.run
	r.mu.Lock()
	defer r.mu.Unlock()
	was := k.free
	if was {
		k.free = false
		i := slices.Index(r.queue.idle, k)
		r.queue.idle = slices.Delete(r.queue.idle, i, i+1)
	}
	return was
}
