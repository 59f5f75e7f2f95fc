package httpapi

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice.dev/auth"
	"sluice.dev/auth/apikey"
	"sluice.dev/gateway"
)

// locked serves endpoint "e e" to those who have the key.
func locked(t testing.TB, c Config) (address, key string, server *Server) {
	t.Helper()
	address, server = serve(t, c)
	key = apikey.Generate()
	s := server.path.Snapshot().Endpoints()["e"]
	e := &gateway.Endpoint{Name: "e e", Auth: apikey.New(apikey.NewPepper(), key, ""), Split: s.Split, Versions: s.Versions}
	server.path.Swap(gateway.NewSnapshot(2, []*gateway.Endpoint{e}))
	return address, key, server
}

// sends is the head of a request with a body, and its credential.
func sends(line, key, declared string) string {
	return line + " HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + key + "\r\n" + declared + "\r\n\r\n"
}

const scores = "POST /api/v1/service/e%20e/score"

// chunk is one of n bytes.
func chunk(n int) string { return fmt.Sprintf("%x\r\n%s\r\n", n, strings.Repeat("a", n)) }

// However a body is sent and declared, memory is taken for no more of it than a small
// one's before it is known who sends it, and none for what is only declared.
func TestALargeBodyOfAStrangerTakesNoMemory(t *testing.T) {
	const clients = 20
	address, key, _ := locked(t, Config{})
	const length, chunked = "Content-Length: 99000000", "Transfer-Encoding: chunked"
	f := func(status int, line, key, declared, body string) {
		t.Helper()
		want := fmt.Sprintf("HTTP/1.1 %d ", status)
		before := allocated()
		for range clients {
			c := connect(t, address)
			if _, err := io.WriteString(c, sends(line, key, declared)+body); err != nil {
				t.Fatal(err)
			}
			// What is still sent is not read to its end, nor waited for.
			head := make([]byte, len(want))
			if _, err := io.ReadFull(c, head); err != nil || string(head) != want {
				t.Fatalf("%s, %s: answered %q, %v; want %q", line, declared, head, err, want)
			}
			_ = c.Close()
		}
		if took := (allocated() - before) / clients; took > 400<<10 {
			t.Errorf("%s, %s: took %d bytes for each", line, declared, took)
		}
	}
	for _, expect := range []string{"", "\r\nExpect: 100-continue"} {
		for _, how := range []struct{ declared, body string }{
			{length, ""}, {chunked, "5e00000\r\n"}, {chunked, chunk(8 << 10)}, {chunked, chunk(60<<10) + "5e00000\r\n"},
		} {
			f(401, scores, "wrong", how.declared+expect, how.body)
			f(404, "POST /v2/models/none/infer", key, how.declared+expect, how.body)
		}
	}
	f(401, "POST /v2/models/e%20e/infer", "wrong", length+"\r\nInference-Header-Content-Length: 100", "")
	f(401, scores, "wrong", length+"\r\nContent-Encoding: gzip", "")
	f(405, "PUT /v2/models/e%20e/infer", key, length, "")
	f(405, "DELETE /v2", "", length, "")
	f(405, "OPTIONS /v2", "", length, "")
	f(404, "POST /none", "", length, "")
	f(413, "POST /v2/repository/index", "", length, "")
	f(200, "GET /v2/health/live", "", length, "")
	f(200, "HEAD /v2/health/live", "", length, "")
	f(200, "GET /api/v1/service/e%20e/score?a=1", key, length, "") // the query is its body
	for _, line := range []string{"PUT /v2/models/e%20e/infer", "GET /v2/health/live", "OPTIONS /v2", "POST /none", "POST /v2/repository/index", "GET /api/v1/service/e%20e/score?a=1"} {
		f(413, line, key, chunked, "5e00000\r\n")
		f(413, line, key, chunked, chunk(60<<10)+chunk(8<<10))
	}
	f(413, scores, key, chunked, "6400001\r\n") // more than MaxBody, of whoever
}

// allocated is the bytes that ever were.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// What comes in chunks counts among the large bodies as it is declared, and what has
// no room is refused.
func TestChunksOfLargeBodiesAreReserved(t *testing.T) {
	address, key, server := locked(t, Config{MaxBody: 1 << 20, MaxLarge: 300 << 10})
	head := sends(scores, key, "Transfer-Encoding: chunked")
	send := func(c net.Conn, text string) {
		t.Helper()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
	}
	reserved := func(n int64) {
		t.Helper()
		until(t, fmt.Sprint(n, " reserved"), func() bool { return server.large.sum.Load() == n })
	}
	slow := connect(t, address)
	send(slow, head+"28000\r\n") // with the head
	reserved(160 << 10)
	send(slow, strings.Repeat("a", 160<<10)+"\r\n140")
	send(slow, "00\r\n") // in pieces, and after it
	reserved(240 << 10)
	if statuses, bodies, closed := talk(t, address, head+"14000\r\n", 1, forever); fmt.Sprint(statuses) != "[503]" || !closed || !strings.Contains(bodies[0], "too many large requests") {
		t.Errorf("without room: answered %v %q, closed: %v", statuses, bodies, closed)
	}
	if statuses, _, _ := talk(t, address, head+chunk(50<<10)+"0\r\n\r\n", 1, silence); fmt.Sprint(statuses) != "[200]" {
		t.Errorf("a small one: answered %v", statuses)
	}
	grows := connect(t, address)
	send(grows, head+chunk(50<<10)+"8000\r\n")
	if status, _ := answer(t, bufio.NewReader(grows)); status != 503 {
		t.Errorf("one that grows without room: answered %d", status)
	}
	reserved(240 << 10)
	send(slow, strings.Repeat("a", 80<<10)+"\r\n0\r\n\r\n"+next)
	r := bufio.NewReader(slow)
	if status, body := answer(t, r); status != 200 || len(body) != 240<<10 {
		t.Errorf("answered %d with %d bytes", status, len(body))
	}
	if status, _ := answer(t, r); status != 200 {
		t.Errorf("the next: answered %d", status)
	}
	reserved(0)
}

// Behind others in one packet, a large body is let in as one that comes alone is.
func TestPipelinedLargeBodiesAreLetIn(t *testing.T) {
	address, key, server := locked(t, Config{})
	small := sends(scores, key, "Transfer-Encoding: chunked") + chunk(3) + "0\r\n\r\n"
	large := sends(scores, key, "Transfer-Encoding: chunked") + chunk(100<<10) + chunk(100<<10) + "0\r\n\r\n"
	declared := sends(scores, key, fmt.Sprint("Content-Length: ", 100<<10)) + strings.Repeat("a", 100<<10)
	statuses, bodies, closed := talk(t, address, small+next+large+small+declared+next+sends(scores, "wrong", "Transfer-Encoding: chunked")+"14000\r\n", 7, forever)
	if fmt.Sprint(statuses) != "[200 200 200 200 200 200 401]" || !closed {
		t.Fatalf("answered %v, closed: %v", statuses, closed)
	}
	for i, want := range map[int]int{0: 3, 2: 200 << 10, 3: 3, 4: 100 << 10} {
		if len(bodies[i]) != want {
			t.Errorf("answer %d has %d bytes; want %d", i, len(bodies[i]), want)
		}
	}
	if n := server.large.sum.Load(); n != 0 {
		t.Errorf("%d bytes are still reserved", n)
	}
}

// Who waits to be told to send a large body is told once it is let in, and what was
// reserved is given back whether it comes or not.
func TestWhoExpectsToContinueReservesNothingForGood(t *testing.T) {
	address, key, server := locked(t, Config{MaxBody: 1 << 20, MaxLarge: 300 << 10, ReadTimeout: 200 * time.Millisecond})
	for _, declared := range []string{fmt.Sprint("Content-Length: ", 200<<10), "Transfer-Encoding: chunked"} {
		head := func(key string) string { return sends(scores, key, declared+"\r\nExpect: 100-continue") }
		f := func(what, sent, want string, leave bool) {
			t.Helper()
			c := connect(t, address)
			if _, err := io.WriteString(c, sent); err != nil {
				t.Fatal(err)
			}
			if leave {
				_ = c.Close()
			} else if got, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(got), want) {
				t.Errorf("%s, %s: answered %.60q, %v; want %q", what, declared, got, err, want)
			}
			until(t, "given back", func() bool { return server.large.sum.Load() == 0 })
		}
		f("no body", head(key), "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 408 ", false)
		f("no body, and gone", head(key), "", true)
		f("a stranger", head("wrong"), "HTTP/1.1 401 ", false)
	}
	server.large.sum.Store(150 << 10) // of others
	defer server.large.sum.Store(0)
	statuses, _, _ := talk(t, address, sends(scores, key, fmt.Sprint("Expect: 100-continue\r\nContent-Length: ", 200<<10)), 1, forever)
	if fmt.Sprint(statuses) != "[503]" {
		t.Errorf("without room: answered %v", statuses)
	}
	if n := server.large.sum.Load(); n != 150<<10 {
		t.Errorf("%d bytes are reserved; want %d", n, 150<<10)
	}
}

// mute is a connection whose client has gone before anything is written to it.
type mute struct{ net.Conn }

func (mute) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

type mutes struct{ net.Listener }

func (l mutes) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return mute{c}, err
}

func TestWhoCannotBeToldToContinueReservesNothingForGood(t *testing.T) {
	address, server := serveOn(t, Config{}, func(l net.Listener) net.Listener { return mutes{l} })
	c := connect(t, address)
	if _, err := io.WriteString(c, score+"Expect: 100-continue\r\nContent-Length: 99000000\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || len(got) > 0 {
		t.Errorf("answered %q, %v", got, err)
	}
	if n := server.large.sum.Load(); n != 0 {
		t.Errorf("%d bytes are still reserved", n)
	}
}

// A connection that goes on being used does not keep the memory of a large body.
func TestAServedLargeBodyIsNotKept(t *testing.T) {
	address := listen(t, Config{})
	const size = 64 << 20
	c := connect(t, address)
	r := bufio.NewReader(c)
	small := score + "Content-Length: 3\r\n\r\nabc"
	ask := func(head string, body io.Reader) {
		t.Helper()
		sent := make(chan error, 1)
		go func() { _, err := io.Copy(c, io.MultiReader(strings.NewReader(head), body)); sent <- err }()
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	}
	ask(small, strings.NewReader(""))
	before := heap()
	ask(fmt.Sprintf("%sContent-Length: %d\r\n\r\n", score, size), io.LimitReader(zeros{}, size))
	ask(small, strings.NewReader(""))
	if kept := heap() - before; kept > size/4 {
		t.Errorf("%d bytes are kept", kept)
	}
}

// zeros is zeros without an end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// undecided is an authenticator that lets everybody in the second time.
type undecided struct{ asked atomic.Int64 }

func (u *undecided) Authenticate([]byte) (*auth.Principal, error) {
	if u.asked.Add(1) == 1 {
		return nil, auth.ErrBusy
	}
	return &auth.Principal{}, nil
}

// A request whose body was not read is never scored, whoever sent it after all.
func TestWhatWasNotReadIsNotScored(t *testing.T) {
	address, server := serve(t, Config{})
	s := server.path.Snapshot().Endpoints()["e"]
	for _, declared := range []string{"Content-Length: 204800\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n14000\r\n"} {
		u := &undecided{}
		server.path.Swap(gateway.NewSnapshot(2, []*gateway.Endpoint{{Name: "e", Auth: u, Split: s.Split, Versions: s.Versions}}))
		statuses, bodies, closed := talk(t, address, score+declared, 1, forever)
		if fmt.Sprint(statuses) != "[503]" || !closed || !strings.Contains(bodies[0], "try again") || u.asked.Load() != 2 {
			t.Errorf("answered %v %q, closed: %v, after %d questions; want 503, after 2", statuses, bodies, closed, u.asked.Load())
		}
	}
}
