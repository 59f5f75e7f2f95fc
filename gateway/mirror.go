package gateway

import (
	"sync"

	"sluice.dev/gateway/admit"
	"sluice.dev/gateway/metrics"
	"sluice.dev/gateway/mirror"
	"sluice.dev/router"
	"sluice.dev/scorer"
)

// Mirror sends a part of an endpoint's requests to one more version, whose answers
// only its owner sees: as differences to those that clients got.
type Mirror struct {
	To     *Version
	Copier *Copier
}

// CopierConfig configures a Copier. Path is required.
type CopierConfig struct {
	Path        *Path
	BasisPoints int // of the requests; hundredths of a percent, 0 to 10,000
	Concurrent  int // copies in flight
	Queued      int // copies that wait
	MaxBody     int // bytes of a body, of a request or an answer; larger ones are not copied
	Series      *metrics.Mirror
}

// Copier sends the copies of one endpoint, after their requests were answered. It
// is never in the way: what finds its queue full is dropped and counted, and copies
// get slots that nobody else waits for.
type Copier struct {
	config  CopierConfig
	share   *router.Endpoint // the first of its two versions is: to be copied
	start   sync.Once
	workers sync.WaitGroup
	queue   chan *copied

	mu     sync.Mutex
	active map[*Call]bool
	closed bool
}

// copied is a request and the answer that its client got.
type copied struct {
	kind       scorer.Kind
	headLength int
	body       []byte
	trace      scorer.Trace
	state, id  []byte
	to         *Version
	status     scorer.Status
	reply      mirror.Reply
}

// NewCopier makes a copier, whose workers start with its first copy. Close ends it.
func NewCopier(c CopierConfig) (*Copier, error) {
	share, err := router.New("mirror", []router.Version{{Name: "copy", BasisPoints: c.BasisPoints}, {Name: "none", Default: true}}, router.NewSequence())
	if err != nil {
		return nil, err
	}
	return &Copier{config: c, share: share, queue: make(chan *copied, c.Queued), active: map[*Call]bool{}}, nil
}

// Close gives up what is queued and in flight. Nobody may offer any more.
func (m *Copier) Close() {
	m.mu.Lock()
	m.closed = true
	for c := range m.active {
		c.Leave()
	}
	m.mu.Unlock()
	close(m.queue)
	m.workers.Wait()
}

// mirror offers a call that was answered to its endpoint's mirror. Who chose a
// version did not mean another one, and overload is not to be made worse.
func (c *Call) mirror() {
	if c.Endpoint == nil || c.Endpoint.Mirror == nil || c.Version == nil {
		return
	}
	m := c.Endpoint.Mirror
	if c.Reason == router.Pinned || c.Version == m.To || c.shed != shedNot || !judged(c.Response.Status) {
		return
	}
	if c.copied() {
		m.Copier.offer(c, m.To)
	}
}

// copied reports whether a request is to be copied: by the share, or as its client
// wishes, if it may.
func (c *Call) copied() bool {
	if c.Principal.MayMirror && c.Copy != AsConfigured {
		return c.Copy == Always
	}
	return c.Endpoint.Mirror.Copier.share.Next() == 0
}

// judged reports whether a status is a version's own word.
func judged(s scorer.Status) bool {
	return s == scorer.OK || s == scorer.InvalidArgument || s == scorer.ModelFailed || s == scorer.DeadlineExceeded
}

// offer queues a copy of c, if there is room.
func (m *Copier) offer(c *Call, to *Version) {
	if len(c.request.Body) > m.config.MaxBody || len(c.Response.Body) > m.config.MaxBody {
		m.config.Series.Drop(metrics.TooLarge)
		return
	}
	if len(m.queue) == cap(m.queue) { // spares the copy
		m.config.Series.Drop(metrics.QueueFull)
		return
	}
	m.start.Do(func() {
		for range m.config.Concurrent {
			m.workers.Go(m.run)
		}
	})
	r, b := &c.request, make([]byte, 0, len(c.request.Body)+len(c.request.State)+len(c.request.ID)+len(c.Response.Body))
	keep := func(part []byte) []byte {
		b = append(b, part...)
		return b[len(b)-len(part) : len(b) : len(b)]
	}
	j := &copied{
		kind: r.Kind, headLength: r.HeadLength, body: keep(r.Body), trace: r.Trace, state: keep(r.State), id: keep(r.ID),
		to: to, status: c.Response.Status, reply: mirror.Reply{HeadLength: c.Response.HeadLength, Body: keep(c.Response.Body)},
	}
	select {
	case m.queue <- j:
	default:
		m.config.Series.Drop(metrics.QueueFull)
	}
}

// run sends copies until Close.
func (m *Copier) run() {
	for j := range m.queue {
		c := m.config.Path.Call()
		if m.enter(c) {
			m.send(c, j)
			m.leave(c)
		}
		m.config.Path.Done(c)
	}
}

// enter registers a call that Close ends. False: it is closed.
func (m *Copier) enter(c *Call) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.active[c] = true
	return !m.closed
}

func (m *Copier) leave(c *Call) {
	m.mu.Lock()
	delete(m.active, c)
	m.mu.Unlock()
}

// send scores a copy and compares its answer.
func (m *Copier) send(c *Call, j *copied) {
	c.Class, c.Version = admit.Copy, j.to
	c.SetBody(j.kind, j.headLength, j.body)
	c.SetTrace(j.trace, j.state)
	c.ID = append(c.ID, j.id...)
	c.begin()
	if status := m.config.Path.score(c, j.to); status != scorer.OK {
		c.Response.Fail(status, "")
	}
	r, s := &c.Response, m.config.Series
	s.Answered(r.Status, scorer.Now().Sub(c.start), r.Status == j.status)
	if r.Status != scorer.OK || j.status != scorer.OK {
		return
	}
	d, err := mirror.Compare(j.kind, j.reply, mirror.Reply{HeadLength: r.HeadLength, Body: r.Body})
	if err != nil {
		s.Incomparable()
		return
	}
	s.Differ(d.Absolute, d.Relative, d.Rows, d.Flipped)
}
