package load

import (
	"errors"
	"sync/atomic"
	"time"

	"sluice.dev/bench"
	"sluice.dev/bench/client"
)

// caller is one connection, and the goroutine that receives on it.
//
// In a closed loop that goroutine sends too. In an open one the pacer sends, unless
// something is queued when an answer has come: then the goroutine does.
type caller struct {
	run    *run
	shard  *shard
	conn   bench.Conn // written under run.mu by its goroutine, while it is not idle
	answer bench.Answer

	item atomic.Int64 // index of what is asked
	due  atomic.Int64 // since the start, ns
	sent atomic.Int64 // since the start, ns; idle where nothing is under way
	late atomic.Bool  // it took longer than the timeout
	free bool         // guarded by run.mu: it is in the queue's list of idle callers
}

const idle = -1

// complete tells that an error comes with a whole answer.
func complete(err error) bool { return errors.Is(err, client.ErrClosing) }

// ask is the closed loop.
func (k *caller) ask() {
	for now := k.run.now(); now < k.run.end() && k.run.ctx.Err() == nil; now = k.run.now() {
		item := k.mark(now, now)
		err := k.conn.Send(item)
		if err == nil {
			err = k.conn.Receive(&k.answer)
		}
		k.finish(err)
		if err != nil && !k.connect() {
			return
		}
	}
}

// mark notes that a request is under way, and returns it.
func (k *caller) mark(due, now time.Duration) *bench.Item {
	i := int((k.run.next.Add(1) - 1) % int64(len(k.run.work.Items)))
	k.item.Store(int64(i))
	k.due.Store(int64(due))
	k.sent.Store(int64(now))
	return &k.run.work.Items[i]
}

// send sends a request over conn. Where it cannot, the connection ends, and with it
// the receiver's wait.
func send(conn bench.Conn, item *bench.Item) {
	if conn.Quick(item) {
		if conn.Send(item) != nil {
			_ = conn.Close()
		}
		return
	}
	go func() { // ends with the connection at the latest
		if conn.Send(item) != nil {
			_ = conn.Close()
		}
	}()
}

// finish records what came of the request under way.
func (k *caller) finish(err error) {
	now := k.run.now()
	k.sent.Store(idle)
	due, item := time.Duration(k.due.Load()), int(k.item.Load())
	switch {
	case err == nil || complete(err):
		if k.answer.Failure == "" {
			k.shard.right(k.run, due, now, item, &k.answer)
			return
		}
		k.shard.failure(due, now, k.answer.Failure, &k.answer)
	case k.late.Load():
		k.shard.failure(due, now, bench.TimedOut, nil)
	case k.run.ctx.Err() == nil:
		k.shard.failure(due, now, bench.Broken, nil)
	}
}

// hangUp ends what is under way. The caller holds run.mu.
func (k *caller) hangUp() {
	if k.conn != nil {
		_ = k.conn.Close()
	}
}

// connect replaces the connection, and tries until it can. It returns false when
// there is nothing left to ask. A request that waits for a connection fails with
// each attempt.
func (k *caller) connect() bool {
	if k.conn != nil {
		_ = k.conn.Close()
	}
	for wait := time.Millisecond; !k.run.over(); wait = min(2*wait, 100*time.Millisecond) {
		c, err := k.run.work.Dial(k.run.ctx)
		if err == nil {
			k.run.mu.Lock()
			k.conn = c
			k.late.Store(false)
			k.run.mu.Unlock()
			if k.run.ctx.Err() != nil {
				_ = c.Close() // abort did not see it
			}
			return true
		}
		k.run.refused(k)
		pause(k.run.ctx, wait)
	}
	return false
}

// over tells that a caller without a connection need not open one.
func (r *run) over() bool {
	if r.ctx.Err() != nil {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.queue == nil {
		return r.now() >= r.end()
	}
	return r.queue.ended && r.queue.len() == 0
}

// refused counts a request that got no connection: the one that would be asked now,
// or the first that is queued.
func (r *run) refused(k *caller) {
	now := r.now()
	due := now
	if r.queue != nil {
		r.mu.Lock()
		var ok bool
		due, ok = r.queue.pop()
		r.mu.Unlock()
		if !ok {
			return
		}
	}
	if r.ctx.Err() == nil {
		k.shard.failure(due, now, bench.NoConnect, nil)
	}
}
