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

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
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

// writeMixed writes an endpoint with a version of ours and one that is an upstream.
func writeMixed(t *testing.T, more, upstream string) (file string) {
	t.Helper()
	model, err := filepath.Abs(digits + "mlp.onnx")
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "endpoint.yaml")
	text := fmt.Sprintf(`apiVersion: sluice.dev/v1alpha1
kind: Endpoint
metadata: {name: digits}
spec:
  auth: {mode: key, keys: {primary: {env: DIGITS_KEY}}}%s
  versions:
    - name: old
      trafficPercentile: 90
      upstream: {%s, health: {periodSeconds: 1}}
    - {name: new, model: %s, trafficPercentile: 10, default: true}
`, more, upstream, model)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// spec is what a specification says of the container.
func (c *container) spec() string {
	return fmt.Sprintf(`http: {urls: ["http://%s"], protocol: azureml}`, c.address)
}

// serveMixed runs sluice serve with file, and waits until all of it is ready.
func serveMixed(t *testing.T, file string) (p *process, base string) {
	t.Helper()
	http, admin := free(t), free(t)
	p = start(t, "sluice", "serve", "--file", file, "--http", http, "--metrics", admin, "--state", filepath.Join(filepath.Dir(file), "state"), "--drain-delay", "10ms")
	eventually(t, "ready", ready(admin))
	t.Cleanup(p.stop)
	return p, "http://" + http
}

const scoreDigits = "/api/v1/service/digits/score"

func TestAContainerAndAModelShareAnEndpoint(t *testing.T) {
	old := newContainer(t, "old")
	_, base := serveMixed(t, writeMixed(t, "", old.spec()))
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
	_, base := serveMixed(t, writeMixed(t, "\n  split: {fallback: default}", old.spec()))
	aml := read(t, digits+"requests/aml.json")
	versions := func(n int) map[string]int { return split(t, base, n) }
	if got := versions(20); got["old"] < 14 {
		t.Fatalf("of 20 requests %v", got)
	}
	for range 2 {
		old.kill()
		eventually(t, "known to be dead", func() bool {
			a := must(t, "POST", base+scoreDigits, aml, append(bearer, "Azureml-Model-Deployment", "old")...)
			if a.status != 503 || a.header.Get("Retry-After") == "" {
				t.Fatalf("the dead container answers %d %s", a.status, a.body)
			}
			return strings.Contains(string(a.body), "no replica of this version is ready")
		})
		// Who is not pinned to it is served by the default version now.
		if got := versions(100); got["old"] != 0 {
			t.Errorf("while the container is dead, it serves: %v", got)
		}
		old.run(t)
		eventually(t, "served by the container again", func() bool { return versions(1)["old"] == 1 })
		if got := versions(50); got["old"] < 41 || got["old"] > 49 {
			t.Errorf("after it came back, of 50 requests %v", got)
		}
	}
}

// An upstream is replaced by another, removed and added while requests go on.
func TestUpstreamsChangeWithoutALostRequest(t *testing.T) {
	one, two := newContainer(t, "one"), newContainer(t, "two")
	file := writeMixed(t, "", one.spec())
	_, base := serveMixed(t, file)
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

// split asks n times, and counts who answered.
func split(t *testing.T, base string, n int) map[string]int {
	t.Helper()
	aml, served := read(t, digits+"requests/aml.json"), map[string]int{}
	for range n {
		a := must(t, "POST", base+scoreDigits, aml, bearer...)
		if a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		served[a.header.Get("X-Sluice-Version")]++
	}
	return served
}

// What was served last has the upstreams, too; and people are told the one route
// that all versions answer.
func TestUpstreamsAreServedFromWhatWasServedLast(t *testing.T) {
	file := writeMixed(t, "", newContainer(t, "old").spec())
	p, _ := serveMixed(t, file)
	p.stop()
	if text := p.log.String(); !strings.Contains(text, scoreDigits+` -H "Authorization: Bearer $DIGITS_KEY" -d @request.json`) {
		t.Errorf("it announces:\n%s", text)
	}
	if err := os.WriteFile(file, []byte("kind: Nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, base := serveMixed(t, file)
	if got := split(t, base, 100); got["old"] < 86 || got["old"] > 94 {
		t.Errorf("of 100 requests %v", got)
	}
}

// The gateway calls upstreams itself; the scorer has the models alone.
func TestAGatewayMixesAScorerAndAContainer(t *testing.T) {
	file := writeMixed(t, "", newContainer(t, "old").spec())
	socket := filepath.Join(t.TempDir(), "s")
	http, admin := free(t), free(t)
	start(t, "scorer", "--file", file, "--listen", "unix://"+socket, "--metrics", free(t))
	start(t, "gateway", "--file", file, "--scorer", "unix://"+socket, "--http", http, "--metrics", admin, "--state", t.TempDir())
	eventually(t, "ready", ready(admin))
	if got := split(t, "http://"+http, 100); got["old"] < 86 || got["old"] > 94 || got["new"] == 0 {
		t.Errorf("of 100 requests %v", got)
	}
}

// A gateway of servers of other kinds needs no scorer, and says which version does.
func TestAGatewayOfUpstreamsNeedsNoScorer(t *testing.T) {
	model, upstream := "{name: a, model: m.onnx}", "{name: a, upstream: {"+newContainer(t, "old").spec()+"}}"
	serve := func(version string) (p *process, http, admin string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "e.yaml")
		text := "apiVersion: sluice.dev/v1alpha1\nkind: Endpoint\nmetadata: {name: digits}\nspec:\n  auth: {mode: none}\n  versions: [" + version + "]\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		http, admin = free(t), free(t)
		return start(t, "gateway", "--file", file, "--http", http, "--metrics", admin, "--state", t.TempDir(), "--drain-delay", "10ms"), http, admin
	}
	p, http, admin := serve(upstream)
	eventually(t, "ready", ready(admin))
	if a := must(t, "POST", "http://"+http+scoreDigits, []byte(`{"data":[]}`)); a.status != 200 {
		t.Errorf("answered %d %s", a.status, a.body)
	}
	p.stop()
	p, _, _ = serve(model)
	err := <-p.end
	p.end <- err
	if want := "endpoint digits, version a: has a model, and no scorer is named"; err == nil || !strings.Contains(p.log.String(), want) {
		t.Errorf("%v, %s; want an error with %q", err, p.log, want)
	}
}

// asIs passes gRPC's messages as they are.
type asIs struct{}

func (asIs) Marshal(v any) ([]byte, error)      { return v.([]byte), nil }
func (asIs) Unmarshal(data []byte, v any) error { *v.(*[]byte) = data; return nil }
func (asIs) Name() string                       { return "proto" }

// sub appends a field of bytes, a string or a message.
func sub(dst []byte, num protowire.Number, b string) []byte {
	return protowire.AppendString(protowire.AppendTag(dst, num, protowire.BytesType), b)
}

// serveOIP is a gRPC server that says of every row of digits that it is a 7.
func serveOIP(t *testing.T) (address string) {
	t.Helper()
	tensor := func(name, typ, shape string) string {
		return string(sub(sub(sub(nil, 1, name), 2, typ), 3, shape))
	}
	const any1 = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" // -1
	answers := map[string][]byte{
		"ModelReady":    {8, 1},
		"ModelMetadata": sub(sub(sub(nil, 1, "digits"), 4, tensor("input", "FP32", any1+"\x40")), 5, tensor("label", "INT64", any1)),
		"ModelInfer":    sub(sub(nil, 5, tensor("label", "INT64", "\x01")), 6, "\x07\x00\x00\x00\x00\x00\x00\x00"),
	}
	s := grpc.NewServer(grpc.ForceServerCodec(asIs{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		var in []byte
		if err := stream.RecvMsg(&in); err != nil {
			return err
		}
		return stream.SendMsg(answers[strings.TrimPrefix(method, "/inference.GRPCInferenceService/")])
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var task sync.WaitGroup
	task.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() {
		s.Stop()
		task.Wait()
	})
	return l.Addr().String()
}

// Azure ML's clients are answered by a gRPC server that never heard of them.
func TestAGRPCServerAndAModelShareAnEndpoint(t *testing.T) {
	_, base := serveMixed(t, writeMixed(t, "", fmt.Sprintf(`grpc: {addresses: ["%s"]}`, serveOIP(t))))
	if got := split(t, base, 100); got["old"] < 86 || got["old"] > 94 || got["new"] == 0 {
		t.Errorf("of 100 requests %v", got)
	}
	pinned := append(bearer, "Azureml-Model-Deployment", "old")
	if a := must(t, "POST", base+scoreDigits, read(t, digits+"requests/aml.json"), pinned...); string(a.body) != `{"label":[7]}` {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := must(t, "POST", base+"/v2/models/digits/versions/old/infer", read(t, digits+"requests/one.json"), bearer...); !strings.Contains(string(a.body), `"data":[7]`) {
		t.Errorf("%d %s", a.status, a.body)
	}
}
