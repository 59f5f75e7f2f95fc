package cmd

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// container is a server of the kind that Azure ML's are, made here.
type container struct {
	address string
	name    string
	scored  atomic.Int64
	server  *http.Server
	tasks   sync.WaitGroup
}

func (c *container) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/score" || r.Method != http.MethodPost {
		fmt.Fprint(w, "Healthy")
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	c.scored.Add(1)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Ms-Run-Fn-Exec-Ms", "0.250")
	switch {
	case strings.Contains(string(body), "teapot"):
		w.WriteHeader(http.StatusTeapot)
	case strings.Contains(string(body), "broken"):
		w.WriteHeader(http.StatusInternalServerError)
	}
	fmt.Fprintf(w, `{"from":%q}`, c.name)
}

// run begins to serve.
func (c *container) run(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", c.address)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: c}
	c.server = s
	c.tasks.Go(func() { _ = s.Serve(l) })
}

// kill ends it in the middle of whatever it does.
func (c *container) kill() {
	_ = c.server.Close()
	c.tasks.Wait()
}

func newContainer(t *testing.T, name string) *container {
	t.Helper()
	c := &container{address: free(t), name: name}
	c.run(t)
	t.Cleanup(func() { c.kill() })
	return c
}

// serveMixed runs sluice serve with a version of ours and one that is an upstream.
func serveMixed(t *testing.T, more string, old *container) (base, file string) {
	t.Helper()
	dir := t.TempDir()
	model, err := filepath.Abs(digits + "mlp.onnx")
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "endpoint.yaml")
	write := func(address string) string {
		return fmt.Sprintf(`apiVersion: sluice.dev/v1alpha1
kind: Endpoint
metadata: {name: digits}
spec:
  auth: {mode: key, keys: {primary: {env: DIGITS_KEY}}}%s
  versions:
    - name: old
      trafficPercentile: 90
      upstream: {http: {urls: ["http://%s"], protocol: azureml}, health: {periodSeconds: 1}}
    - {name: new, model: %s, trafficPercentile: 10, default: true}
`, more, address, model)
	}
	if err := os.WriteFile(file, []byte(write(old.address)), 0o600); err != nil {
		t.Fatal(err)
	}
	http, admin := free(t), free(t)
	p := start(t, "sluice", "serve", "--file", file, "--http", http, "--metrics", admin, "--state", filepath.Join(dir, "state"), "--drain-delay", "10ms")
	eventually(t, "ready", ready(admin))
	t.Cleanup(p.stop)
	return "http://" + http, file
}

const scoreDigits = "/api/v1/service/digits/score"

func TestAContainerAndAModelShareAnEndpoint(t *testing.T) {
	old := newContainer(t, "old")
	base, _ := serveMixed(t, "", old)
	aml := read(t, digits+"requests/aml.json")
	served := map[string]int{}
	for range 500 {
		a := must(t, "POST", base+scoreDigits, aml, bearer...)
		version := a.header.Get("X-Sluice-Version")
		served[version]++
		wanted := map[string]string{"old": `{"from":"old"}`, "new": `{"label":[2]`}[version]
		if a.status != 200 || !strings.HasPrefix(string(a.body), wanted) || a.header.Get("X-Ms-Run-Fn-Exec-Ms") == "" {
			t.Fatalf("%s: %d %s %v", version, a.status, a.body, a.header)
		}
	}
	if served["old"] < 446 || served["old"] > 454 || served["old"]+served["new"] != 500 {
		t.Errorf("of 500 requests %v; want 450 and 50", served)
	}
	if n := old.scored.Load(); n != int64(served["old"]) {
		t.Errorf("the container scored %d; its answers are %d", n, served["old"])
	}
	pinned := append(bearer, "Azureml-Model-Deployment", "old")
	f := func(path, body string, status int, text string) {
		t.Helper()
		if a := must(t, "POST", base+path, []byte(body), pinned...); a.status != status || !strings.Contains(string(a.body), text) {
			t.Errorf("%d %s; want %d with %s", a.status, a.body, status, text)
		}
	}
	f(scoreDigits, "teapot", 418, `{"from":"old"}`)
	f(scoreDigits, "broken", 502, "answered 500")
	f("/v2/models/digits/infer", "{}", 501, "Azure ML's protocol only")
	// What the endpoint takes is what the version says that knows it.
	for _, path := range []string{"/v2/models/digits", scoreDigits[:len(scoreDigits)-len("score")] + "swagger.json"} {
		if a := must(t, "GET", base+path, nil, bearer...); a.status != 200 || !strings.Contains(string(a.body), `"input"`) {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := must(t, "GET", base+"/v2/models/digits/versions/old", nil, bearer...); a.status != 200 || !strings.Contains(string(a.body), `"inputs":[]`) {
		t.Errorf("metadata of the container: %d %s", a.status, a.body)
	}
}

func TestAContainerIsKilledAndComesBack(t *testing.T) {
	old := newContainer(t, "old")
	base, _ := serveMixed(t, "\n  split: {fallback: default}", old)
	aml := read(t, digits+"requests/aml.json")
	ask := func() string {
		a := must(t, "POST", base+scoreDigits, aml, bearer...)
		if a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		return a.header.Get("X-Sluice-Version")
	}
	versions := func(n int) map[string]int {
		served := map[string]int{}
		for range n {
			served[ask()]++
		}
		return served
	}
	if got := versions(20); got["old"] < 14 {
		t.Fatalf("of 20 requests %v", got)
	}
	for range 2 {
		old.kill()
		a := must(t, "POST", base+scoreDigits, aml, append(bearer, "Azureml-Model-Deployment", "old")...)
		if a.status != 503 || a.header.Get("Retry-After") == "" {
			t.Errorf("the dead container answers %d %s", a.status, a.body)
		}
		// Who is not pinned to it is served by the default version now.
		if got := versions(100); got["old"] != 0 {
			t.Errorf("while the container is dead, it serves: %v", got)
		}
		old.run(t)
		eventually(t, "served by the container again", func() bool { return ask() == "old" })
		if got := versions(50); got["old"] < 41 || got["old"] > 49 {
			t.Errorf("after it came back, of 50 requests %v", got)
		}
	}
}

// An upstream is replaced by another, removed and added while requests go on.
func TestUpstreamsChangeWithoutALostRequest(t *testing.T) {
	one, two := newContainer(t, "one"), newContainer(t, "two")
	base, file := serveMixed(t, "", one)
	aml := read(t, digits+"requests/aml.json")
	var stop atomic.Bool
	var tasks sync.WaitGroup
	var last atomic.Value
	last.Store("")
	for range 4 {
		tasks.Go(func() {
			for !stop.Load() {
				a, err := call("POST", base+scoreDigits, aml, bearer...)
				if err != nil || a.status != 200 {
					t.Errorf("%d %s (%v)", a.status, a.body, err)
					return
				}
				last.Store(string(a.body))
			}
		})
	}
	text := string(read(t, file))
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	from := func(want string) func() bool {
		return func() bool { return strings.Contains(last.Load().(string), want) || t.Failed() }
	}
	eventually(t, "served by the first", from(`"one"`))
	put(strings.Replace(text, one.address, two.address, 1))
	eventually(t, "served by the second", from(`"two"`))
	model := text[strings.Index(text, "model: ")+len("model: "):]
	model = model[:strings.Index(model, ",")]
	begin, end := strings.Index(text, "      upstream:"), strings.Index(text, "    - {name: new")
	put(text[:begin] + "      model: " + model + "\n" + text[end:])
	before := two.scored.Load()
	eventually(t, "served by models alone", func() bool {
		now := two.scored.Load()
		defer func() { before = now }()
		return now == before && strings.Contains(last.Load().(string), "label") || t.Failed()
	})
	put(text)
	eventually(t, "served by the first again", from(`"one"`))
	stop.Store(true)
	tasks.Wait()
}
