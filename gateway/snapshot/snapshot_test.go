package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"weak"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"sluice.dev/auth/apikey"
	"sluice.dev/auth/issue"
	"sluice.dev/deploy/spec"
	"sluice.dev/gateway"
	"sluice.dev/gateway/metrics"
	"sluice.dev/router"
	"sluice.dev/scorer"
)

// load reads endpoints as the commands do.
func load(t testing.TB, documents ...string) []*spec.Endpoint {
	t.Helper()
	path := filepath.Join(t.TempDir(), "e.yaml")
	text := "apiVersion: sluice.dev/v1alpha1\nkind: Endpoint\n" + strings.Join(documents, "\n---\napiVersion: sluice.dev/v1alpha1\nkind: Endpoint\n")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	list, findings := spec.Load(path)
	for _, e := range list {
		findings = append(findings, e.Validate()...)
		e.Default()
	}
	if err := findings.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

const two = `metadata: {name: digits}
spec:
  versions:
    - {name: a, model: a.onnx, type: control, trafficPercentile: 75, default: true, maxConcurrentRequestsPerContainer: 3}
    - {name: b, model: b.onnx, type: treatment, trafficPercentile: 25, scoringTimeoutMs: 250, maxQueueWaitMs: 10}`

// named answers with its name.
type named string

func (n named) Score(_ *scorer.Request, resp *scorer.Response) {
	resp.Status, resp.Body = scorer.OK, append(resp.Body[:0], n...)
}

// house is a path, its compiler, and the keys that the compiler finds.
type house struct {
	path     *gateway.Path
	compiler *Compiler
	registry *prometheus.Registry
	keys     map[string][2]string
	store    store
}

// store keeps slots as text, as a file would.
type store map[string]string

func (s store) LoadSlots(endpoint string) (*router.Slots, error) {
	if s[endpoint] == "" {
		return nil, nil
	}
	slots := new(router.Slots)
	return slots, slots.UnmarshalText([]byte(s[endpoint]))
}

func (s store) SaveSlots(endpoint string, slots *router.Slots) error {
	text, err := slots.MarshalText()
	s[endpoint] = string(text)
	return err
}

func open(t testing.TB) *house {
	h := &house{registry: prometheus.NewRegistry(), keys: map[string][2]string{"digits": {"one", "two"}}, store: store{}}
	m := metrics.New(h.registry)
	h.path = gateway.NewPath(gateway.Config{Refused: m.Refused("")})
	t.Cleanup(func() {
		h.compiler.Close()
		h.path.Close()
	})
	h.compiler = NewCompiler(Config{Path: h.path, Metrics: m, Secret: []byte("secret"), Slots: h.store, Keys: func(e *spec.Endpoint) (*apikey.Keys, error) {
		k, ok := h.keys[e.Metadata.Name]
		if !ok {
			return nil, errors.New("no key")
		}
		return apikey.New(apikey.Pepper{}, k[0], k[1]), nil
	}})
	return h
}

// apply makes documents what is served, by scorers named like their versions.
func (h *house) apply(t testing.TB, documents ...string) {
	t.Helper()
	s, err := h.compiler.Compile(load(t, documents...))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range s.Endpoints() {
		for _, v := range e.Versions {
			if !v.Pool.Ready() {
				v.Pool.SetReplicas([]gateway.Offered{{Scorer: named(v.Name), Offer: scorer.Offer{Window: 8}}})
			}
		}
	}
	if err := h.compiler.Apply(s); err != nil {
		t.Fatal(err)
	}
}

func (h *house) ask(endpoint, key string) (scorer.Status, string) {
	c := h.path.Call()
	defer h.path.Done(c)
	c.Name, c.Credential = []byte(endpoint), []byte(key)
	h.path.Serve(c)
	return c.Response.Status, string(c.Response.Body)
}

func TestASpecificationBecomesWhatIsServed(t *testing.T) {
	h := open(t)
	h.apply(t, two)
	e := h.path.Snapshot().Endpoints()["digits"]
	for i, want := range []gateway.Limits{
		{QueueWait: 500 * time.Millisecond, ScoringTimeout: time.Minute, Concurrency: 3},
		{QueueWait: 10 * time.Millisecond, ScoringTimeout: 250 * time.Millisecond},
	} {
		if got := e.Versions[i].Limits; got != want {
			t.Errorf("version %s has limits %+v; want %+v", e.Versions[i].Name, got, want)
		}
	}
	if slots, _, _ := e.Versions[0].Pool.Load(); slots != 3 {
		t.Errorf("version a has %d slots; want the 3 that are set", slots)
	}
	for key, want := range map[string]scorer.Status{"one": scorer.OK, "two": scorer.OK, "three": scorer.Unauthenticated, "": scorer.Unauthenticated} {
		if got, body := h.ask("digits", key); got != want {
			t.Errorf("key %q: %v %s; want %v", key, got, body, want)
		}
	}
}

// The split goes on where it was, however often the file is read again.
func TestReloadsDoNotDisturbTheSplit(t *testing.T) {
	h := open(t)
	count := map[string]int{}
	for i := 1; i <= 2000; i++ {
		if i%7 == 1 {
			h.apply(t, two)
		}
		_, body := h.ask("digits", "one")
		count[body]++
		if off := float64(count["b"]) - float64(i)/4; off > 4 || off < -4 {
			t.Fatalf("after %d requests version b had %d", i, count["b"])
		}
	}
	if g := h.path.Snapshot().Generation; g != (2000+6)/7 {
		t.Errorf("generation %d; want one more with every reload, %d", g, (2000+6)/7)
	}
}

func TestAnErrorNamesEveryEndpointAndChangesNothing(t *testing.T) {
	h := open(t)
	h.apply(t, two)
	before := h.path.Snapshot()
	_, err := h.compiler.Compile(load(t, two,
		strings.Replace(two, "digits", "other", 1),
		strings.Replace(two, "digits", "third", 1)))
	if err == nil || !strings.Contains(err.Error(), "endpoint other: no key") || !strings.Contains(err.Error(), "endpoint third: no key") {
		t.Errorf("got %v; want both endpoints that cannot be served", err)
	}
	if h.path.Snapshot() != before {
		t.Error("a failed compilation changed what is served")
	}
	h.apply(t, two)
	if got := h.path.Snapshot().Generation; got != before.Generation+1 {
		t.Errorf("generation %d after %d: a failed compilation counts for nothing", got, before.Generation)
	}
}

// headers are those of a request.
type headers map[string]string

func (h headers) Peek(name string) []byte { return []byte(h[name]) }

// A client keeps its version over requests, reloads, restarts and gateways, and a
// change of the shares moves as many clients as it says.
func TestStickyClientsStay(t *testing.T) {
	sticky := strings.Replace(two, "spec:", "spec:\n  split: {sticky: header, header: x-user}", 1)
	more := strings.Replace(strings.Replace(sticky, "75", "65", 1), "25, s", "35, s", 1)
	h := open(t)
	h.apply(t, sticky)
	const clients = 2000
	serve := func(h *house, want router.Reason) (list [clients]string) {
		t.Helper()
		for i := range list {
			c := h.path.Call()
			c.Name, c.Credential, c.Headers = []byte("digits"), []byte("one"), headers{"x-user": fmt.Sprint("user ", i)}
			h.path.Serve(c)
			if list[i] = string(c.Response.Body); c.Reason != want || c.Response.Status != scorer.OK {
				t.Fatalf("client %d: %v %s, %v", i, c.Response.Status, c.Response.Body, c.Reason)
			}
			h.path.Done(c)
		}
		return list
	}
	first := serve(h, router.Sticky)
	h.apply(t, sticky)
	if serve(h, router.Sticky) != first {
		t.Error("a reload moved clients")
	}
	h.apply(t, more)
	ramp, moved := serve(h, router.Sticky), 0
	for i := range ramp {
		if ramp[i] != first[i] {
			if moved++; ramp[i] != "b" {
				t.Fatalf("client %d moved to %s", i, ramp[i])
			}
		}
	}
	if moved < clients*7/100 || moved > clients*13/100 {
		t.Errorf("%d of %d clients moved; want about 10%%", moved, clients)
	}
	again := open(t) // another process, with what the first one kept
	again.store["digits"] = h.store["digits"]
	again.apply(t, more)
	if serve(again, router.Sticky) != ramp {
		t.Error("a restart moved clients")
	}
	h.apply(t, sticky)
	if serve(h, router.Sticky) != first {
		t.Error("a step back did not bring the clients back")
	}
	c := h.path.Call()
	defer h.path.Done(c)
	c.Name, c.Credential, c.Headers = []byte("digits"), []byte("one"), headers{}
	if h.path.Serve(c); c.Reason != router.Percentile {
		t.Errorf("a client without a name was assigned by %v", c.Reason)
	}
}

// What a caller took counts on over reloads, for itself only.
func TestCallersHaveTheirOwnQuota(t *testing.T) {
	h := open(t)
	limited := strings.Replace(two, "spec:", "spec:\n  limits: {requestsPerSecond: 0.01, burstSeconds: 500}", 1)
	h.apply(t, limited)
	ask := func(key string) (scorer.Status, string, time.Duration) {
		c := h.path.Call()
		defer h.path.Done(c)
		c.Name, c.Credential = []byte("digits"), []byte(key)
		h.path.Serve(c)
		return c.Response.Status, string(c.Response.Body), c.RetryIn
	}
	for i := range 6 {
		if i == 3 {
			h.apply(t, limited)
		}
		if status, body, _ := ask("one"); status != scorer.OK {
			t.Fatalf("request %d: %v %s", i, status, body)
		}
	}
	status, body, wait := ask("one")
	if status != scorer.Exhausted || !strings.Contains(body, "quota of requests") || wait < 90*time.Second || wait > 100*time.Second {
		t.Errorf("over the quota: %v %q, wait %v", status, body, wait)
	}
	if status, body, _ := ask("two"); status != scorer.OK {
		t.Errorf("another caller: %v %s", status, body)
	}
	h.apply(t, two)
	if status, body, _ := ask("one"); status != scorer.OK {
		t.Errorf("without a limit: %v %s", status, body)
	}
}

// What is revoked ends with the specification that says so, and not before; tokens
// that are not revoked stay known.
func TestRevocationComesWithItsSpecification(t *testing.T) {
	h := open(t)
	own := strings.Replace(two, "spec:", "spec:\n  auth: {mode: token, token: {revoked: {subjects: [nobody]}}}", 1)
	revoked := strings.Replace(own, "nobody", "mallory", 1)
	h.apply(t, own)
	token := func(subject string) string {
		t.Helper()
		made, err := h.compiler.Issuer().Issue(issue.Request{Endpoint: "digits", Subject: subject, Scopes: []string{issue.Call}, Life: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		return made.Access
	}
	alice, mallory := token("alice"), token("mallory")
	want := func(what string, a, m scorer.Status) {
		t.Helper()
		for _, asked := range []struct {
			token string
			want  scorer.Status
		}{{alice, a}, {mallory, m}} {
			if got, body := h.ask("digits", asked.token); got != asked.want {
				t.Errorf("%s: %v %s; want %v", what, got, body, asked.want)
			}
		}
	}
	before := h.path.Snapshot().Endpoints()["digits"]
	want("at first", scorer.OK, scorer.OK)
	if _, err := h.compiler.Compile(load(t, revoked)); err != nil {
		t.Fatal(err)
	}
	want("compiled and not applied", scorer.OK, scorer.OK)
	h.apply(t, revoked)
	want("applied", scorer.OK, scorer.Unauthenticated)
	if e := h.path.Snapshot().Endpoints()["digits"]; e.Auth != before.Auth || e.PinScope != "pin" {
		t.Error("a revocation made all tokens unknown")
	}
	h.apply(t, strings.Replace(revoked, "token: {", "token: {maxLifetimeSeconds: 600, ", 1))
	want("with a life that is too long", scorer.Unauthenticated, scorer.Unauthenticated)
}

func TestTheDefaultStandsInWhereThatIsSet(t *testing.T) {
	h := open(t)
	h.apply(t, strings.Replace(two, "spec:", "spec:\n  split: {fallback: default}", 1))
	e := h.path.Snapshot().Endpoints()["digits"]
	ask := func(pin string) (scorer.Status, string, router.Reason) {
		c := h.path.Call()
		defer h.path.Done(c)
		c.Name, c.Credential, c.Pin = []byte("digits"), []byte("one"), []byte(pin)
		h.path.Serve(c)
		return c.Response.Status, string(c.Response.Body), c.Reason
	}
	e.Versions[1].Pool.SetReplicas(nil)
	count := map[router.Reason]int{}
	for range 40 {
		status, body, reason := ask("")
		count[reason]++
		if status != scorer.OK || body != "a" {
			t.Fatalf("%v %s, %v", status, body, reason)
		}
	}
	if n := count[router.Fallback]; n < 8 || n > 12 {
		t.Errorf("%v; want about 10 by fallback", count)
	}
	if status, _, reason := ask("b"); status != scorer.Unavailable || reason != router.Pinned {
		t.Errorf("a pinned version without a replica: %v, %v", status, reason)
	}
	e.Versions[0].Pool.SetReplicas(nil)
	if status, _, _ := ask(""); status != scorer.Unavailable {
		t.Errorf("without any replica: %v", status)
	}
}

// scores answers as a model of two classes would.
type scores string

func (s scores) Score(_ *scorer.Request, resp *scorer.Response) {
	resp.Status = scorer.OK
	resp.Body = append(append(append(resp.Body[:0], `{"outputs":[{"name":"p","datatype":"FP32","shape":[1,2],"data":[`...), s...), "]}]}"...)
}

func TestAMirrorGetsItsShareAndIsCompared(t *testing.T) {
	h := open(t)
	const spec = `metadata: {name: digits}
spec:
  mirror: {to: b, percentile: 25, maxQueued: 1000}
  versions:
    - {name: a, model: a.onnx, trafficPercentile: 100, default: true}
    - {name: b, model: b.onnx}`
	h.path.Pool(gateway.Key{Endpoint: "digits", Version: "a"}).SetReplicas([]gateway.Offered{{Scorer: scores("0.75,0.25"), Offer: scorer.Offer{Window: 8}}})
	h.path.Pool(gateway.Key{Endpoint: "digits", Version: "b"}).SetReplicas([]gateway.Offered{{Scorer: scores("0.5,0.75"), Offer: scorer.Offer{Window: 8}}})
	h.apply(t, spec)
	for i := range 400 {
		if i == 200 {
			h.apply(t, spec) // goes on as it was
		}
		if s, body := h.ask("digits", "one"); s != scorer.OK || !strings.Contains(body, "0.75,0.25") {
			t.Fatalf("a client got %v %s; want the answer of a", s, body)
		}
	}
	copied := func() float64 { return counter(t, h.registry, "sluice_mirrored_total", "status", "OK") }
	for end := time.Now().Add(10 * time.Second); copied() < 96; {
		if time.Now().After(end) {
			t.Fatalf("%v of 400 requests were copied; want a quarter, within 4", copied())
		}
	}
	if n, err := testutil.GatherAndCount(h.registry, "sluice_requests_total"); n != 1 || err != nil {
		t.Errorf("%d series of requests, %v; want only the clients'", n, err)
	}
	h.apply(t, strings.Replace(spec, "1000", "999", 1)) // ends what is under way; the series stay, since the mirror does
	n := copied()
	for _, name := range []string{"sluice_mirror_rows_total", "sluice_mirror_top1_disagreements_total"} {
		if got := counter(t, h.registry, name, "version", "b"); got != n || n > 104 {
			t.Errorf("%s is %v; want as many as the %v copies, a quarter of 400 within 4", name, got, n)
		}
	}
}

func TestWhoMayChoosesWhetherItsRequestsAreMirrored(t *testing.T) {
	h := open(t)
	h.path.Pool(gateway.Key{Endpoint: "digits", Version: "b"}).SetReplicas([]gateway.Offered{{Scorer: named("b"), Offer: scorer.Offer{Window: 8}}})
	const spec = `metadata: {name: digits}
spec:
  mirror: {to: b, percentile: 0.01, maxQueued: 1000}
  versions:
    - {name: a, model: a.onnx, trafficPercentile: 100, default: true}
    - {name: b, model: b.onnx}`
	h.apply(t, spec)
	for _, wish := range []string{"always", "never", "always", "never", "never"} {
		c := h.path.Call()
		c.Name, c.Credential = []byte("digits"), []byte("one")
		c.SetCopy([]byte(wish))
		h.path.Serve(c)
		h.path.Done(c)
	}
	for end := time.Now().Add(10 * time.Second); counter(t, h.registry, "sluice_mirrored_total", "status", "OK") < 2; {
		if time.Now().After(end) {
			t.Fatal("two requests were not copied, as their client wished")
		}
	}
	h.apply(t, strings.Replace(spec, "1000", "999", 1)) // ends what is under way; the series stay, since the mirror does
	if n := counter(t, h.registry, "sluice_mirrored_total", "status", "OK"); n != 2 {
		t.Errorf("%v requests were copied; want 2", n)
	}
}

// stuck never answers by itself.
type stuck struct{}

func (stuck) Score(req *scorer.Request, resp *scorer.Response) {
	req.Wait.Arm()
	req.Wait.Wait()
	resp.Fail(scorer.Canceled, "gone")
}

// telling is stuck, and tells that it was asked.
type telling chan struct{}

func (a telling) Score(req *scorer.Request, resp *scorer.Response) {
	a <- struct{}{}
	stuck{}.Score(req, resp)
}

func TestAMirrorThatIsStuckIsNotInTheWay(t *testing.T) {
	h := open(t)
	const mirrored = `metadata: {name: digits}
spec:
  mirror: {to: b, percentile: 100, maxConcurrent: 3, maxQueued: 5, maxBodyBytes: 10}
  versions:
    - {name: a, model: a.onnx, trafficPercentile: 100, default: true}
    - {name: b, model: b.onnx}`
	h.path.Pool(gateway.Key{Endpoint: "digits", Version: "b"}).SetReplicas([]gateway.Offered{{Scorer: stuck{}, Offer: scorer.Offer{Window: 8}}})
	h.apply(t, mirrored)
	for range 100 {
		if s, body := h.ask("digits", "one"); s != scorer.OK || body != "a" {
			t.Fatalf("a client got %v %s", s, body)
		}
	}
	h.path.Pool(gateway.Key{Endpoint: "digits", Version: "a"}).SetReplicas([]gateway.Offered{{Scorer: named("a long answer"), Offer: scorer.Offer{Window: 8}}})
	h.ask("digits", "one")
	dropped := func(reason string) float64 {
		return counter(t, h.registry, "sluice_mirror_dropped_total", "reason", reason)
	}
	if n := dropped("queue_full"); n < 92 || n > 95 {
		t.Errorf("%v copies were dropped of 100; want all but 3 in flight and 5 that wait", n)
	}
	if n := dropped("too_large"); n != 1 {
		t.Errorf("%v copies were too large; want 1", n)
	}
	h.apply(t, strings.Replace(mirrored, "  mirror: {to: b, percentile: 100, maxConcurrent: 3, maxQueued: 5, maxBodyBytes: 10}\n", "", 1)) // ends them
}

// counter is the value of a counter with labels, given as names and values.
func counter(t *testing.T, g prometheus.Gatherer, name string, labels ...string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			has := map[string]string{}
			for _, l := range m.GetLabel() {
				has[l.GetName()] = l.GetValue()
			}
			found := true
			for i := 0; i < len(labels); i += 2 {
				found = found && has[labels[i]] == labels[i+1]
			}
			if found {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// leaving answers that it is, once asked, and is not there any more.
type leaving struct{ pool *gateway.Pool }

func (l leaving) Score(_ *scorer.Request, resp *scorer.Response) {
	l.pool.SetReplicas(nil)
	resp.Fail(scorer.Unavailable, "leaving")
	resp.NotStarted = true
}

// A request whose version's last replica leaves while it is on its way is served by
// the default, at once.
func TestTheDefaultStandsInForWhoJustLeft(t *testing.T) {
	h := open(t)
	pool := h.path.Pool(gateway.Key{Endpoint: "digits", Version: "b"})
	pool.SetReplicas([]gateway.Offered{{Scorer: leaving{pool}, Offer: scorer.Offer{Window: 8}}})
	h.apply(t, `metadata: {name: digits}
spec:
  split: {fallback: default}
  versions:
    - {name: a, model: a.onnx, default: true}
    - {name: b, model: b.onnx, trafficPercentile: 100, maxQueueWaitMs: 60000}`)
	for range 3 {
		c := h.path.Call()
		c.Name, c.Credential = []byte("digits"), []byte("one")
		h.path.Serve(c)
		if c.Response.Status != scorer.OK || c.Version.Name != "a" || c.Reason != router.Fallback {
			t.Errorf("%v %s from %s by %v; want an answer of a, as fallback", c.Response.Status, c.Response.Body, c.Version.Name, c.Reason)
		}
		h.path.Done(c)
	}
}

func TestWhatIsGoneIsForgotten(t *testing.T) {
	h := open(t)
	h.keys["other"] = [2]string{"one"}
	h.apply(t, two, strings.Replace(two, "digits", "other", 1))
	series := func() int {
		t.Helper()
		n, err := testutil.GatherAndCount(h.registry, "sluice_requests_total")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for range 8 {
		h.ask("digits", "one")
		h.ask("other", "one")
	}
	if n := series(); n != 4 {
		t.Errorf("%d series of requests; want one per version that served", n)
	}
	h.apply(t, two)
	if n := series(); n != 2 || h.compiler.served["other"] != nil {
		t.Errorf("%d series after an endpoint went, which is known: %v", n, h.compiler.served["other"] != nil)
	}
	if got, _ := h.ask("other", "one"); got == scorer.OK {
		t.Error("an endpoint that went is served")
	}
}

// What was counted of a mirror, and what an endpoint refused, goes with them, once no
// request has them any more.
func TestSeriesOfWhatIsGoneAreForgotten(t *testing.T) {
	h := open(t)
	const spec = `metadata: {name: digits}
spec:
  mirror: {to: b, percentile: 100, maxQueued: 1000}
  versions:
    - {name: a, model: a.onnx, trafficPercentile: 100, default: true}
    - {name: b, model: b.onnx}`
	h.keys["other"] = [2]string{"one"}
	asked := make(telling, 1)
	h.path.Pool(gateway.Key{Endpoint: "digits", Version: "b"}).SetReplicas([]gateway.Offered{{Scorer: asked, Offer: scorer.Offer{Window: 8}}})
	h.apply(t, spec, strings.Replace(two, "digits", "other", 1))
	h.ask("digits", "one")
	<-asked // its copy is under way until the mirror ends
	h.ask("other", "wrong")
	count := func(name string) int {
		t.Helper()
		n, err := testutil.GatherAndCount(h.registry, name)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	h.apply(t, strings.Replace(spec, "1000", "999", 1), strings.Replace(two, "digits", "other", 1))
	if n, m := count("sluice_mirrored_total"), count("sluice_refused_total"); n != 1 || m != 1 {
		t.Fatalf("%d series of the mirror, %d of what was refused; want 1 of each", n, m)
	}
	h.apply(t, two)
	for _, name := range []string{"sluice_mirrored_total", "sluice_mirror_status_disagreements_total", "sluice_mirror_duration_seconds", "sluice_refused_total"} {
		if n := count(name); n != 0 {
			t.Errorf("%d series of %s are left", n, name)
		}
	}
}

// An endpoint whose specification is the same is the very same, wherever it stands
// now; one that changed keeps what outlives it, and nothing holds its form before.
func TestOnlyWhatChangedIsCompiled(t *testing.T) {
	h := open(t)
	h.keys["other"] = [2]string{"one"}
	two := strings.NewReplacer("a.onnx", "/a.onnx", "b.onnx", "/b.onnx").Replace(two) // each file is in another folder
	other := strings.Replace(two, "digits", "other", 1)
	h.apply(t, two, other)
	for range 4 {
		h.ask("digits", "one")
		h.ask("other", "one")
	}
	endpoints := func() (digits, other *gateway.Endpoint) {
		all := h.path.Snapshot().Endpoints()
		return all["digits"], all["other"]
	}
	digits, same := endpoints()
	sequence, pool, gone := h.compiler.served["digits"].sequence, digits.Versions[0].Pool, weak.Make(digits)
	h.apply(t, other, strings.Replace(strings.Replace(two, "75", "65", 1), "25, s", "35, s", 1))
	digits, now := endpoints()
	if now != same || now.Versions[0] != same.Versions[0] {
		t.Error("an endpoint that did not change was compiled again")
	}
	if digits == gone.Value() || h.compiler.served["digits"].sequence != sequence || digits.Versions[0].Pool != pool || digits.Split.Share(1) != 3500 {
		t.Error("an endpoint that changed is as before, or has another split or pool")
	}
	if c := h.path.Call(); true {
		c.Name, c.Credential = []byte("other"), []byte("one")
		h.path.Serve(c)
		if string(c.Generation) != "2" {
			t.Errorf("an answer is of generation %s; want 2", c.Generation)
		}
		h.path.Done(c)
	}
	h.ask("digits", "one")
	for _, name := range []string{"digits", "other"} {
		n := 0.0
		for _, version := range []string{"a", "b"} {
			n += counter(t, h.registry, "sluice_requests_total", "endpoint", name, "version", version)
		}
		if n != 5 {
			t.Errorf("%v requests of %s are counted; want 5", n, name)
		}
	}
	runtime.GC()
	if gone.Value() != nil {
		t.Error("the form of before is held")
	}
}

// A key's file is read again whatever the specification says.
func TestAKeysFileIsReadWithEveryReload(t *testing.T) {
	h := open(t)
	named := strings.NewReplacer("a.onnx", "/a.onnx", "b.onnx", "/b.onnx", "spec:", "spec:\n  auth: {keys: {primary: {file: /k}}}").Replace(two)
	h.apply(t, named)
	h.keys["digits"] = [2]string{"three"}
	h.apply(t, named)
	if got, body := h.ask("digits", "three"); got != scorer.OK {
		t.Errorf("the new key: %v %s", got, body)
	}
	if got, _ := h.ask("digits", "one"); got != scorer.Unauthenticated {
		t.Errorf("the old key: %v", got)
	}
}

func TestPagesMayCallFromTheNamedOrigins(t *testing.T) {
	path := gateway.NewPath(gateway.Config{})
	t.Cleanup(path.Close)
	f := func(spec string) *gateway.CORS {
		t.Helper()
		s, err := NewCompiler(Config{Path: path, Secret: make([]byte, 32)}).Compile(load(t, "metadata: {name: e}\nspec:\n  auth: {mode: none}\n"+spec+"  versions: [{name: v, model: m.onnx}]"))
		if err != nil {
			t.Fatal(err)
		}
		return s.Endpoints()["e"].CORS
	}
	if c := f(""); c != nil || c.Allows([]byte("https://a.example")) {
		t.Errorf("without cors: %+v", c)
	}
	if c := f("  cors: {allowOrigins: ['*']}\n"); !c.Allows([]byte("https://a.example")) || string(c.MaxAge) != "600" || !strings.Contains(string(c.Sent), "Authorization, ") {
		t.Errorf("with any origin: %+v", c)
	}
	c := f("  cors: {allowOrigins: ['https://a.example'], allowHeaders: [X-A, X-B], allowCredentials: true}\n")
	if !c.Allows([]byte("https://a.example")) || c.Allows([]byte("https://b.example")) || string(c.Sent) != "X-A, X-B" || !c.Credentials {
		t.Errorf("with one origin: %+v", c)
	}
}
