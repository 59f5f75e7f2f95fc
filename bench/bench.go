// Package bench is what the load-test harness agrees on: what is sent and what must
// come back, what a run is asked to do, and what it found.
package bench

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice.dev/bench/stats"
)

// Item is one request, rendered once, and what is right as its answer.
type Item struct {
	Name string // where it comes from, for messages
	Wire []byte // an HTTP/1.1 request, or a message of gRPC
	// Check tells what is wrong with an answer that has succeeded. It is pure, may
	// be called from any goroutine, and is asked once per distinct body. Nil takes
	// every answer.
	Check func(a *Answer) error
}

// Answer is what came back. Its slices belong to the connection, and are good until
// the next Receive.
type Answer struct {
	Failure string // empty, or what it was instead of a success, such as "status 503"
	Body    []byte
	Head    int    // bytes of JSON before raw tensors, 0 where there are none
	Version []byte // which version answered, where the server says it
	// Queue and Device are what the server says (Server-Timing) about where the time
	// went; Timed says that it does.
	Queue, Device time.Duration
	Timed         bool
}

// Conn is a connection on which one request is under way at a time.
type Conn interface {
	// Send sends a request. It may be called while another goroutine waits in Receive.
	Send(item *Item) error
	// Receive waits for the answer to the request that was sent, or will be.
	Receive(a *Answer) error
	// Quick says that Send will not wait for the target to read a request of that size.
	Quick(item *Item) bool
	// Close ends the connection, also under Send and Receive.
	Close() error
}

// Dial opens a connection.
type Dial func(ctx context.Context) (Conn, error)

// Schedule says when requests are due, from the start of the run; times never
// decrease. One goroutine uses it.
type Schedule interface {
	Next() (at time.Duration, ok bool)
}

// Plan is what one measurement does.
type Plan struct {
	Connections int // opened before the run
	// InFlight is the most connections in an open loop, which opens more where all
	// are busy. At least Connections.
	InFlight int
	// Arrivals make a schedule of WarmUp and Duration together. Nil is a closed loop:
	// every connection asks as soon as it has its answer.
	Arrivals func() Schedule `json:"-"`
	WarmUp   time.Duration   // not measured
	Duration time.Duration   // measured
	Timeout  time.Duration   // of one request, from when it is sent
}

// Validate tells what is wrong with a plan.
func (p *Plan) Validate() error {
	if p.Connections < 1 || p.InFlight < p.Connections {
		return fmt.Errorf("%d connections, %d in flight: there must be at least one, and no fewer in flight", p.Connections, p.InFlight)
	}
	if p.WarmUp < 0 || p.Duration <= 0 || p.Timeout <= 0 {
		return fmt.Errorf("warm-up %v, duration %v, timeout %v: the warm-up must not be negative, the others above 0", p.WarmUp, p.Duration, p.Timeout)
	}
	return nil
}

// Slots is how many parts a run's time is cut into.
const Slots = 60

// Slot is the length of one part.
func (p *Plan) Slot() time.Duration { return max(p.Duration/Slots, 100*time.Millisecond) }

// Series is what the right answers of one version took. Latency counts from when the
// request was due in an open loop, from when it was sent in a closed one.
type Series struct {
	Latency *stats.Histogram   `json:"latency"`
	Queue   *stats.Histogram   `json:"queue"`  // empty where the server does not say
	Device  *stats.Histogram   `json:"device"` // likewise
	Slots   []*stats.Histogram `json:"slots"`  // latency by when the request was due, slot_s each, the last what came later; entries may be nil
}

// Add adds what other has.
func (s *Series) Add(other *Series) {
	s.Latency.Add(other.Latency)
	if other.Queue.Count() > 0 {
		if s.Queue.Count() == 0 {
			s.Queue, s.Device = stats.Fine(), stats.Fine()
		}
		s.Queue.Add(other.Queue)
		s.Device.Add(other.Device)
	}
	for i, h := range other.Slots {
		if h == nil {
			continue
		}
		if s.Slots[i] == nil {
			s.Slots[i] = stats.Coarse()
		}
		s.Slots[i].Add(h)
	}
}

// NewSeries is one without answers.
func NewSeries() *Series {
	return &Series{Latency: stats.Fine(), Queue: &stats.Histogram{}, Device: &stats.Histogram{}, Slots: make([]*stats.Histogram, Slots+1)}
}

// Result is what one measurement found. Requests are those that were due, or sent in
// a closed loop, within Elapsed.
type Result struct {
	Target    string             `json:"target"`
	Round     int                `json:"round"` // from 1
	Elapsed   float64            `json:"elapsed_s"`
	Offered   float64            `json:"offered_per_s"` // 0 in a closed loop
	Requests  int64              `json:"requests"`
	Rate      float64            `json:"rate_per_s"`     // right answers within Elapsed
	Failed    map[string]int64   `json:"failed"`         // by kind
	Said      map[string]string  `json:"said,omitempty"` // by kind, what the first such answer said
	Wrong     string             `json:"wrong,omitempty"`
	Unsent    int64              `json:"unsent"`                             // due, and never sent: no place in flight
	Held      int64              `json:"held"`                               // due, and sent only when a place was free
	Latency   *stats.Histogram   `json:"latency"`                            // of right answers
	Failing   *stats.Histogram   `json:"failing"`                            // of answers that say that they failed
	Versions  map[string]*Series `json:"versions"`                           // of right answers
	ServerCPU float64            `json:"server_cpu_us_per_answer,omitempty"` // 0: its processes are not known
	ServerRSS int64              `json:"server_rss_bytes,omitempty"`
	// ServerLost: some of the server's processes ended, and their CPU time is not in ServerCPU.
	ServerLost bool    `json:"server_cpu_lost,omitempty"`
	Client     Client  `json:"client"`
	Slot       float64 `json:"slot_s"`
	Search     *Search `json:"search,omitempty"` // where the highest rate was looked for, whose result this is
}

// Search is how the highest rate that keeps to limits was found.
type Search struct {
	Most   float64 `json:"max_rate_per_s"`    // 0: none keeps to them
	Limit  string  `json:"limited_by"`        // why the lowest rate above Most does not
	Client bool    `json:"limited_by_client"` // that is the generator's doing: the target may reach more
	Probes []Probe `json:"probes"`            // in the order in which they were asked
}

// Probe is a rate that was tried.
type Probe struct {
	Rate   float64       `json:"rate_per_s"`
	P99    time.Duration `json:"p99_ns"`
	Limit  string        `json:"limited_by,omitempty"` // empty where it keeps to the limits
	Client bool          `json:"limited_by_client,omitempty"`
}

// Most is the highest rate that was found, 0 where none was looked for.
func (r *Result) Most() float64 {
	if r.Search == nil {
		return 0
	}
	return r.Search.Most
}

// Client is how the generator itself fared.
type Client struct {
	CPU   float64          `json:"cpu_us_per_answer"`
	Share float64          `json:"share_of_cores"` // of those it may use
	Late  float64          `json:"late_share"`     // of requests that it sent, or queued, more than LateAfter after they were due
	Lag   *stats.Histogram `json:"lag"`            // from due to sent or queued, in an open loop
}

// LateAfter is from when on the generator is to blame for a late request.
const LateAfter = time.Millisecond

// Kinds of failures that are not the server's words.
const (
	WrongAnswer = "wrong answer"
	TimedOut    = "timeout"
	Broken      = "connection broken"
	NoConnect   = "cannot connect"
)

// Errors is how many requests failed, those never sent included.
func (r *Result) Errors() int64 {
	sum := r.Unsent
	for _, n := range r.Failed {
		sum += n
	}
	return sum
}

// Limits are from where on a result does not count.
type Limits struct {
	Errors float64 // share of requests
	Late   float64 // share of requests that the generator sent late
	CPU    float64 // share of its cores that the generator used
}

// DefaultLimits take no error, and a generator that is not to blame for the 99th
// percentile.
var DefaultLimits = Limits{Errors: 0, Late: 0.01, CPU: 0.95}

// Problems tells why a result does not count. A wrong answer always does that.
func (r *Result) Problems(l Limits) (list []string) {
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if n := r.Failed[WrongAnswer]; n > 0 {
		say("%d wrong answers: %s", n, r.Wrong)
	}
	if r.Latency.Count() == 0 {
		say("no right answer to %d requests (%s)", r.Requests, cmp.Or(r.Failures(), "no failures"))
	} else if share := float64(r.Errors()) / float64(max(r.Requests, 1)); share > l.Errors {
		say("%d of %d requests failed, %.3g%%, where at most %.3g%% may (%s)", r.Errors(), r.Requests, 100*share, 100*l.Errors, r.Failures())
	}
	if r.ServerLost {
		say("processes of the target ended, and their CPU time is not known")
	}
	if s := r.Search; s != nil && s.Most == 0 {
		say("no rate was found that keeps to the limits, and the figures are not of one: %s", s.Limit)
	} else if s != nil && s.Client {
		say("the highest rate is limited by the client, not by the target: %s", s.Limit)
	}
	return append(list, r.Blame(l)...)
}

// Blame tells what the generator did wrong: such a result says little about the target.
func (r *Result) Blame(l Limits) (list []string) {
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if r.Unsent > 0 {
		say("the schedule was dropped: %d of %d requests were never sent, since all places in flight were taken", r.Unsent, r.Requests)
	}
	if r.Client.Late > l.Late {
		say("the client is saturated: it sent %.1f%% of the requests more than %v late; ask for a lower rate, or give it more cores", 100*r.Client.Late, LateAfter)
	}
	if r.Client.Share > l.CPU {
		say("the client is saturated: it used %.0f%% of its cores", 100*r.Client.Share)
	}
	return list
}

// Failures lists what the failed requests were, those never sent included; empty
// where none failed.
func (r *Result) Failures() string {
	var list []string
	for _, kind := range slices.Sorted(maps.Keys(r.Failed)) {
		list = append(list, fmt.Sprintf("%s: %d", kind, r.Failed[kind]))
	}
	if r.Unsent > 0 {
		list = append(list, fmt.Sprintf("never sent: %d", r.Unsent))
	}
	return strings.Join(list, ", ")
}
