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

func TestCleanRequestsAreServedInOrder(t *testing.T) {
	address := listen(t, Config{})
	f := func(sent string, bodies ...string) {
		t.Helper()
		statuses, got, closed := talk(t, address, sent, len(bodies), silence)
		if fmt.Sprint(got) != fmt.Sprint(bodies) || closed {
			t.Errorf("%q: answered %v %q, closed: %v; want %q", sent, statuses, got, closed, bodies)
		}
	}
	f(score+"Content-Length: 3\r\n\r\nabc", "abc")
	f(score+"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", "abc")
	f(score+"content-length:3\r\n\r\nabc"+score+"Content-Length: 0\r\n\r\n"+score+"Content-Length: 2\r\n\r\nde", "abc", "", "de")
	f(score+"Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc", "", "abc") // the first is 100
	f("POST /api/v1/service/%65/score HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "abc")
}

// Source of the classes: the smuggling corpora of the HTTP Garden and of
// h1spec, and fasthttp's own advisories.
func TestHostileFramesAreRefusedAndTheConnectionClosed(t *testing.T) {
	address := listen(t, Config{MaxHeader: 4 << 10, MaxBody: 1 << 10})
	f := func(what string, status int, sent string) {
		t.Helper()
		statuses, _, closed := talk(t, address, sent+next, 1, forever)
		if len(statuses) != 1 || statuses[0] != status || !closed {
			t.Errorf("%s: answered %v, closed: %v; want %d alone, and closed", what, statuses, closed, status)
		}
	}
	bad := func(what, sent string) { t.Helper(); f(what, 400, sent) }

	bad("two lengths", score+"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd")
	bad("the same length twice", score+"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc")
	bad("a list of lengths", score+"Content-Length: 3, 3\r\n\r\nabc")
	bad("length and chunked", score+"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
	bad("chunked and length", score+"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n")
	bad("chunked twice", score+"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
	bad("chunked, identity", score+"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n")
	bad("identity", score+"Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc")
	bad("xchunked", score+"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")
	bad("chunked in quotes", score+"Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n")
	bad("chunked after a vertical tab", score+"Transfer-Encoding:\vchunked\r\n\r\n0\r\n\r\n")
	bad("chunked in HTTP/1.0", strings.Replace(score, "1.1", "1.0", 1)+"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
	bad("space before the colon", score+"Content-Length : 3\r\n\r\nabc")
	bad("a negative length", score+"Content-Length: -3\r\n\r\nabc")
	bad("a signed length", score+"Content-Length: +3\r\n\r\nabc")
	bad("a hexadecimal length", score+"Content-Length: 0x3\r\n\r\nabc")
	bad("a length with a space", score+"Content-Length: 3 3\r\n\r\nabc")
	bad("an empty length", score+"Content-Length:\r\n\r\nabc")
	bad("a length that wraps", score+"Content-Length: 18446744073709551619\r\n\r\nabc")
	bad("a continued line", score+"X: a\r\n b\r\nContent-Length: 3\r\n\r\nabc")
	bad("a continued first line", "POST /api/v1/service/e/score HTTP/1.1\r\n Host: a\r\nContent-Length: 3\r\n\r\nabc")
	bad("bare line feeds", "POST /api/v1/service/e/score HTTP/1.1\nHost: a\nContent-Length: 3\n\nabc")
	bad("one bare line feed", score+"X: a\nContent-Length: 3\r\n\r\nabc")
	bad("a bare carriage return", score+"X: a\rContent-Length: 4\r\nContent-Length: 3\r\n\r\nabc")
	bad("a NUL in a value", score+"X: a\x00b\r\nContent-Length: 3\r\n\r\nabc")
	bad("a NUL in a name", score+"X\x00: a\r\nContent-Length: 3\r\n\r\nabc")
	bad("a control character in a value", score+"X: a\x01b\r\nContent-Length: 3\r\n\r\nabc")
	bad("a line without a colon", score+"X\r\nContent-Length: 3\r\n\r\nabc")
	bad("a line without a name", score+": a\r\nContent-Length: 3\r\n\r\nabc")
	bad("a name with a space", score+"X Y: a\r\nContent-Length: 3\r\n\r\nabc")
	bad("no host", "POST /api/v1/service/e/score HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")
	bad("two hosts", score+"Host: b\r\nContent-Length: 3\r\n\r\nabc")
	bad("a host with user information", strings.Replace(score, "a\r\n", "u@a\r\n", 1)+"Content-Length: 3\r\n\r\nabc")
	bad("the absolute form", "GET http://a/v2 HTTP/1.1\r\nHost: a\r\n\r\n")
	bad("the asterisk form", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
	bad("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n")
	bad("no version", "GET /v2\r\nHost: a\r\n\r\n")
	bad("HTTP/1.2", "GET /v2 HTTP/1.2\r\nHost: a\r\n\r\n")
	bad("HTTP/1.10", "GET /v2 HTTP/1.10\r\nHost: a\r\n\r\n")
	bad("HTTP/2.0", "GET /v2 HTTP/2.0\r\nHost: a\r\n\r\n")
	bad("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	bad("a tab in the request line", "GET\t/v2\tHTTP/1.1\r\nHost: a\r\n\r\n")
	bad("two spaces in the request line", "GET  /v2  HTTP/1.1\r\nHost: a\r\n\r\n")
	bad("a space in the path", "GET /v2 /x HTTP/1.1\r\nHost: a\r\n\r\n")
	bad("a method that is no token", "G(T /v2 HTTP/1.1\r\nHost: a\r\n\r\n")
	bad("not ASCII", "GET /v2\xff HTTP/1.1\r\nHost: a\r\n\r\n")
	bad("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")

	const chunked = score + "Transfer-Encoding: chunked\r\n\r\n"
	bad("a chunk that is no number", chunked+"x\r\na\r\n0\r\n\r\n")
	bad("a negative chunk", chunked+"-1\r\na\r\n0\r\n\r\n")
	bad("a chunk with 0x", chunked+"0x1\r\na\r\n0\r\n\r\n")
	bad("a chunk that wraps", chunked+"10000000000000001\r\na\r\n0\r\n\r\n")
	bad("a chunk ended by a line feed", chunked+"1\na\r\n0\r\n\r\n")
	bad("a chunk longer than it says", chunked+"1\r\nabc\r\n0\r\n\r\n")
	bad("a chunk extension with a line feed", chunked+"1;a\nb\r\na\r\n0\r\n\r\n")
	bad("a trailer that changes the frame", chunked+"1\r\na\r\n0\r\nContent-Length: 5\r\n\r\n")

	f("a large head", 431, score+"X: "+strings.Repeat("a", 5<<10)+"\r\n\r\n")
	f("a large body", 413, score+"Content-Length: 1025\r\n\r\n"+strings.Repeat("a", 1025))
	f("a large chunk", 413, chunked+"401\r\n"+strings.Repeat("a", 1025)+"\r\n0\r\n\r\n")
	f("many chunks", 413, chunked+strings.Repeat("1\r\na\r\n", 1025)+"0\r\n\r\n")
}

func TestWhatIsNotServedIsSaidSo(t *testing.T) {
	address := listen(t, Config{})
	f := func(status int, sent string) {
		t.Helper()
		statuses, bodies, _ := talk(t, address, sent, 1, silence)
		if len(statuses) != 1 || statuses[0] != status || !strings.Contains(bodies[0], `"error":"`) {
			t.Errorf("%q: answered %v %q; want %d", sent, statuses, bodies, status)
		}
	}
	f(405, "TRACE /v2 HTTP/1.1\r\nHost: a\r\n\r\n")
	f(405, "DELETE /v2 HTTP/1.1\r\nHost: a\r\n\r\n")
	f(405, "GET /api/v1/service/e/score HTTP/1.1\r\nHost: a\r\n\r\n")
	f(404, "GET /v2/../v2 HTTP/1.1\r\nHost: a\r\n\r\n")
	f(404, "GET /v2/%2e%2e/v2 HTTP/1.1\r\nHost: a\r\n\r\n")
	f(404, "GET //v2 HTTP/1.1\r\nHost: a\r\n\r\n")
	f(404, "GET /v2%2fhealth%2flive HTTP/1.1\r\nHost: a\r\n\r\n")
	f(404, "GET /v2/models/e%2fversions%2fv HTTP/1.1\r\nHost: a\r\n\r\n")
}

// An upgrade is not done: the request is served as what it is without.
func TestNothingIsUpgraded(t *testing.T) {
	statuses, bodies, _ := talk(t, listen(t, Config{}), score+"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 3\r\n\r\nabc", 1, silence)
	if len(statuses) != 1 || statuses[0] != 200 || bodies[0] != "abc" {
		t.Errorf("answered %v %q", statuses, bodies)
	}
}

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
	reserved := func() int64 {
		server.large.mu.Lock()
		defer server.large.mu.Unlock()
		return server.large.sum
	}
	until(t, "let in", func() bool { return reserved() > 0 })
	f(503, head("e", key))
	f(200, strings.Replace(head("e", key), fmt.Sprint(len(body)), "3", 1)+"abc") // small ones go on
	slow.Close()
	until(t, "given back", func() bool { return reserved() == 0 })
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
	address, server := serve(t, Config{Access: AccessLog{Log: slog.New(slog.NewJSONHandler(&out, nil)), Share: 1}})
	talk(t, address, strings.Replace(score, "score HTTP", "score?key=secret HTTP", 1)+"Authorization: Bearer secret\r\nX-Request-Id: 17\r\nX-Ms-Client-Request-Id: mine\r\n"+
		"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nContent-Length: 3\r\n\r\nabc", 1, silence)
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err, out.String())
	}
	for key, want := range map[string]any{
		"msg": "request", "request_id": "17", "client_request_id": "mine", "trace_id": "0af7651916cd43dd8448eb211c80319c", "method": "POST",
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
