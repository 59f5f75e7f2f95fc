package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.dev/auth"
	"sluice.dev/auth/apikey"
	"sluice.dev/gateway"
	"sluice.dev/router"
	"sluice.dev/scorer"
)

// mirror answers with the body that it got.
type mirror struct{}

func (mirror) Score(req *scorer.Request, resp *scorer.Response) {
	if req.Kind == scorer.Stats {
		resp.Status, resp.Body = scorer.OK, append(resp.Body[:0], `{"inference_count":7,"inference_stats":{"success":{"count":3,"ns":50}},"batch_stats":[{"batch_size":2}]}`...)
		return
	}
	resp.Status, resp.Body = scorer.OK, append(resp.Body[:0], req.Body...)
}

// listen serves endpoint "e", version "v", open to all, and returns the address.
func listen(t testing.TB, c Config) string {
	t.Helper()
	address, _ := serve(t, c)
	return address
}

// serve is listen for tests that look at the server, too.
func serve(t testing.TB, c Config, more ...func(*gateway.Path, *Config)) (string, *Server) {
	t.Helper()
	return serveOn(t, c, func(l net.Listener) net.Listener { return l }, more...)
}

// serveOn is serve for tests that do something to the listener.
func serveOn(t testing.TB, c Config, wrap func(net.Listener) net.Listener, more ...func(*gateway.Path, *Config)) (string, *Server) {
	t.Helper()
	path := gateway.NewPath(gateway.Config{})
	for _, m := range more {
		m(path, &c)
	}
	version := router.Version{Name: "v", Default: true}
	split, err := router.New("e", []router.Version{version}, router.NewSequence())
	if err != nil {
		t.Fatal(err)
	}
	pool := path.Pool(gateway.Key{Endpoint: "e", Version: "v"})
	pool.SetReplicas([]gateway.Offered{{Scorer: mirror{}, Offer: scorer.Offer{Window: 64, Kinds: scorer.Kinds, Config: json.RawMessage(`{"name":"e","max_batch_size":4}`)}}})
	path.Swap(gateway.NewSnapshot(1, []*gateway.Endpoint{{
		Name: "e", Auth: auth.Open{}, Split: split,
		Versions: []*gateway.Version{{Version: version, Pool: pool, Limits: gateway.Limits{QueueWait: time.Minute, ScoringTimeout: time.Minute}}},
	}}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(path, c)
	served := make(chan error, 1)
	go func() { served <- s.Serve(wrap(l)) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		path.Close()
	})
	return l.Addr().String(), s
}

// How long talk waits for the server to close the connection.
const (
	silence = 20 * time.Millisecond // where it should not
	forever = 10 * time.Second
)

// talk sends bytes and reads answers until the server closes the connection, or,
// after want answers, has been silent for a while.
func talk(t *testing.T, address, sent string, want int, while time.Duration) (statuses []int, bodies []string, closed bool) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(forever))
	if _, err := io.WriteString(c, sent); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	for {
		if len(statuses) >= want {
			_ = c.SetReadDeadline(time.Now().Add(while))
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			timeout, ok := err.(net.Error)
			return statuses, bodies, !(ok && timeout.Timeout())
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		statuses, bodies = append(statuses, resp.StatusCode), append(bodies, string(body))
	}
}

// until waits for a condition that the server brings about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(forever); !ok(); time.Sleep(time.Millisecond) { // polls the server
		if time.Now().After(end) {
			t.Fatalf("never %s", what)
		}
	}
}

const score = "POST /api/v1/service/e/score HTTP/1.1\r\nHost: a\r\n"

// next is a request that must never be answered after a frame that is not clean.
const next = "GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"

func TestAClientThatDoesNotReadIsCutOff(t *testing.T) {
	address, server := serve(t, Config{WriteTimeout: 50 * time.Millisecond})
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(forever))
	body := strings.Repeat("a", 32<<20) // more than the kernel keeps
	if _, err := io.WriteString(c, fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", score, len(body), body)); err != nil {
		t.Fatal(err)
	}
	until(t, "cut off", func() bool {
		server.watch.mu.Lock()
		defer server.watch.mu.Unlock()
		return len(server.watch.conns) == 0
	})
	if n, err := io.Copy(io.Discard, c); n >= int64(len(body)) {
		t.Errorf("read %d bytes, %v; want less than the answer", n, err)
	}
}

// A declared length is worth nothing without a credential, and room for it.
func TestLargeBodiesAreLetInFirst(t *testing.T) {
	address, server := serve(t, Config{MaxBody: 1 << 20, MaxLarge: 300 << 10})
	key := apikey.Generate()
	s := server.path.Snapshot().Endpoints()["e"]
	server.path.Swap(gateway.NewSnapshot(2, []*gateway.Endpoint{{Name: "e", Auth: apikey.New(apikey.NewPepper(), key, ""), Split: s.Split, Versions: s.Versions}}))
	body := strings.Repeat("a", 200<<10)
	head := func(name, key string) string {
		return fmt.Sprintf("POST /api/v1/service/%s/score HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", name, key, len(body))
	}
	f := func(want int, sent string) {
		t.Helper()
		statuses, bodies, closed := talk(t, address, sent, 1, silence)
		if len(statuses) != 1 || statuses[0] != want || closed != (want != 200) {
			t.Errorf("answered %v %.100q, closed: %v; want %d", statuses, bodies, closed, want)
		}
	}
	f(401, head("e", "wrong"))
	f(404, head("f", key))
	for body, sent := range map[string]string{
		`"code":"Unauthenticated"`:              head("e", "wrong"), // in the route's own form
		`"error":"Request for unknown model: '`: strings.Replace(head("f", key), "api/v1/service/f/score", "v2/models/f/infer", 1),
		`"error":"Not Found"`:                   strings.Replace(head("e", key), "api/v1/service/e/score", "elsewhere", 1),
	} {
		if _, bodies, _ := talk(t, address, sent, 1, forever); len(bodies) != 1 || !strings.Contains(bodies[0], body) {
			t.Errorf("%.40q: answered %q; want %s", sent, bodies, body)
		}
	}
	f(413, score+"Content-Length: 1048577\r\n\r\n")
	f(200, head("e", key)+body)

	slow, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(slow, head("e", key)+"a"); err != nil {
		t.Fatal(err)
	}
	until(t, "let in", func() bool { return server.large.sum.Load() > 0 })
	f(503, head("e", key))
	f(200, strings.Replace(head("e", key), fmt.Sprint(len(body)), "3", 1)+"abc") // small ones go on
	slow.Close()
	until(t, "given back", func() bool { return server.large.sum.Load() == 0 })
	f(200, head("e", key)+body)
}

// sitter keeps every request until it is abandoned.
type sitter struct{ sits, left chan struct{} }

func (s sitter) Score(req *scorer.Request, resp *scorer.Response) {
	req.Wait.Arm()
	s.sits <- struct{}{}
	if !req.Wait.Wait() {
		s.left <- struct{}{}
	}
	resp.Fail(scorer.Canceled, "left")
}

func TestAClientThatLeavesFreesItsPlace(t *testing.T) {
	address, server := serve(t, Config{})
	s := sitter{make(chan struct{}, 1), make(chan struct{}, 1)}
	pool := server.path.Snapshot().Endpoints()["e"].Versions[0].Pool
	pool.SetReplicas([]gateway.Offered{{Scorer: s, Offer: scorer.Offer{Window: 1}}})
	ask := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, score+"Content-Length: 3\r\n\r\nabc"); err != nil {
			t.Fatal(err)
		}
		return c
	}
	for range 3 {
		first := ask()
		<-s.sits
		waits := ask() // for the only slot
		queued := func() int { _, _, n := pool.Load(); return n }
		until(t, "queued", func() bool { return queued() == 1 })
		waits.Close()
		until(t, "gone from the queue", func() bool { return queued() == 0 })
		first.Close()
		<-s.left
	}
}

func TestRequestsAreWrittenDown(t *testing.T) {
	var out bytes.Buffer
	address, server := serve(t, Config{Access: gateway.AccessLog{Log: slog.New(slog.NewJSONHandler(&out, nil)), Share: 1}})
	talk(t, address, strings.Replace(score, "score HTTP", "score?key=secret HTTP", 1)+"Authorization: Bearer secret\r\nX-Request-Id: 17\r\nX-Ms-Client-Request-Id: mine\r\nUser-Agent: tester\r\nX-Forwarded-For: 10.0.0.1\r\n"+
		"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nContent-Length: 3\r\n\r\nabc", 1, silence)
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err, out.String())
	}
	for key, want := range map[string]any{
		"msg": "request", "request_id": "17", "client_request_id": "mine", "trace_id": "0af7651916cd43dd8448eb211c80319c", "method": "POST", "user_agent": "tester", "forwarded_for": "10.0.0.1",
		"path": "/api/v1/service/e/score", "status": 200.0, "reason": "OK", "bytes_in": 3.0, "bytes_out": 3.0, "endpoint": "e", "version": "v", "assigned_by": "percentile",
	} {
		if got[key] != want {
			t.Errorf("%s is %v; want %v", key, got[key], want)
		}
	}
	if ms, _ := got["ms"].(float64); ms <= 0 || strings.Contains(out.String(), "secret") {
		t.Errorf("written: %s", out.String())
	}
	out.Reset()
	server.config.Access.Share = 0
	talk(t, address, score+"Content-Length: 3\r\n\r\nabc", 1, silence)
	server.path.Snapshot().Endpoints()["e"].Versions[0].Pool.SetReplicas(nil)
	talk(t, address, score+"X-Request-Timeout-Ms: 1\r\nContent-Length: 3\r\n\r\nabc", 1, silence)
	if n := strings.Count(out.String(), "\n"); n != 1 || !strings.Contains(out.String(), `"status":50`) {
		t.Errorf("with a share of 0: %s", out.String())
	}
}

// said is a scorer that keeps what a request said of itself.
type said struct {
	trace     scorer.Trace
	state, id string
}

func (s *said) Score(req *scorer.Request, _ *scorer.Response) {
	*s = said{req.Trace, string(req.State), string(req.ID)}
}

// The scorer gets the trace of a request, and the id that its answer has.
func TestScorersKnowARequestByItsNames(t *testing.T) {
	address, server := serve(t, Config{})
	s := &said{}
	server.path.Snapshot().Endpoints()["e"].Versions[0].Pool.SetReplicas([]gateway.Offered{{Scorer: s, Offer: scorer.Offer{Window: 1}}})
	const trace = "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
	f := func(headers, id, state string) {
		t.Helper()
		*s = said{}
		c := connect(t, address)
		if _, err := c.Write([]byte(score + headers + "Content-Length: 3\r\n\r\nabc")); err != nil {
			t.Fatal(err)
		}
		_, h, _, err := readStrictly(bufio.NewReader(c), false)
		if err != nil {
			t.Fatal(err)
		}
		if given := h.Get("X-Request-Id"); s.id != given || id != "" && given != id || id == "" && len(given) != 36 {
			t.Errorf("%q: the scorer knows it as %q, its client as %q; want %q", headers, s.id, given, id)
		}
		if s.state != state || (s.trace != scorer.Trace{}) != strings.HasPrefix(headers, trace) {
			t.Errorf("%q: trace %v, state %q; want %q", headers, s.trace, s.state, state)
		}
	}
	f("", "", "")
	f(trace+"X-Request-Id: 17\r\nTracestate: a=b\r\n", "17", "a=b")
	f(trace+"Tracestate: a=b\r\nX-Ms-Client-Request-Id: mine\r\nTracestate: c=d\r\n", "", "a=b,c=d")
	f(trace+"Tracestate: "+strings.Repeat("x", 600)+"\r\nX-Request-Id: \xfc\r\n", "", "")
	f("Tracestate: a=b\r\n", "", "")
}

// broken is a scorer with a bug.
type broken struct{}

func (broken) Score(*scorer.Request, *scorer.Response) { panic("a bug") }

func TestABugIsAnsweredAndWrittenDownWithItsStack(t *testing.T) {
	var out bytes.Buffer
	address, server := serve(t, Config{Log: slog.New(slog.NewTextHandler(&out, nil))})
	server.path.Snapshot().Endpoints()["e"].Versions[0].Pool.SetReplicas([]gateway.Offered{{Scorer: broken{}, Offer: scorer.Offer{Window: 1}}})
	statuses, bodies, _ := talk(t, address, score+"Content-Length: 3\r\n\r\nabc", 1, silence)
	if len(statuses) != 1 || statuses[0] != 500 || strings.Contains(bodies[0], "bug") {
		t.Errorf("answered %v %q", statuses, bodies)
	}
	if n := server.path.InFlight(); n != 0 {
		t.Errorf("%d requests are still in flight", n)
	}
	if said := out.String(); !strings.Contains(said, `panic="a bug"`) || !strings.Contains(said, "broken.Score") {
		t.Errorf("written: %s", said)
	}
}

// buggy is an authenticator with a bug.
type buggy struct{}

func (buggy) Authenticate([]byte) (*auth.Principal, error) { panic("a bug") }

func TestABugBeforeALargeBodyIsAnswered(t *testing.T) {
	address, server := serve(t, Config{})
	e := server.path.Snapshot().Endpoints()["e"]
	server.path.Swap(gateway.NewSnapshot(2, []*gateway.Endpoint{{Name: "e", Auth: buggy{}, Split: e.Split, Versions: e.Versions}}))
	for _, body := range []string{"Content-Length: 204800\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n" + none, "\r\n"} {
		if statuses, _, closed := talk(t, address, score+body, 1, forever); fmt.Sprint(statuses) != "[500]" || !closed {
			t.Errorf("%q: answered %v, closed: %v; want 500", body, statuses, closed)
		}
	}
}

func TestSlowRequestsEndInTime(t *testing.T) {
	address := listen(t, Config{ReadTimeout: 50 * time.Millisecond, IdleTimeout: 50 * time.Millisecond})
	for _, sent := range []string{"POST /api", score, score + "Content-Length: 3\r\n\r\nab"} {
		if statuses, _, closed := talk(t, address, sent, 1, forever); !closed || len(statuses) != 1 || statuses[0] != 408 {
			t.Errorf("%q: answered %v, closed: %v; want 408, and closed", sent, statuses, closed)
		}
	}
	if statuses, _, closed := talk(t, address, next, 2, forever); !closed || len(statuses) != 1 {
		t.Errorf("an idle connection: answered %v, closed: %v; want one answer, and closed", statuses, closed)
	}
}
