package gateway_test

import (
	"bytes"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"sluice.dev/auth"
	"sluice.dev/gateway"
	"sluice.dev/gateway/metrics"
	"sluice.dev/scorer"
)

// patient are limits under which nothing expires while a test looks.
var patient = gateway.Limits{QueueWait: time.Minute, ScoringTimeout: time.Minute}

// names is an authenticator that believes what callers say they are.
type names struct{}

func (names) Authenticate(credential []byte) (*auth.Principal, error) {
	p := &auth.Principal{ID: string(credential), MayPin: true, MaxPriority: auth.High}
	if p.ID == "modest" {
		p.MaxPriority = auth.Low
	}
	return p, nil
}

// queued is a house with one slot that is taken, and who waits for it.
type queued struct {
	*house
	t       *testing.T
	replica *replica
	wg      sync.WaitGroup
	mu      sync.Mutex
	order   []string // who was answered, and how if not well
}

func openQueued(t *testing.T, maxQueue int) *queued {
	q := &queued{house: open(t, gateway.Config{MaxQueue: maxQueue}), t: t, replica: &replica{name: "a", gate: make(chan struct{})}}
	q.swap(2, patient, "a", "b")
	q.path.Snapshot().Endpoint([]byte("digits")).Auth = names{}
	q.pool("a").SetReplicas(offered(1, q.replica))
	q.ask("first", "")
	until(t, "the slot is taken", func() bool { return q.replica.inside.Load() == 1 })
	return q
}

// arrived is how many requests are answered, run or wait.
func (q *queued) arrived() int {
	_, busy, waiting := q.pool("a").Load()
	q.mu.Lock()
	defer q.mu.Unlock()
	return busy + waiting + len(q.order)
}

// ask sends a request of a caller and returns when it waits, or was refused.
func (q *queued) ask(caller, priority string) {
	before := q.arrived()
	q.wg.Go(func() {
		c := q.path.Call()
		defer q.path.Done(c)
		c.Name, c.Pin, c.Credential = []byte("digits"), []byte("a"), []byte(caller)
		c.SetPriority([]byte(priority))
		q.path.Serve(c)
		q.mu.Lock()
		defer q.mu.Unlock()
		if c.Response.Status != scorer.OK {
			caller += ":" + string(c.Response.Body)
		}
		q.order = append(q.order, caller)
	})
	until(q.t, "it waits or is over", func() bool { return q.arrived() > before })
}

// drain lets everybody finish and returns the order.
func (q *queued) drain() string {
	for {
		_, busy, _ := q.pool("a").Load()
		if busy == 0 {
			break
		}
		select {
		case q.replica.gate <- struct{}{}:
		case <-time.After(10 * time.Millisecond):
		}
	}
	q.wg.Wait()
	return strings.Join(q.order, " ")
}

// said is a scorer that keeps what requests said of themselves.
type said struct{ last scorer.Request }

func (s *said) Score(req *scorer.Request, _ *scorer.Response) { s.last = *req }

// The scorer gets the class that the caller may have, and who it is only as a hash:
// the same from every gateway of a house, another from any other.
func TestTheScorerKnowsClassAndCaller(t *testing.T) {
	ask := func(secret, caller, priority string) (scorer.Class, uint32) {
		h, s := open(t, gateway.Config{Secret: []byte(secret)}), &said{}
		h.path.Snapshot().Endpoint([]byte("digits")).Auth = names{}
		h.pool("a").SetReplicas([]gateway.Offered{{Scorer: s, Offer: scorer.Offer{Window: 1}}})
		c := h.path.Call()
		defer h.path.Done(c)
		c.Name, c.Pin, c.Credential = []byte("digits"), []byte("a"), []byte(caller)
		c.SetPriority([]byte(priority))
		h.path.Serve(c)
		return s.last.Class, s.last.Flow
	}
	for _, f := range []struct {
		caller, priority string
		want             scorer.Class
	}{{"x", "", 0}, {"x", "low", -1}, {"x", "high", scorer.HighestClass}, {"modest", "high", -1}, {"modest", "", -1}} {
		if got, _ := ask("one", f.caller, f.priority); got != f.want {
			t.Errorf("%s asks for %q and gets class %d; want %d", f.caller, f.priority, got, f.want)
		}
	}
	_, a := ask("one", "a", "")
	_, same := ask("one", "a", "high")
	_, b := ask("one", "b", "")
	_, nobody := ask("one", "", "")
	_, elsewhere := ask("two", "a", "")
	if a != same || a == b || a == nobody || nobody == 0 || a == elsewhere {
		t.Errorf("flows: a %d, again %d, b %d, nobody %d, a with another secret %d", a, same, b, nobody, elsewhere)
	}
}

// hearing is a scorer that tells what each request said of itself.
type hearing chan scorer.Request

func (h hearing) Score(req *scorer.Request, resp *scorer.Response) {
	r := *req
	r.Body, r.State, r.ID = bytes.Clone(r.Body), bytes.Clone(r.State), bytes.Clone(r.ID)
	h <- r
}

// A mirror's copy is known by its request's names, and goes behind everybody else's.
func TestACopyHasTheNamesOfItsRequest(t *testing.T) {
	h, a, b := open(t, gateway.Config{}), make(hearing, 1), make(hearing, 1)
	h.swap(2, patient, "a", "b")
	e := h.path.Snapshot().Endpoint([]byte("digits"))
	copier, err := gateway.NewCopier(gateway.CopierConfig{Path: h.path, BasisPoints: 10_000, Concurrent: 1, Queued: 1, MaxBody: 100, Series: metrics.New(prometheus.NewRegistry()).Mirror("digits", "b")})
	if err != nil {
		t.Fatal(err)
	}
	e.Auth, e.Mirror = names{}, &gateway.Mirror{To: e.Versions[1], Copier: copier}
	h.pool("a").SetReplicas([]gateway.Offered{{Scorer: a, Offer: scorer.Offer{Window: 1}}})
	h.pool("b").SetReplicas([]gateway.Offered{{Scorer: b, Offer: scorer.Offer{Window: 1}}})
	c := h.path.Call()
	c.Name, c.Credential, c.ID = []byte("digits"), []byte("caller"), append(c.ID, "17"...)
	c.SetTrace(scorer.Trace{TraceID: [16]byte{1}, SpanID: [8]byte{2}}, []byte("a=b"))
	c.SetBody(scorer.OIP, 0, []byte("body"))
	h.path.Serve(c)
	h.path.Done(c)
	first, copied := <-a, <-b
	copier.Close()
	if string(copied.Body) != "body" || string(copied.ID) != "17" || string(copied.State) != "a=b" || copied.Trace != first.Trace {
		t.Errorf("of %+v the copy is %+v", first, copied)
	}
	if first.Class != 0 || copied.Class != scorer.LowestClass {
		t.Errorf("the request is of class %d, its copy of %d", first.Class, copied.Class)
	}
}

func TestCallersTakeTurnsInTheQueue(t *testing.T) {
	q := openQueued(t, 0)
	for _, caller := range strings.Fields("hog hog hog hog other hog another") {
		q.ask(caller, "")
	}
	if got := q.drain(); got != "first hog other another hog hog hog hog" {
		t.Error(got)
	}
}

func TestHigherClassesGoFirstAndLowerOnesAreRefusedFirst(t *testing.T) {
	q := openQueued(t, 3)
	q.ask("a", "low")
	q.ask("b", "nonsense") // is normal
	q.ask("c", "high")
	q.ask("d", "normal") // a's place
	q.ask("e", "low")    // none
	const full = "too many requests for this version: "
	want := "a:" + full + "others had fewer in its queue, or a higher priority; try again later or add replicas " +
		"e:" + full + "its queue is full; try again later or add replicas first c b d"
	if got := q.drain(); got != want {
		t.Error(got)
	}
}

func TestNobodyGetsAHigherClassThanItMay(t *testing.T) {
	q := openQueued(t, 0)
	for _, caller := range []string{"modest", "other"} {
		q.ask(caller, "high")
	}
	if got := q.drain(); got != "first other modest" {
		t.Error(got)
	}
}

func TestNobodyCanTakeTheWholeQueue(t *testing.T) {
	q := openQueued(t, 4)
	for range 6 {
		q.ask("hog", "")
	}
	q.ask("other", "")
	q.ask("other", "")
	q.ask("other", "") // has as many as the hog now
	got := q.drain()
	if n := strings.Count(got, "hog:"); n != 4 {
		t.Errorf("%d of the hog's requests were refused; want 2 at once and 2 for the other: %s", n, got)
	}
	if n := strings.Count(got, "other:"); n != 1 {
		t.Errorf("%d of the other's requests were refused; want 1: %s", n, got)
	}
}

// A queue that moves slowly refuses who would wait in vain, at once.
func TestWhoWouldWaitInVainIsToldAtOnce(t *testing.T) {
	h := open(t, gateway.Config{})
	h.swap(2, gateway.Limits{QueueWait: 200 * time.Millisecond, ScoringTimeout: time.Minute}, "a", "b")
	r := &replica{name: "a", gate: make(chan struct{})}
	h.pool("a").SetReplicas(offered(1, r))
	var stop atomic.Bool
	var late atomic.Int32
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond) // 50 requests per second
		defer tick.Stop()
		for !stop.Load() || r.inside.Load() > 0 {
			<-tick.C
			select {
			case r.gate <- struct{}{}:
			default:
			}
		}
	})
	for range 40 {
		wg.Go(func() {
			for !stop.Load() {
				c := h.path.Call()
				c.Name, c.Pin, c.Credential = []byte("digits"), []byte("a"), []byte(h.key)
				h.path.Serve(c)
				if strings.Contains(string(c.Response.Body), "its queue takes about") && c.RetryIn >= time.Second {
					late.Add(1)
				}
				h.path.Done(c)
			}
		})
	}
	until(t, "refused at once", func() bool { return late.Load() > 100 })
	until(t, "no more wait than have their turn in time, which is 10", func() bool {
		_, _, waiting := h.pool("a").Load()
		return waiting <= 12
	})
	stop.Store(true)
	wg.Wait()
}

// failing answers with a status.
type failing struct{ status scorer.Status }

func (f failing) Score(_ *scorer.Request, resp *scorer.Response) { resp.Fail(f.status, "no") }

func TestAReplicaThatFailsIsLeftOutIfTheOthersDoNot(t *testing.T) {
	h := open(t, gateway.Config{})
	reg := prometheus.NewRegistry()
	reg.MustRegister(h.path)
	replicas := offered(8, &replica{name: "1"}, &replica{name: "2"})
	replicas = append(replicas, gateway.Offered{Scorer: failing{scorer.Internal}, Offer: scorer.Offer{Window: 8}})
	h.pool("a").SetReplicas(replicas)
	failed := 0
	for range 300 {
		if s, _, _ := h.ask("digits", "a", h.key, 0); s != scorer.OK {
			failed++
		}
	}
	if failed != 5 {
		t.Errorf("%d requests failed; want 5 until the replica is left out", failed)
	}
	want := `
# HELP sluice_ejections_total Replicas that were left out because they failed while others did not.
# TYPE sluice_ejections_total counter
sluice_ejections_total{endpoint="digits",version="a"} 1
sluice_ejections_total{endpoint="digits",version="b"} 0
# HELP sluice_replicas Replicas of the version: in service, left out because they failed, or recovering from that.
# TYPE sluice_replicas gauge
sluice_replicas{endpoint="digits",state="in",version="a"} 2
sluice_replicas{endpoint="digits",state="in",version="b"} 0
sluice_replicas{endpoint="digits",state="out",version="a"} 1
sluice_replicas{endpoint="digits",state="out",version="b"} 0
sluice_replicas{endpoint="digits",state="recovering",version="a"} 0
sluice_replicas{endpoint="digits",state="recovering",version="b"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "sluice_replicas", "sluice_ejections_total"); err != nil {
		t.Error(err)
	}
}

func TestWhereAllFailNobodyIsLeftOut(t *testing.T) {
	h := open(t, gateway.Config{})
	bad := scorer.Offer{Window: 8}
	h.pool("a").SetReplicas([]gateway.Offered{
		{Scorer: &failing{scorer.ModelFailed}, Offer: bad}, {Scorer: &failing{scorer.ModelFailed}, Offer: bad}, {Scorer: &failing{scorer.ModelFailed}, Offer: bad},
	})
	for range 300 {
		h.ask("digits", "a", h.key, 0)
	}
	if slots, _, _ := h.pool("a").Load(); slots != 24 {
		t.Errorf("%d slots; want all 24: it is the model that fails", slots)
	}
}

func TestTheOnlyReplicaIsNeverLeftOut(t *testing.T) {
	h := open(t, gateway.Config{})
	h.pool("a").SetReplicas([]gateway.Offered{{Scorer: failing{scorer.Internal}, Offer: scorer.Offer{Window: 8}}})
	for range 50 {
		if s, _, _ := h.ask("digits", "a", h.key, 0); s != scorer.Internal {
			t.Fatalf("got %v; want the replica's own answer", s)
		}
	}
}

func TestAReplicaThatComesToOthersTakesMoreAndMore(t *testing.T) {
	h := open(t, gateway.Config{})
	old, fresh := &replica{name: "old"}, &replica{name: "fresh"}
	h.pool("a").SetReplicas(offered(20, old))
	if slots, _, _ := h.pool("a").Load(); slots != 20 {
		t.Errorf("the first replica has %d slots; want all of its 20", slots)
	}
	h.pool("a").SetReplicas(offered(20, old, fresh))
	if slots, _, _ := h.pool("a").Load(); slots != 22 {
		t.Errorf("%d slots; want 20, and a tenth of the new replica's", slots)
	}
}

// occupied is a house whose replica a has 4 requests, and more that wait.
func occupied(t *testing.T) (h *house, r *replica, ended func()) {
	h, r = open(t, gateway.Config{}), &replica{name: "a", gate: make(chan struct{})}
	h.swap(2, patient, "a")
	h.pool("a").SetReplicas(offered(4, r))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { h.ask("digits", "a", h.key, 0) })
	}
	until(t, "four run, four wait", func() bool {
		_, busy, waiting := h.pool("a").Load()
		return busy == 4 && waiting == 4 && r.inside.Load() == 4
	})
	return h, r, func() { close(r.gate); wg.Wait() }
}

// A window that is made smaller than what is in flight is kept to as requests end.
func TestASmallerWindowIsKeptTo(t *testing.T) {
	h, r, end := occupied(t)
	defer end()
	h.pool("a").SetReplicas(offered(1, r))
	for left := 3; left > 0; left-- {
		r.gate <- struct{}{}
		until(t, "fewer run", func() bool { _, busy, _ := h.pool("a").Load(); return busy == left })
		if _, _, waiting := h.pool("a").Load(); waiting != 4 {
			t.Errorf("%d wait while %d run", waiting, left)
		}
	}
	r.gate <- struct{}{}
	until(t, "the next one runs", func() bool { _, busy, waiting := h.pool("a").Load(); return busy == 1 && waiting == 3 })
}

// A replica that comes back has what it had in flight.
func TestAReplicaThatComesBackIsKnown(t *testing.T) {
	h, r, end := occupied(t)
	defer end()
	h.pool("a").SetReplicas(nil)
	h.pool("a").SetReplicas(offered(4, r))
	if slots, busy, waiting := h.pool("a").Load(); slots != 4 || busy != 4 || waiting != 4 {
		t.Errorf("%d slots, %d busy, %d wait", slots, busy, waiting)
	}
}

// That a request's own time is over, as its body may have it, is not the replica's fault.
func TestAClientsOwnTimeIsNoFailure(t *testing.T) {
	h := open(t, gateway.Config{})
	replicas := append(offered(8, &replica{name: "1"}), gateway.Offered{Scorer: failing{scorer.DeadlineExceeded}, Offer: scorer.Offer{Window: 8}})
	h.pool("a").SetReplicas(replicas)
	for range 300 {
		h.ask("digits", "a", h.key, 0)
	}
	if slots, _, _ := h.pool("a").Load(); slots != 16 {
		t.Errorf("%d slots; want all 16", slots)
	}
}

func TestRetriesAreBounded(t *testing.T) {
	h := open(t, gateway.Config{})
	leaving := make([]*replica, 40)
	for i := range leaving {
		leaving[i] = &replica{name: "leaving"}
		leaving[i].refuse.Store(true)
	}
	h.pool("a").SetReplicas(offered(1, leaving...))
	h.pool("a").SetLimit(1)
	for range 20 {
		h.ask("digits", "a", h.key, 0)
	}
	asked := 0
	for _, r := range leaving {
		asked += int(r.asked.Load())
	}
	if asked != 30 {
		t.Errorf("20 requests were sent %d times; want 10 retries, the burst", asked)
	}
}
