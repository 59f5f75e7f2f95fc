package upstream

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice.dev/scorer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const forever = 20 * time.Second

// quiet drops what a test's server says of bad clients.
var quiet = log.New(io.Discard, "", 0)

// open makes the HTTP server at a URL, without an upstream around it.
func open(t testing.TB, p Protocol, url string, change ...func(*Config)) *httpServer {
	t.Helper()
	c := Config{Endpoint: "digits", Version: "old", HTTP: &HTTP{URLs: []string{url}, Protocol: p}}
	for _, f := range change {
		f(&c)
	}
	c.setDefaults()
	h, err := newHTTP(&c, c.HTTP.URLs[0], func() {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.close)
	return h
}

// asker makes requests, one at a time, and gives them up at their deadline, as the
// request path does.
type asker struct {
	req  scorer.Request
	resp scorer.Response
}

func newAsker() *asker { return &asker{req: scorer.Request{Wait: scorer.NewWaiter()}} }

func (a *asker) ask(s scorer.Scorer, kind scorer.Kind, body string, within time.Duration) *scorer.Response {
	a.req.Kind, a.req.Body = kind, []byte(body)
	a.req.Deadline = scorer.Now().Add(within)
	a.resp.Reset()
	over := make(chan struct{})
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		select {
		case <-over:
			return
		case <-time.After(within):
		}
		for tick := time.NewTicker(time.Millisecond); ; {
			a.req.Wait.Abandon()
			select {
			case <-over:
				tick.Stop()
				return
			case <-tick.C:
			}
		}
	}()
	s.Score(&a.req, &a.resp)
	close(over)
	<-gone
	return &a.resp
}

// serveHTTP is a server of net/http.
func serveHTTP(t testing.TB, f http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s
}

// script is a server that handles each connection by hand.
type script struct {
	net.Listener
	url      string
	accepted atomic.Int64
	tasks    sync.WaitGroup
}

func serveScript(t testing.TB, handle func(n int64, c net.Conn)) *script {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &script{Listener: l, url: "http://" + l.Addr().String()}
	s.tasks.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n := s.accepted.Add(1)
			s.tasks.Go(func() {
				defer c.Close()
				handle(n, c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		s.tasks.Wait()
	})
	return s
}

// take reads one request; nil at the end of the connection.
func take(r *bufio.Reader) *http.Request {
	req, err := http.ReadRequest(r)
	if err != nil {
		return nil
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	return req
}

// respond answers every request of a connection with the same bytes.
func respond(answer string) func(int64, net.Conn) {
	return func(_ int64, c net.Conn) {
		for r := bufio.NewReader(c); take(r) != nil; {
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}
}

// echo answers with the request's body.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		_, _ = w.Write(body)
	}
}

func want(t *testing.T, r *scorer.Response, s scorer.Status, body string) {
	t.Helper()
	if r.Status != s || !strings.Contains(string(r.Body), body) {
		t.Errorf("%v %q; want %v with %q", r.Status, r.Body, s, body)
	}
}

func TestRequestsArriveWithOurHeadersAlone(t *testing.T) {
	type seen struct {
		line   string
		header http.Header
		body   string
	}
	got := make(chan seen, 1)
	s := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- seen{r.Method + " " + r.RequestURI + " " + r.Host, r.Header, string(body)}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Ms-Run-Fn-Exec-Ms", "1.250")
		fmt.Fprint(w, "[7]")
	})
	host := strings.TrimPrefix(s.URL, "http://")
	azure := open(t, AzureML, s.URL+"/prefix/", func(c *Config) { c.HTTP.Headers = map[string]string{"X-Key": "k"} })
	oip := open(t, OIP, s.URL, func(c *Config) { c.HTTP.Model, c.HTTP.Version = "a b", "3" })
	a := newAsker()
	f := func(h *httpServer, kind scorer.Kind, head int, line string, header ...string) {
		t.Helper()
		a.req.HeadLength = head
		r := a.ask(h, kind, "body", forever)
		want(t, r, scorer.OK, "[7]")
		if r.Code != 200 || len(r.ContentType) != 0 || r.Device != 1250*time.Microsecond {
			t.Errorf("code %d, content type %q, %v", r.Code, r.ContentType, r.Device)
		}
		g := <-got
		if g.line != line+" "+host || g.body != "body" {
			t.Errorf("%q with %q; want %q", g.line, g.body, line)
		}
		if ms := g.header.Get("X-Request-Timeout-Ms"); len(ms) != len("19999") {
			t.Errorf("time left: %q", ms)
		}
		g.header.Del("X-Request-Timeout-Ms")
		var have []string
		for name, values := range g.header {
			have = append(have, name+": "+strings.Join(values, "|"))
		}
		header = append(header, "Accept-Encoding: identity", "Content-Length: 4")
		slices.Sort(have)
		slices.Sort(header)
		if !slices.Equal(have, header) {
			t.Errorf("headers %q; want %q", have, header)
		}
	}
	f(azure, scorer.AML, 0, "POST /prefix/score", "Content-Type: application/json", "X-Key: k")
	f(oip, scorer.OIP, 0, "POST /v2/models/a%20b/versions/3/infer", "Content-Type: application/json")
	f(oip, scorer.OIP, 2, "POST /v2/models/a%20b/versions/3/infer", "Content-Type: application/octet-stream", "Inference-Header-Content-Length: 2")
	a.req.Trace = scorer.Trace{TraceID: [16]byte{0xab}, SpanID: [8]byte{1}, Flags: 1}
	a.req.State, a.req.ID = []byte("vendor=x,other=y"), []byte("an id")
	f(oip, scorer.Raw, 0, "POST /v2/models/a%20b/versions/3/infer", "Content-Type: application/octet-stream", "Inference-Header-Content-Length: 0",
		"Traceparent: 00-ab000000000000000000000000000000-0100000000000000-01", "Tracestate: vendor=x,other=y", "X-Request-Id: an id")
	want(t, a.ask(azure, scorer.OIP, "{}", forever), scorer.Unsupported, "/api/v1/service")
	want(t, a.ask(oip, scorer.AML, "{}", forever), scorer.Unsupported, "/v2/models")
}

func TestStatusesAreMapped(t *testing.T) {
	s := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		var status int
		var kind, body string
		if _, err := fmt.Fscanf(r.Body, "%d %s %s", &status, &kind, &body); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		if status != 204 {
			fmt.Fprint(w, strings.ReplaceAll(body, "_", " "))
		}
	})
	h, a := open(t, AzureML, s.URL), newAsker()
	f := func(request string, status scorer.Status, code int, kind, body string) {
		t.Helper()
		r := a.ask(h, scorer.AML, request, forever)
		if r.Status != status || r.Code != code || string(r.ContentType) != kind || string(r.Body) != body || r.NotStarted {
			t.Errorf("%s: %v %d %q %q; want %v %d %q %q", request, r.Status, r.Code, r.ContentType, r.Body, status, code, kind, body)
		}
	}
	f("200 application/json {}", scorer.OK, 200, "", "{}")
	f("201 text/csv 1,2", scorer.OK, 201, "text/csv", "1,2")
	f("204 text/csv -", scorer.OK, 204, "text/csv", "")
	f("400 application/json {}", scorer.InvalidArgument, 400, "", "{}")
	f("401 text/plain who", scorer.ModelFailed, 0, "", "the model's server answered 401: it does not take our credential; correct the headers that it gets")
	f("403 text/plain no", scorer.InvalidArgument, 403, "text/plain", "no")
	f("404 text/plain none", scorer.NotFound, 404, "text/plain", "none")
	f("413 text/plain big", scorer.TooLarge, 413, "text/plain", "big")
	f("418 text/plain tea", scorer.InvalidArgument, 418, "text/plain", "tea")
	f("429 text/plain later", scorer.Exhausted, 429, "text/plain", "later")
	f("302 text/plain there", scorer.ModelFailed, 0, "", "the model's server answered 302, a redirection; correct its URL")
	f(`500 application/json {"message":"An_unexpected_error_in_run()"}`, scorer.ModelFailed, 0, "", "the model's server answered 500: An unexpected error in run()")
	f(`500 application/json {"error":"no_memory"}`, scorer.ModelFailed, 0, "", "the model's server answered 500: no memory")
	f("502 text/html <p>Bad", scorer.ModelFailed, 0, "", "the model's server answered 502: <p>Bad")
	f("500 text/plain "+strings.Repeat("x", 1000), scorer.ModelFailed, 0, "", "the model's server answered 500: "+strings.Repeat("x", 200)+"…")
	f(`500 application/json {"message":"\n\tTraceback:\n__File_\"/srv/score.py\""}`, scorer.ModelFailed, 0, "", "the model's server answered 500: Traceback:")
	f(`500 application/json {"error":"\r\n"}`, scorer.ModelFailed, 0, "", "the model's server answered 500: and nothing else")
	f(`503 application/json {"error":"queue_full"}`, scorer.Overloaded, 0, "", "the model's server is overloaded: queue full")
}

func TestConnectionsAreKept(t *testing.T) {
	s := serveScript(t, respond("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"))
	h, a := open(t, AzureML, s.url), newAsker()
	for range 100 {
		want(t, a.ask(h, scorer.AML, "{}", forever), scorer.OK, "{}")
		want(t, a.ask(h, scorer.AML, strings.Repeat(" ", 100<<10), forever), scorer.OK, "{}")
	}
	if n := s.accepted.Load(); n > 100 { // after a large body the sender may still be about to say that it is done
		t.Errorf("%d connections for 200 requests", n)
	}
	h.mu.Lock()
	for _, c := range h.idle {
		c.since = scorer.Now().Add(-idleFor - time.Second)
	}
	h.mu.Unlock()
	h.tidy()
	h.tasks.Wait() // none is left
	want(t, a.ask(h, scorer.AML, "{}", forever), scorer.OK, "{}")
}

// Frames that are read to the end, and leave the connection good.
func TestAnswersInEveryFrame(t *testing.T) {
	f := func(answer, body string, kept bool) {
		t.Helper()
		split := func(n int64, c net.Conn) { // byte by byte
			for r := bufio.NewReader(c); take(r) != nil; {
				for i := range len(answer) {
					if _, err := io.WriteString(c, answer[i:i+1]); err != nil {
						return
					}
				}
				if strings.Contains(answer, "\r\n\r\nends") {
					return
				}
			}
		}
		for _, handle := range []func(int64, net.Conn){split, respond(answer)} {
			if strings.Contains(answer, "\r\n\r\nends") {
				handle = split
			}
			s := serveScript(t, handle)
			h, a := open(t, AzureML, s.url), newAsker()
			for range 3 {
				r := a.ask(h, scorer.AML, "{}", forever)
				if r.Status != scorer.OK || string(r.Body) != body {
					t.Errorf("%q: %v %q; want %q", answer, r.Status, r.Body, body)
				}
			}
			if n := s.accepted.Load(); (n == 1) != kept {
				t.Errorf("%q: %d connections", answer, n)
			}
			h.close()
		}
	}
	f("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc", true)
	f("HTTP/1.1 200\r\nCONTENT-LENGTH:0\r\n\r\n", "", true)
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0a;x=y\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n", "abc0123456789", true)
	f("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", "x", true)
	f("HTTP/1.1 204 No Content\r\n\r\n", "", true)
	f("HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n\r\nx", "", false)
	f("HTTP/1.1 200 OK\r\nConnection: Keep-Alive, Close\r\nContent-Length: 1\r\n\r\nx", "x", false)
	f("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", "x", false)
	f("HTTP/1.1 200 OK\r\n\r\nends with the connection", "ends with the connection", false)
}

func TestMoreThanWasAskedForEndsTheConnection(t *testing.T) {
	const one = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"
	for _, more := range []string{"\n", "y", one + "y"} {
		s := serveScript(t, respond(one+"x"+more))
		h, a := open(t, AzureML, s.url), newAsker()
		for range 3 {
			want(t, a.ask(h, scorer.AML, "{}", forever), scorer.OK, "x")
		}
		if s.accepted.Load() != 3 {
			t.Errorf("%q after an answer: the connection was used again", more)
		}
	}
}

// What could be read in two ways, or has no end, is an error, and its connection
// is not used again.
func TestHostileAnswersAreRefused(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nx",
		"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\nx\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\n0\n\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100001\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + strings.Repeat("x", 9000) + "\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("x: y\r\n", 9000) + "\r\n",
		"HTTP/1.1 200 OK\nContent-Length: 1\n\nx",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\n\r\nx",
		"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 1\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 1\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 1\r\n\r\nx",
		"HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 1\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: 2\r\nContent-Length: 1\r\n\r\nx",
		"HTTP/1.1 999 What\r\nContent-Length: 1\r\n\r\nx",
		"HTTP/1.1 099 What\r\nContent-Length: 1\r\n\r\nx",
		"HTTP/1.1 20 OK\r\nContent-Length: 1\r\n\r\nx",
		"HTTP/1.1 2000 OK\r\nContent-Length: 1\r\n\r\nx",
		"HTTP/2.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
		strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 1000),
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 9000) + "\r\n\r\n",
		"SSH-2.0-OpenSSH_9.2\r\n" + strings.Repeat("x", 9000),
		"\r\n\r\n", "\n\n",
	} {
		s := serveScript(t, respond(answer))
		h, a := open(t, AzureML, s.url, func(c *Config) { c.MaxBody = 1 << 20 }), newAsker()
		for range 2 {
			want(t, a.ask(h, scorer.AML, "{}", forever), scorer.ModelFailed, "not clean HTTP/1.1")
		}
		if s.accepted.Load() != 2 {
			t.Errorf("%.80q: the connection was used again", answer)
		}
		h.close()
	}
}

func TestAnswersThatBreakOff(t *testing.T) {
	whole := "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
	for n := range len(whole) {
		s := serveScript(t, func(_ int64, c net.Conn) {
			take(bufio.NewReader(c))
			_, _ = io.WriteString(c, whole[:n])
		})
		h, a := open(t, AzureML, s.url), newAsker()
		r := a.ask(h, scorer.AML, "{}", forever)
		if r.Status != scorer.ModelFailed || r.NotStarted {
			t.Errorf("after %d bytes: %v %q", n, r.Status, r.Body)
		}
		if s.accepted.Load() != 1 {
			t.Errorf("after %d bytes: sent again", n)
		}
		h.close()
	}
}

func TestWhatIsSaidUnaskedEndsTheConnection(t *testing.T) {
	closed := make(chan struct{})
	s := serveScript(t, func(n int64, c net.Conn) {
		r := bufio.NewReader(c)
		take(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
		if n > 1 {
			return
		}
		// The first answer may be read together with this, or before it.
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ny")
		_, _ = c.Read(make([]byte, 1))
		close(closed)
	})
	h, a := open(t, AzureML, s.url), newAsker()
	want(t, a.ask(h, scorer.AML, "{}", forever), scorer.OK, "x")
	<-closed
	want(t, a.ask(h, scorer.AML, "{}", forever), scorer.OK, "x")
}

func TestTheServerNoticesThatNobodyWaits(t *testing.T) {
	asked, closed := make(chan struct{}, 2), make(chan error, 2)
	s := serveScript(t, func(_ int64, c net.Conn) {
		r := bufio.NewReader(c)
		take(r)
		asked <- struct{}{}
		_, err := r.ReadByte()
		closed <- err
	})
	h, a := open(t, AzureML, s.url), newAsker()
	want(t, a.ask(h, scorer.AML, "{}", 50*time.Millisecond), scorer.DeadlineExceeded, "in time")
	<-asked
	if err := <-closed; err == nil {
		t.Error("the connection goes on after the deadline")
	}
	a.req.Kind, a.req.Body, a.req.Deadline = scorer.AML, []byte("{}"), scorer.Now().Add(forever)
	go func() {
		<-asked
		a.req.Wait.Abandon() // the client leaves
	}()
	h.Score(&a.req, &a.resp)
	want(t, &a.resp, scorer.Canceled, "cancelled")
	if err := <-closed; err == nil {
		t.Error("the connection goes on after the client left")
	}
}

func TestLargeBodies(t *testing.T) {
	body := strings.Repeat("x", 8<<20)
	deaf := serveScript(t, func(_ int64, c net.Conn) { _, _ = io.ReadFull(c, make([]byte, 100)) }) // and closes
	h, a := open(t, AzureML, deaf.url), newAsker()
	if r := a.ask(h, scorer.AML, body, forever); r.Status != scorer.ModelFailed {
		t.Errorf("a server that closes on a body: %v %q", r.Status, r.Body)
	}
	hold := make(chan struct{})
	stuck := serveScript(t, func(_ int64, c net.Conn) { <-hold })
	h = open(t, AzureML, stuck.url)
	want(t, a.ask(h, scorer.AML, body, 100*time.Millisecond), scorer.DeadlineExceeded, "in time")
	close(hold)
	ended := make(chan struct{})
	early := serveScript(t, func(_ int64, c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, 100))
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
		<-ended // reading nothing
	})
	h = open(t, AzureML, early.url)
	want(t, a.ask(h, scorer.AML, body, forever), scorer.TooLarge, "big")
	close(ended)
	h = open(t, AzureML, serveHTTP(t, echo).URL)
	for range 3 {
		if r := a.ask(h, scorer.AML, body, forever); r.Status != scorer.OK || string(r.Body) != body {
			t.Errorf("%v, %d bytes", r.Status, len(r.Body))
		}
	}
}

// gate is a connection whose end is noticed late, as over a slow network: when a
// second request was written to it, or we close it.
type gate struct {
	*net.TCPConn
	writes atomic.Int64
	held   chan struct{}
	open   func() // closes held
}

func (g *gate) Read(b []byte) (int, error) {
	n, err := g.TCPConn.Read(b)
	if err != nil {
		<-g.held
	}
	return n, err
}

func (g *gate) Write(b []byte) (int, error) {
	n, err := g.TCPConn.Write(b)
	if g.writes.Add(1) == 2 {
		g.open()
	}
	return n, err
}

func (g *gate) Close() error {
	g.open()
	return g.TCPConn.Close()
}

// gated makes h's first connection a gate.
func gated(h *httpServer) *gate {
	g := &gate{held: make(chan struct{})}
	g.open = sync.OnceFunc(func() { close(g.held) })
	dial := h.dial
	h.dial = func(ctx context.Context) (net.Conn, error) {
		n, err := dial(ctx)
		if err != nil || g.TCPConn != nil {
			return n, err
		}
		g.TCPConn = n.(*net.TCPConn)
		return g, nil
	}
	return g
}

// A request that went to a connection which the server had closed before it could
// get anything is sent once more, and only once is it served.
func TestARequestOfWhichTheServerGotNothingIsSentAgain(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("what a peer confirmed is known on Linux only")
	}
	closed := make(chan struct{})
	var served atomic.Int64
	s := serveScript(t, func(n int64, c net.Conn) {
		for r := bufio.NewReader(c); take(r) != nil; {
			served.Add(1)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
			if n == 1 {
				_ = c.Close()
				close(closed)
				return
			}
		}
	})
	h, a := open(t, AzureML, s.url), newAsker()
	g := gated(h)
	want(t, a.ask(h, scorer.AML, "{}", forever), scorer.OK, "x")
	<-closed
	want(t, a.ask(h, scorer.AML, "{}", forever), scorer.OK, "x")
	if served.Load() != 2 || s.accepted.Load() != 2 || g.writes.Load() != 2 {
		t.Errorf("served %d on %d connections, %d written to the first; want 2 on 2, 2 written", served.Load(), s.accepted.Load(), g.writes.Load())
	}
}

// One that the server may have read is not.
func TestARequestThatTheServerMayHaveReadIsNotSentAgain(t *testing.T) {
	read := make(chan struct{})
	s := serveScript(t, func(n int64, c net.Conn) {
		r := bufio.NewReader(c)
		take(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
		take(r)
		close(read) // a second connection would panic
	})
	h, a := open(t, AzureML, s.url), newAsker()
	want(t, a.ask(h, scorer.AML, "{}", forever), scorer.OK, "x")
	r := a.ask(h, scorer.AML, "{}", forever)
	want(t, r, scorer.ModelFailed, "not known")
	if <-read; r.NotStarted || s.accepted.Load() != 1 {
		t.Errorf("not started %v, %d connections", r.NotStarted, s.accepted.Load())
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	h, a := open(t, AzureML, "http://"+l.Addr().String()), newAsker()
	lost := 0
	h.lost = func() { lost++ }
	r := a.ask(h, scorer.AML, "{}", forever)
	if want(t, r, scorer.Unavailable, "does not take connections"); !r.NotStarted || lost != 1 {
		t.Errorf("not started %v, told %d times", r.NotStarted, lost)
	}
}

func TestCloseAnswersWhatIsUnderWay(t *testing.T) {
	asked, hold := make(chan struct{}), make(chan struct{})
	s := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-hold
		fmt.Fprint(w, "late")
	})
	h, a := open(t, AzureML, s.URL), newAsker()
	closed := make(chan struct{})
	go func() {
		<-asked
		go func() {
			h.close()
			close(closed)
		}()
		for { // until it is closing
			h.mu.Lock()
			closing := h.closed
			h.mu.Unlock()
			if closing {
				break
			}
		}
		b := newAsker()
		r := b.ask(h, scorer.AML, "{}", forever)
		if want(t, r, scorer.Unavailable, "not used any more"); !r.NotStarted {
			t.Error("a request after the end counts as started")
		}
		close(hold)
	}()
	want(t, a.ask(h, scorer.AML, "{}", forever), scorer.OK, "late")
	<-closed
}

func TestManyAtATime(t *testing.T) {
	s := serveHTTP(t, echo)
	h := open(t, AzureML, s.URL)
	var tasks sync.WaitGroup
	for i := range 16 {
		tasks.Go(func() {
			a := newAsker()
			for k := range 200 {
				body := fmt.Sprint(i, " ", k, strings.Repeat(" ", k%3*6000))
				within := time.Duration(forever)
				if k%10 == 9 {
					within = time.Duration(k) * time.Microsecond // often too short
				}
				r := a.ask(h, scorer.AML, body, within)
				if r.Status == scorer.OK && string(r.Body) != body {
					t.Errorf("%.20q, %d bytes, for %.20q, %d bytes", r.Body, len(r.Body), body, len(body))
				}
				if r.Status != scorer.OK && (k%10 != 9 || r.Status != scorer.DeadlineExceeded) {
					t.Errorf("%v %s", r.Status, r.Body)
				}
			}
		})
	}
	tasks.Wait()
}

// quick is a server that answers without an allocation.
func quick(t testing.TB) *script {
	return serveScript(t, func(_ int64, c net.Conn) {
		in, out := make([]byte, 64<<10), []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
		for {
			if _, err := c.Read(in); err != nil {
				return
			}
			if _, err := c.Write(out); err != nil {
				return
			}
		}
	})
}

func TestARequestAllocatesNothing(t *testing.T) {
	h, a := open(t, AzureML, quick(t).url), newAsker()
	a.req.Kind, a.req.Body, a.req.Deadline = scorer.AML, []byte(`{"data":[[1,2,3]]}`), scorer.Now().Add(time.Hour)
	a.req.Trace.TraceID[0], a.req.State, a.req.ID = 1, []byte("vendor=x"), []byte("an id")
	n := testing.AllocsPerRun(2000, func() {
		a.resp.Reset()
		h.Score(&a.req, &a.resp)
	})
	if n != 0 || a.resp.Status != scorer.OK {
		t.Errorf("%v allocations, %v", n, a.resp.Status)
	}
}

func BenchmarkScore(b *testing.B) {
	h, a := open(b, AzureML, quick(b).url), newAsker()
	a.req.Kind, a.req.Body, a.req.Deadline = scorer.AML, []byte(`{"data":[[1,2,3]]}`), scorer.Now().Add(time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		a.resp.Reset()
		h.Score(&a.req, &a.resp)
	}
}

// FuzzAnswer holds the reader to what net/http says of the same bytes: whatever it
// takes, they must read alike.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", "HTTP/1.0 200 OK\r\nConnection: close\r\nX-Ms-Run-Fn-Exec-Ms: 1.5\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: 1\r\nContent-Type: a\r\nContent-Length: 1\r\n\r\nx",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 1 << 16
		var h head
		r := bufio.NewReaderSize(bytes.NewReader(data), maxHead)
		if readHead(r, &h) != nil {
			return
		}
		body, err := readBody(r, &h, nil, limit)
		if err != nil {
			return
		}
		if len(body) > limit || h.status < 200 || h.status > 599 {
			t.Fatalf("status %d, %d bytes", h.status, len(body))
		}
		twin := bufio.NewReader(bytes.NewReader(data))
		for {
			resp, err := http.ReadResponse(twin, &http.Request{Method: "POST"})
			if err != nil {
				t.Fatalf("taken, and net/http says %v", err)
			}
			if resp.StatusCode < 200 {
				continue
			}
			other, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != h.status || !bytes.Equal(other, body) {
				t.Fatalf("%d %q; net/http reads %d %q (%v)", h.status, body, resp.StatusCode, other, err)
			}
			if resp.Close && !h.last {
				t.Fatal("the connection ends, and is kept")
			}
			return
		}
	})
}
