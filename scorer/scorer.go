// Package scorer is the contract between whoever admits a scoring request and
// whatever runs it.
package scorer

import "time"

// Scorer runs requests for one version of one model, in this process or beyond
// a wire. Safe for concurrent use.
type Scorer interface {
	// Score runs req and fills resp, and returns when the answer is there or
	// when somebody else resolved req.Wait (its deadline passed, its client
	// left); resp.Status then says which. After return, nothing of req or resp
	// is kept.
	Score(req *Request, resp *Response)
}

// Kind says how a body is encoded, and so how the answer must be.
type Kind uint8

const (
	// OIP is an Open Inference Protocol infer request: JSON, or JSON followed
	// by raw tensors where HeadLength says how long the JSON is.
	OIP Kind = iota
	// Raw is the protocol's raw binary request: the body is the only input's
	// data, and every output comes back raw.
	Raw
	// AML is Azure ML's JSON: {"data": …}, named inputs or {"Inputs": …}.
	AML
	// GRPC is the protocol's ModelInferRequest in protobuf.
	GRPC
	// TFServing is TF Serving's PredictRequest in protobuf.
	TFServing
	// V1 is KServe's first protocol and TensorFlow Serving's: {"instances": …} or
	// {"inputs": …}.
	V1
	// Stats asks for the version's statistics, as JSON of Statistics. It has no body
	// and needs no slot.
	Stats
	// TFClassify and TFRegress are TF Serving's ClassificationRequest and
	// RegressionRequest in protobuf.
	TFClassify
	TFRegress
	// V1Classify and V1Regress are TensorFlow Serving's JSON of the same: {"examples": …}.
	V1Classify
	V1Regress
	kinds // count

	// firstKinds are how many the first release knew, which did not say so.
	firstKinds = 3
)

// Valid reports whether k is a kind that this release knows.
func (k Kind) Valid() bool { return k < kinds }

// Kinds is how many this release knows; they count from 0.
const Kinds = int(kinds)

// Class is how much a request matters against others that wait: 0 is normal, and
// higher ones go first. What is beyond the bounds counts as they do.
type Class int8

// The bounds.
const (
	LowestClass  Class = -2 // a mirror's copies, for which nobody waits; -1 is low
	HighestClass Class = 1
)

// The most bytes of what requests bring along.
const (
	MaxID    = 100
	MaxState = 512 // as much as everybody who passes it on is to take
)

// Request is one scoring request. The caller owns it and may reuse it after
// Score returned.
type Request struct {
	Kind       Kind
	HeadLength int     // bytes of JSON before raw tensors; 0: all of it is JSON
	Body       []byte  // lent until Score returns
	Deadline   Instant // no answer is wanted after it; never zero
	Class      Class   // as far as its caller may
	Flow       uint32  // a keyed hash of who calls, who share a full queue; 0 does not say
	Trace      Trace   // W3C trace context; zero if there is none
	State      []byte  // its tracestate, printable ASCII, at most MaxState; lent until Score returns
	ID         []byte  // that logs know it by, printable ASCII, at most MaxID; lent until Score returns
	Wait       *Waiter // where Score waits; armed by Score
}

// Response is the answer to a request.
type Response struct {
	Status Status
	// NotStarted says that the work never began: it alone makes a retry safe.
	NotStarted bool
	// Body is the encoded answer, or the error's message for people. Score
	// appends to Body[:0], so a caller that keeps it between requests lends
	// its memory.
	Body       []byte
	HeadLength int           // bytes of JSON before raw tensors; 0: all of it is JSON
	Rows       int           // rows that this request scored
	Batch      int           // rows of the batch that it ran in
	Queue      time.Duration // from arrival at the scorer to the run's start
	Device     time.Duration // the run

	// Code and ContentType are those of an HTTP answer that Sluice did not write,
	// and that is passed on as it is, whatever Status says of it. 0: Status decides.
	// No ContentType is JSON.
	Code        int
	ContentType []byte
}

// Reset empties r, keeping its memory.
func (r *Response) Reset() { *r = Response{Body: r.Body[:0], ContentType: r.ContentType[:0]} }

// Fail makes r an error answer with a message that says what to do.
func (r *Response) Fail(s Status, message string) {
	r.Status = s
	r.Body = append(r.Body[:0], message...)
	r.HeadLength, r.Code, r.ContentType = 0, 0, r.ContentType[:0]
}

// GiveUp makes r the answer to a request that nobody waits for any more: its
// deadline has passed, or its caller has left.
func (r *Response) GiveUp(req *Request) {
	if Now() >= req.Deadline {
		r.Fail(DeadlineExceeded, "no answer in time")
		return
	}
	r.Fail(Canceled, "cancelled by the client")
}

// Trace is a W3C trace context in binary: trace id, parent span id, flags.
type Trace struct {
	TraceID [16]byte
	SpanID  [8]byte
	Flags   byte
}

// Instant is a moment of this process's monotonic clock, in nanoseconds since
// the process started, at least 1.
type Instant int64

var started = time.Now()

// Now reads the monotonic clock.
func Now() Instant { return Instant(time.Since(started)) + 1 }

// Add is the instant d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub is the time from j to i.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }
