package snapshot

import (
	"testing"
	"time"

	"sluice.dev/auth/issue"
)

// everything is an endpoint that uses all that a request can cost: a token, sticky
// clients, limits of each kind, six versions.
const everything = `metadata: {name: digits}
spec:
  auth: {mode: token}
  split: {sticky: principal}
  limits: {requestsPerSecond: 1e9, bytesPerSecond: 1e12, rowsPerSecond: 1e9, deviceSecondsPerSecond: 1000}
  versions:
    - {name: a, model: a.onnx, type: control, trafficPercentile: 50, default: true}
    - {name: b, model: b.onnx, type: treatment, trafficPercentile: 20}
    - {name: c, model: c.onnx, type: treatment, trafficPercentile: 10}
    - {name: d, model: d.onnx, type: treatment, trafficPercentile: 10}
    - {name: e, model: e.onnx, type: treatment, trafficPercentile: 5}
    - {name: f, model: f.onnx, type: treatment, trafficPercentile: 5}`

// costly is one request of such an endpoint.
func costly(t testing.TB) func() {
	h := open(t)
	h.apply(t, everything)
	made, err := h.compiler.Issuer().Issue(issue.Request{Endpoint: "digits", Subject: "alice", Scopes: []string{issue.Call}, Life: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	name, token := []byte("digits"), []byte(made.Access)
	return func() {
		c := h.path.Call()
		c.Name, c.Credential = name, token
		h.path.Serve(c)
		h.path.Done(c)
	}
}

func TestARequestThatUsesEverythingDoesNotAllocate(t *testing.T) {
	if n := testing.AllocsPerRun(1000, costly(t)); n != 0 {
		t.Errorf("%v allocations per request", n)
	}
}

// BenchmarkEverything is the gateway's own work for such a request: route,
// authenticate, limit, split, admit, record.
func BenchmarkEverything(b *testing.B) {
	ask := costly(b)
	b.ReportAllocs()
	for b.Loop() {
		ask()
	}
}
