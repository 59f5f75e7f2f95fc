package model

import (
	"log/slog"
	"sync"
	"time"

	"sluice.dev/accel"
	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
	"sluice.dev/scorer/batch"
	"sluice.dev/scorer/codec"
)

// Version is one loaded model. It is a scorer.Scorer for callers in this
// process; Start serves callers beyond a wire.
type Version struct {
	config Config
	inst   accel.Instance
	device accel.Device
	queue  *batch.Queue
	tally  *tally
	offer  scorer.Offer
	reach  codec.Reach // of its requests
	log    *slog.Logger

	failures failures

	loading time.Duration // how long it took
	kept    string        // where Costs has what its runs cost
	threads int           // of a run
}

// Offer says what the version is and how much of it may be in flight.
func (v *Version) Offer() scorer.Offer { return v.offer }

// Loading is how long the version took to load and to warm up.
func (v *Version) Loading() time.Duration { return v.loading }

// Waiting is how many requests wait for a device.
func (v *Version) Waiting() int { return v.queue.Waiting() }

// close finishes what is there and frees the model.
func (v *Version) close(log *slog.Logger) {
	v.queue.Close()
	if err := v.inst.Close(); err != nil {
		log.Error("model not freed", "endpoint", v.config.Endpoint, "version", v.config.Version, "error", err)
		return
	}
	log.Info("model closed", "endpoint", v.config.Endpoint, "version", v.config.Version)
}

// decode reads the body into in and prepares job.
func (v *Version) decode(req *scorer.Request, in *codec.Infer, job *batch.Job) error {
	in.Reach = &v.reach
	err := in.Decode(req.Kind, &v.offer.Signature, v.config.Endpoint, v.config.Version, req.HeadLength, req.Body)
	if err != nil {
		return err
	}
	job.In, job.Rows, job.Deadline, job.Start = in.Inputs, in.Rows, req.Deadline, 0
	job.Class, job.Flow, job.Priority = req.Class, req.Flow, in.Priority
	if in.Timeout > 0 {
		if now := scorer.Now(); in.Timeout < req.Deadline.Sub(now) {
			job.Start = now.Add(in.Timeout)
		}
	}
	return nil
}

// encode writes the answer to a job into resp.
func (v *Version) encode(in *codec.Infer, job *batch.Job, out []tensor.Tensor, resp *scorer.Response) {
	resp.Rows, resp.Batch, resp.Queue, resp.Device = job.Rows, job.Batch, job.Queue, job.Device
	body, head, err := in.Append(resp.Body[:0], &v.offer.Signature, v.config.Endpoint, v.config.Version, out)
	if err != nil {
		fail(resp, err)
		return
	}
	resp.Status, resp.Body, resp.HeadLength = scorer.OK, body, head
}

// fail answers with an error.
func fail(resp *scorer.Response, err error) {
	known := scorer.Known(err)
	resp.Fail(known.Status, known.Message)
	resp.NotStarted = known.Status == scorer.Unavailable
}

// count counts a job that ended without an answer.
func (v *Version) count(job *batch.Job, err error) {
	v.tally.fail(scorer.Known(err).Status, job.Queue+job.Device)
}

// local is one request of a caller in this process, who waits for it.
type local struct {
	version *Version
	infer   codec.Infer
	job     batch.Job
	wait    *scorer.Waiter
	ticket  scorer.Ticket

	// held is locked between Hold and Release: a wait can be claimed by one only, and
	// the parts of a large request are copied by several.
	held sync.Mutex

	// The answer, copied from the device's memory by Done.
	out    []tensor.Tensor
	shapes []int64
	data   []byte
	err    error
}

// maxKept bounds the memory in bytes that a pooled request keeps.
const maxKept = 1 << 20

var locals = sync.Pool{New: func() any { return new(local) }}

// patience is how long a run may last that a caller does itself: within the
// accuracy of deadlines, which it cannot see meanwhile.
const patience = 5 * time.Millisecond

// Score implements scorer.Scorer.
func (v *Version) Score(req *scorer.Request, resp *scorer.Response) {
	if req.Kind == scorer.Stats {
		v.report(resp)
		return
	}
	l := locals.Get().(*local)
	if err := v.decode(req, &l.infer, &l.job); err != nil {
		fail(resp, err)
		l.free()
		return
	}
	l.version, l.wait, l.job.Owner = v, req.Wait, l
	l.ticket = req.Wait.Arm()
	if err := v.queue.Put(&l.job); err == nil {
		v.queue.Start(patience)
	} else if l.wait.Claim(l.ticket) {
		l.err = err
		l.wait.Finish(l.ticket)
	}
	if !l.wait.Wait() {
		resp.GiveUp(req)
		if v.queue.Remove(&l.job) {
			v.tally.fail(resp.Status, l.job.Queue)
			l.free()
			return
		}
		v.queue.Abandon() // a worker still has it, and the garbage collector will
		return
	}
	if l.err != nil {
		fail(resp, l.err)
	} else {
		v.encode(&l.infer, &l.job, l.out, resp)
	}
	v.note(req, resp)
	l.free()
}

func (l *local) free() {
	if cap(l.data) > maxKept || l.infer.Size() > maxKept {
		return
	}
	l.err, l.wait, l.version = nil, nil, nil
	locals.Put(l)
}

// Hold implements batch.Owner.
func (l *local) Hold(*batch.Job) bool {
	l.held.Lock()
	if l.wait.Claim(l.ticket) {
		return true
	}
	l.held.Unlock()
	return false
}

// Release implements batch.Owner.
func (l *local) Release(*batch.Job) {
	l.wait.Release(l.ticket)
	l.held.Unlock()
}

// Wanted implements batch.Owner.
func (l *local) Wanted(*batch.Job) bool { return l.wait.Wanted(l.ticket) }

// Done implements batch.Owner: the answer is copied, so that the caller encodes
// it on its own goroutine while the device goes on.
func (l *local) Done(job *batch.Job, out []tensor.Tensor, err error) {
	if err != nil {
		l.version.count(job, err)
	}
	if !l.wait.Claim(l.ticket) {
		return
	}
	l.err = err
	l.out, l.shapes, l.data = l.out[:0], l.shapes[:0], l.data[:0]
	for i := range out {
		l.keep(&out[i])
	}
	l.wait.Finish(l.ticket)
}

func (l *local) keep(t *tensor.Tensor) {
	d, s := len(l.data), len(l.shapes)
	l.data = append(l.data, t.Data...)
	l.shapes = append(l.shapes, t.Shape...)
	l.out = append(l.out, tensor.Tensor{DType: t.DType, Shape: l.shapes[s:len(l.shapes):len(l.shapes)], Data: l.data[d:len(l.data):len(l.data)]})
}
