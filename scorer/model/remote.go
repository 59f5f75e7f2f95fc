package model

import (
	"sync"
	"time"

	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
	"sluice.dev/scorer/batch"
	"sluice.dev/scorer/codec"
)

// Pending is a request that came over a wire and is answered later.
type Pending interface {
	// Begin is called by Put, before any other: until Reply returns w.Withdraw takes
	// the request back if no run has begun it. True: it is over, without a Reply.
	Begin(w interface{ Withdraw() bool })
	// Canceled reports whether nobody wants the answer any more.
	Canceled() bool
	// Reply answers, exactly once; resp is lent until it returns.
	Reply(resp *scorer.Response)
}

// remote is one request of a caller beyond a wire.
type remote struct {
	version *Version
	pending Pending
	req     scorer.Request
	infer   codec.Infer
	job     batch.Job
	resp    scorer.Response
}

var remotes = sync.Pool{New: func() any { return new(remote) }}

// inlineBody is up to what size in bytes a body is decoded on the caller's
// goroutine, which reads other requests from the same connection.
const inlineBody = 64 << 10

// Put begins a request and returns; p.Reply ends it, perhaps before. req.Body is
// lent until then; req.Wait is not used. It is sure to run only after the set's
// next Start.
func (v *Version) Put(req scorer.Request, p Pending) {
	r := remotes.Get().(*remote)
	r.version, r.pending, r.req = v, p, req
	p.Begin(r)
	if len(req.Body) <= inlineBody {
		r.put()
		return
	}
	go func() { // ends with the request; Close waits for its job
		r.put()
		v.queue.Start(0)
	}()
}

// readerPatience is how long a run may last that the caller of Start does itself.
// It reads requests from a connection, so it does what is cheaper than to wake
// another thread, and no more.
const readerPatience = 30 * time.Microsecond

// Start has run what was Put.
func (s *Set) Start() {
	for _, r := range *s.started.Load() {
		r.Start(readerPatience)
	}
}

// Abandon ends what runs for nobody, after what was Put was cancelled.
func (s *Set) Abandon() {
	for _, r := range *s.started.Load() {
		r.Abandon()
	}
}

func (r *remote) put() {
	v := r.version
	r.resp.Reset()
	r.job.Owner = r
	if r.req.Kind == scorer.Stats {
		v.report(&r.resp)
		r.reply()
		return
	}
	err := v.decode(&r.req, &r.infer, &r.job)
	if err == nil && r.pending.Canceled() {
		err = errLeft
		v.tally.fail(errLeft.Status, 0)
	}
	if err == nil {
		if err = v.queue.Put(&r.job); err == nil {
			return
		}
	}
	fail(&r.resp, err)
	r.reply()
}

var errLeft = &scorer.Error{Status: scorer.Canceled, Message: "the request was cancelled before it was queued"}

// Withdraw takes r out of the queue; see Pending. One that is being decoded is not in
// it, and finds out itself.
func (r *remote) Withdraw() bool {
	if !r.version.queue.Remove(&r.job) {
		return false
	}
	r.version.count(&r.job, errLeft)
	r.free()
	return true
}

// Hold implements batch.Owner.
func (r *remote) Hold(*batch.Job) bool { return !r.pending.Canceled() }

// Release implements batch.Owner.
func (r *remote) Release(*batch.Job) {}

// Wanted implements batch.Owner.
func (r *remote) Wanted(*batch.Job) bool { return !r.pending.Canceled() }

// Done implements batch.Owner: it encodes from the device's memory.
func (r *remote) Done(job *batch.Job, out []tensor.Tensor, err error) {
	if err != nil {
		r.version.count(job, err)
		fail(&r.resp, err)
	} else {
		r.version.encode(&r.infer, job, out, &r.resp)
	}
	r.reply()
}

// reply answers and gives r back.
func (r *remote) reply() {
	r.version.note(&r.req, &r.resp)
	r.pending.Reply(&r.resp)
	r.free()
}

// free gives r back.
func (r *remote) free() {
	r.version, r.pending, r.req = nil, nil, scorer.Request{}
	if cap(r.resp.Body) <= maxKept && r.infer.Size() <= maxKept {
		remotes.Put(r)
	}
}
