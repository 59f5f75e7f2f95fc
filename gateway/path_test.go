package gateway_test

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice.dev/auth"
	"sluice.dev/auth/apikey"
	"sluice.dev/gateway"
	"sluice.dev/gateway/metrics"
	"sluice.dev/router"
	"sluice.dev/scorer"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// replica is a scorer that answers with its name, when told to if it has a gate.
type replica struct {
	name   string
	gate   chan struct{} // if not nil, every answer takes one token
	refuse atomic.Bool   // answers that the work never began
	asked  atomic.Int32
	inside atomic.Int32
	most   atomic.Int32
}

func (r *replica) Score(req *scorer.Request, resp *scorer.Response) {
	r.asked.Add(1)
	if n := r.inside.Add(1); n > r.most.Load() {
		r.most.Store(n)
	}
	defer r.inside.Add(-1)
	if r.refuse.Load() {
		resp.Fail(scorer.Unavailable, "leaving")
		resp.NotStarted = true
		return
	}
	if r.gate != nil && !r.pass(req) {
		resp.Fail(scorer.DeadlineExceeded, "no answer in time")
		return
	}
	resp.Status, resp.Body = scorer.OK, append(resp.Body[:0], r.name...)
}

// pass waits for a token as a scorer waits for its device.
func (r *replica) pass(req *scorer.Request) bool {
	w := req.Wait
	t := w.Arm()
	go func() {
		if <-r.gate; w.Claim(t) {
			w.Finish(t)
		}
	}()
	return w.Wait()
}

func offered(window int, replicas ...*replica) (list []gateway.Offered) {
	for _, r := range replicas {
		list = append(list, gateway.Offered{Scorer: r, Offer: scorer.Offer{Window: window}})
	}
	return list
}

// house is a path with one endpoint, "digits", of versions a and b.
type house struct {
	path *gateway.Path
	key  string
	sequ *router.Sequence
	keys *apikey.Keys
}

var limits = gateway.Limits{QueueWait: 40 * time.Millisecond, ScoringTimeout: 10 * time.Second}

func open(t testing.TB, c gateway.Config) *house {
	h := &house{path: gateway.NewPath(c), key: apikey.Generate(), sequ: router.NewSequenceAt(0)}
	h.keys = apikey.New(apikey.NewPepper(), h.key, "")
	h.swap(1, limits, "a", "b")
	t.Cleanup(h.path.Close)
	return h
}

// swap makes a snapshot in which the first version has 75% of the traffic.
func (h *house) swap(generation uint64, l gateway.Limits, names ...string) {
	list := make([]router.Version, len(names))
	for i, name := range names {
		list[i] = router.Version{Name: name, Default: i == 0}
		if i == 1 {
			list[i].BasisPoints, list[i].Variant = 2500, router.Treatment
		}
	}
	split, err := router.New("digits", list, h.sequ)
	if err != nil {
		panic(err)
	}
	e := &gateway.Endpoint{Name: "digits", Auth: h.keys, Split: split}
	for _, v := range list {
		e.Versions = append(e.Versions, &gateway.Version{Version: v, Pool: h.pool(v.Name), Limits: l})
	}
	h.path.Swap(gateway.NewSnapshot(generation, []*gateway.Endpoint{e}))
}

func (h *house) pool(version string) *gateway.Pool {
	return h.path.Pool(gateway.Key{Endpoint: "digits", Version: version})
}

// ask serves one request and returns its status, body and version.
func (h *house) ask(name, pin, key string, timeout time.Duration) (scorer.Status, string, string) {
	c := h.path.Call()
	defer h.path.Done(c)
	c.Name, c.Pin, c.Credential, c.Timeout = []byte(name), []byte(pin), []byte(key), timeout
	h.path.Serve(c)
	version := ""
	if c.Version != nil {
		version = c.Version.Name
	}
	return c.Response.Status, string(c.Response.Body), version
}

// until waits for a condition that other goroutines bring about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("never %s", what)
		}
	}
}

// broken is a scorer with a bug.
type broken struct{}

func (broken) Score(*scorer.Request, *scorer.Response) { panic("a bug") }

// What a front end recovers from takes no slot for ever, and does not keep the next
// snapshot from being served.
func TestABugHoldsUpNothing(t *testing.T) {
	h := open(t, gateway.Config{})
	h.pool("a").SetReplicas([]gateway.Offered{{Scorer: broken{}, Offer: scorer.Offer{Window: 2}}})
	for i := range 5 {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("request %d does not reach the scorer", i+1)
				}
			}()
			h.ask("digits", "a", h.key, 0)
		}()
	}
	done := make(chan struct{})
	go func() {
		h.swap(2, limits, "a", "b")
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("the new snapshot waits for a request that is over")
	}
}

func TestServe(t *testing.T) {
	h := open(t, gateway.Config{})
	h.pool("a").SetReplicas(offered(8, &replica{name: "from a"}))
	h.pool("b").SetReplicas(offered(8, &replica{name: "from b"}))
	f := func(name, pin, key string, status scorer.Status, body string) {
		t.Helper()
		if s, b, _ := h.ask(name, pin, key, 0); s != status || b != body {
			t.Errorf("ask(%q, %q) = %v %q; want %v %q", name, pin, s, b, status, body)
		}
	}
	const refused = "no valid credential; send the endpoint's key, or a token, as 'Authorization: Bearer KEY'"
	f("digits", "a", h.key, scorer.OK, "from a")
	f("digits", "b", h.key, scorer.OK, "from b")
	f("digits", "", "", scorer.Unauthenticated, refused)
	f("digits", "", "wrong", scorer.Unauthenticated, refused)
	f("digits", "c", h.key, scorer.NotFound, "Request for unknown model: 'digits' version c is not found")
	f("nope\n\xff", "", h.key, scorer.NotFound, "Request for unknown model: 'nope??' is not found")
}

func TestTheSplitIsExact(t *testing.T) {
	h := open(t, gateway.Config{})
	h.pool("a").SetReplicas(offered(8, &replica{name: "a"}))
	h.pool("b").SetReplicas(offered(8, &replica{name: "b"}))
	served := map[string]int{}
	for i := range 1000 {
		if i == 500 {
			h.swap(2, limits, "a", "b") // a reload in between does not restart it
		}
		_, body, version := h.ask("digits", "", h.key, 0)
		if body != version {
			t.Fatalf("version %s answered for %s", body, version)
		}
		served[version]++
	}
	if served["a"] < 748 || served["a"] > 752 {
		t.Errorf("of 1000 requests %v; want 750 and 250", served)
	}
}

func TestAtMostTheWindowIsInFlightAndTheRestWaits(t *testing.T) {
	h := open(t, gateway.Config{})
	one, two := &replica{name: "1", gate: make(chan struct{})}, &replica{name: "2", gate: make(chan struct{})}
	h.pool("a").SetReplicas(offered(2, one, two))
	var wg sync.WaitGroup
	var ok atomic.Int32
	h.swap(2, gateway.Limits{QueueWait: time.Minute, ScoringTimeout: time.Minute}, "a", "b")
	for range 10 {
		wg.Go(func() {
			if s, _, _ := h.ask("digits", "a", h.key, 0); s == scorer.OK {
				ok.Add(1)
			}
		})
	}
	until(t, "full with the rest waiting", func() bool {
		slots, busy, waiting := h.pool("a").Load()
		return slots == 4 && busy == 4 && waiting == 6
	})
	for range 10 {
		select {
		case one.gate <- struct{}{}:
		case two.gate <- struct{}{}:
		}
	}
	wg.Wait()
	if ok.Load() != 10 || one.most.Load() > 2 || two.most.Load() > 2 {
		t.Errorf("%d of 10 answered, at most %d and %d at a time", ok.Load(), one.most.Load(), two.most.Load())
	}
}

func TestASetLimitIsKeptExactly(t *testing.T) {
	h := open(t, gateway.Config{})
	r := &replica{name: "a", gate: make(chan struct{})}
	h.pool("a").SetReplicas(offered(64, r))
	h.pool("a").SetLimit(1)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() { h.ask("digits", "a", h.key, 0) })
	}
	for range 5 {
		select {
		case r.gate <- struct{}{}:
		case <-time.After(limits.QueueWait): // the rest gave up waiting
		}
	}
	wg.Wait()
	if r.most.Load() != 1 {
		t.Errorf("%d requests at a time; want 1", r.most.Load())
	}
}

func TestTheQueueIsBoundedInLengthAndTime(t *testing.T) {
	h := open(t, gateway.Config{MaxQueue: 2})
	r := &replica{name: "a", gate: make(chan struct{})}
	h.pool("a").SetReplicas(offered(1, r))
	var wg sync.WaitGroup
	statuses := make(chan scorer.Status, 10)
	ask := func() { wg.Go(func() { s, _, _ := h.ask("digits", "a", h.key, 0); statuses <- s }) }
	ask()
	until(t, "busy", func() bool { return r.inside.Load() == 1 })
	ask()
	ask()
	until(t, "full", func() bool { _, _, waiting := h.pool("a").Load(); return waiting == 2 })
	if s, _, _ := h.ask("digits", "a", h.key, 0); s != scorer.Overloaded {
		t.Errorf("a request before a full queue got %v; want Overloaded at once", s)
	}
	for range 2 { // those that wait give up after the queue's limit
		if s := <-statuses; s != scorer.Overloaded {
			t.Errorf("a request that waited too long got %v; want Overloaded", s)
		}
	}
	r.gate <- struct{}{}
	if s := <-statuses; s != scorer.OK {
		t.Errorf("the request with the slot got %v", s)
	}
	wg.Wait()
	if slots, busy, waiting := h.pool("a").Load(); slots != 1 || busy != 0 || waiting != 0 {
		t.Errorf("%d slots, %d busy, %d waiting at the end", slots, busy, waiting)
	}
}

func TestTheDeadlineEndsWaitingAndScoring(t *testing.T) {
	h := open(t, gateway.Config{})
	r := &replica{name: "a", gate: make(chan struct{})}
	h.pool("a").SetReplicas(offered(1, r))
	if s, _, _ := h.ask("digits", "a", h.key, 10*time.Millisecond); s != scorer.DeadlineExceeded {
		t.Errorf("a request whose scorer is slow got %v", s)
	}
	done := make(chan scorer.Status)
	go func() { s, _, _ := h.ask("digits", "a", h.key, 5*time.Second); done <- s }()
	until(t, "busy", func() bool { return r.inside.Load() == 1 })
	if s, _, _ := h.ask("digits", "a", h.key, 10*time.Millisecond); s != scorer.DeadlineExceeded {
		t.Errorf("a request whose deadline is before the queue's limit got %v", s)
	}
	r.gate <- struct{}{}
	r.gate <- struct{}{}
	if s := <-done; s != scorer.OK {
		t.Errorf("the request in time got %v", s)
	}
}

func TestWithoutAReplicaTheAnswerIsUnavailable(t *testing.T) {
	h := open(t, gateway.Config{})
	began := time.Now()
	if s, _, v := h.ask("digits", "b", h.key, 0); s != scorer.Unavailable || v != "b" {
		t.Errorf("got %v from %q; want Unavailable, counted for b", s, v)
	}
	for time.Since(began) < 2*limits.QueueWait {
		h.ask("digits", "b", h.key, 0)
	}
	began = time.Now()
	for range 100 {
		h.ask("digits", "b", h.key, 0)
	}
	if took := time.Since(began); took > limits.QueueWait {
		t.Errorf("100 requests waited %v for a replica that has been gone for long", took)
	}
}

func TestAReplicaThatComesServesWhoWaits(t *testing.T) {
	h := open(t, gateway.Config{})
	r := &replica{name: "a"}
	h.pool("a").SetReplicas(offered(1, r))
	h.pool("a").SetReplicas(nil) // just left
	h.swap(2, gateway.Limits{QueueWait: time.Minute, ScoringTimeout: time.Minute}, "a", "b")
	done := make(chan scorer.Status)
	go func() { s, _, _ := h.ask("digits", "a", h.key, 0); done <- s }()
	until(t, "waiting", func() bool { _, _, waiting := h.pool("a").Load(); return waiting == 1 })
	h.pool("a").SetReplicas(offered(1, r))
	if s := <-done; s != scorer.OK {
		t.Errorf("got %v", s)
	}
}

func TestWorkThatNeverBeganIsSentOnceMore(t *testing.T) {
	h := open(t, gateway.Config{})
	leaving, staying := &replica{name: "leaving"}, &replica{name: "staying"}
	leaving.refuse.Store(true)
	h.pool("a").SetReplicas(offered(4, leaving, staying))
	for range 20 {
		if s, body, _ := h.ask("digits", "a", h.key, 0); s != scorer.OK || body != "staying" {
			t.Fatalf("got %v %q", s, body)
		}
	}
	if n := leaving.asked.Load(); n > 1 {
		t.Errorf("the leaving replica was asked %d times", n)
	}
	staying.refuse.Store(true)
	if s, _, _ := h.ask("digits", "a", h.key, 0); s != scorer.Unavailable {
		t.Errorf("with no replica left got %v", s)
	}
	if slots, busy, _ := h.pool("a").Load(); slots != 0 || busy != 0 {
		t.Errorf("%d slots, %d busy at replicas that left", slots, busy)
	}
}

func TestReplicasComeAndGoUnderLoad(t *testing.T) {
	h := open(t, gateway.Config{})
	h.swap(2, gateway.Limits{QueueWait: time.Minute, ScoringTimeout: time.Minute}, "a", "b")
	replicas := []*replica{{name: "1"}, {name: "2"}, {name: "3"}}
	h.pool("a").SetReplicas(offered(2, replicas...))
	var wg sync.WaitGroup
	var stop atomic.Bool
	for range 16 {
		wg.Go(func() {
			for !stop.Load() {
				if s, _, _ := h.ask("digits", "a", h.key, 0); s != scorer.OK {
					t.Errorf("a request got %v", s)
				}
			}
		})
	}
	for i := range 300 {
		h.pool("a").SetReplicas(offered(1+i%3, replicas[i%3:]...))
		runtime.Gosched()
	}
	stop.Store(true)
	wg.Wait()
	if _, busy, waiting := h.pool("a").Load(); busy != 0 || waiting != 0 {
		t.Errorf("%d busy, %d waiting at the end", busy, waiting)
	}
	for _, r := range replicas {
		if r.most.Load() > 6 {
			t.Errorf("replica %s had %d requests at a time", r.name, r.most.Load())
		}
	}
}

func TestSwapWaitsForRequestsOfTheOldSnapshot(t *testing.T) {
	h := open(t, gateway.Config{})
	r := &replica{name: "a", gate: make(chan struct{})}
	h.pool("a").SetReplicas(offered(1, r))
	done := make(chan string)
	go func() { _, body, _ := h.ask("digits", "a", h.key, 0); done <- body }()
	until(t, "busy", func() bool { return r.inside.Load() == 1 })
	swapped := make(chan struct{})
	go func() { h.swap(2, limits, "b"); close(swapped) }()
	until(t, "swapped", func() bool { return h.path.Snapshot().Generation == 2 })
	if s, _, _ := h.ask("digits", "a", h.key, 0); s != scorer.NotFound {
		t.Errorf("a removed version answered %v", s)
	}
	select {
	case <-swapped:
		t.Error("the swap did not wait for the request")
	default:
	}
	r.gate <- struct{}{}
	if body := <-done; body != "a" {
		t.Errorf("the request of the old snapshot got %q", body)
	}
	<-swapped
}

func TestRequestsAreCounted(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := metrics.New(reg)
	h := open(t, gateway.Config{Refused: m.Refused("")})
	h.pool("a").SetReplicas(offered(8, &replica{name: "a"}))
	for _, e := range h.path.Snapshot().Endpoints() {
		e.Versions[0].Series, e.Refused = m.Series("digits", "a", "default"), m.Refused("digits")
	}
	for range 3 {
		h.ask("digits", "a", h.key, 0)
	}
	h.ask("digits", "a", "wrong", 0)
	h.ask("nope", "", "", 0)
	reg.MustRegister(h.path)
	want := `
# HELP sluice_config_generation Number of the configuration that requests see.
# TYPE sluice_config_generation gauge
sluice_config_generation 1
# HELP sluice_refused_total Requests that reached no version, by reason; endpoint is empty where it is unknown.
# TYPE sluice_refused_total counter
sluice_refused_total{endpoint="",status="NotFound"} 1
sluice_refused_total{endpoint="digits",status="Unauthenticated"} 1
# HELP sluice_requests_total Requests that were assigned to a version, by how they ended.
# TYPE sluice_requests_total counter
sluice_requests_total{endpoint="digits",status="OK",variant="default",version="a"} 3
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "sluice_requests_total", "sluice_refused_total", "sluice_config_generation"); err != nil {
		t.Error(err)
	}
}

func TestServeDoesNotAllocate(t *testing.T) {
	h, ask := ready(t)
	if n := testing.AllocsPerRun(1000, ask); n != 0 {
		t.Errorf("%v allocations per request", n)
	}
	_ = h
}

// ready is a house whose requests cost nothing but the path.
func ready(t testing.TB) (*house, func()) {
	m := metrics.New(prometheus.NewRegistry())
	h := open(t, gateway.Config{Refused: m.Refused("")})
	h.pool("a").SetReplicas(offered(8, &replica{name: "a"}))
	h.pool("b").SetReplicas(offered(8, &replica{name: "b"}))
	for _, v := range h.path.Snapshot().Endpoint([]byte("digits")).Versions {
		v.Series = m.Series("digits", v.Name, v.Variant.String())
	}
	name, key := []byte("digits"), []byte(h.key)
	return h, func() {
		c := h.path.Call()
		c.Name, c.Credential = name, key
		h.path.Serve(c)
		h.path.Done(c)
	}
}

// BenchmarkServe is the gateway's own work for a request, with key, split, slot
// and metrics, and a scorer that answers at once.
func BenchmarkServe(b *testing.B) {
	_, ask := ready(b)
	b.ReportAllocs()
	for b.Loop() {
		ask()
	}
}

// BenchmarkServeAmong serves one of many endpoints.
func BenchmarkServeAmong(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := gateway.NewPath(gateway.Config{})
			defer p.Close()
			list := make([]*gateway.Endpoint, n)
			r := offered(8, &replica{name: "r"})
			for i := range list {
				name := fmt.Sprintf("endpoint-%05d", i)
				split, _ := router.New(name, []router.Version{{Name: "v", Default: true}}, router.NewSequence())
				pool := p.Pool(gateway.Key{Endpoint: name, Version: "v"})
				pool.SetReplicas(r)
				list[i] = &gateway.Endpoint{Name: name, Auth: auth.Open{}, Split: split, Versions: []*gateway.Version{
					{Version: split.Versions[0], Pool: pool, Limits: limits}}}
			}
			p.Swap(gateway.NewSnapshot(1, list))
			for i := 0; b.Loop(); i++ {
				c := p.Call()
				c.Name = []byte(list[i*7919%n].Name)
				p.Serve(c)
				p.Done(c)
			}
		})
	}
}

// Callers that no endpoint lets in are told apart from those that an endpoint itself
// is to tell.
func TestCallersOfSomeEndpoint(t *testing.T) {
	lets := func(keys ...string) (list []*gateway.Endpoint) {
		for i, key := range keys {
			e := &gateway.Endpoint{Name: strconv.Itoa(i), Auth: apikey.New(apikey.Pepper{}, key, "")}
			switch key {
			case "open":
				e.Auth = auth.Open{}
			case "busy":
				e.Auth = refusing{auth.ErrBusy}
			case "token":
				e.Auth = refusing{auth.ErrForm}
			}
			list = append(list, e)
		}
		return list
	}
	f := func(credential string, known bool, want error, keys ...string) {
		t.Helper()
		p := gateway.NewPath(gateway.Config{})
		defer p.Close()
		p.Swap(gateway.NewSnapshot(1, lets(keys...)))
		if got, err := p.Knows([]byte(credential)); got != known || err != want {
			t.Errorf("%q to %v: %v, %v; want %v, %v", credential, keys, got, err, known, want)
		}
	}
	f("", false, nil)
	f("", false, nil, "a", "open")
	f("a", true, nil, "open", "a", "busy")
	f("x", false, nil, "open", "a")
	f("x", false, nil, "busy", "a")
	f("x", false, auth.ErrInvalid, "a", "b", "token")
	f("x", false, auth.ErrForm, "token")
	f("", false, auth.ErrMissing, "a", "busy")
	many := slices.Repeat([]string{"a"}, 257)
	f("", false, auth.ErrMissing, many...)
	f("x", false, nil, many...)
}

type refusing struct{ err error }

func (r refusing) Authenticate([]byte) (*auth.Principal, error) { return nil, r.err }
