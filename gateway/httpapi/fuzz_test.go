package httpapi

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// seen is what a server takes for a request.
type seen struct{ method, target, body string }

// wire is a connection from which bytes come, some at a time.
type wire struct {
	net.Conn
	in    *bytes.Reader
	piece int
	taken []seen
}

func (w *wire) Read(b []byte) (int, error)     { return w.in.Read(b[:min(len(b), w.piece)]) }
func (*wire) Write(b []byte) (int, error)      { return len(b), nil }
func (*wire) Close() error                     { return nil }
func (*wire) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*wire) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*wire) SetReadDeadline(time.Time) error  { return nil }
func (*wire) SetWriteDeadline(time.Time) error { return nil }

// ours is what a server of this package takes sent for.
func ours(s *Server, sent []byte, piece int) []seen {
	w := &wire{in: bytes.NewReader(sent), piece: piece}
	_ = s.http.ServeConn(&conn{Conn: w, raw: w, watch: s.watch, large: &s.large, frame: s.framer()}) // the end of w
	return w.taken
}

// theirs is what net/http takes it for.
func theirs(sent []byte) (list []seen) {
	r := bufio.NewReader(bytes.NewReader(sent))
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return list
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return list
		}
		list = append(list, seen{req.Method, req.RequestURI, string(body)})
		if req.Close {
			return list
		}
	}
}

// What this server and net/http both accept, they read alike, however it is cut
// into pieces.
func FuzzRequestsAreWhatOthersTakeThemFor(f *testing.F) {
	for _, e := range exchanges() {
		if len(e.sent) < 2000 {
			f.Add([]byte(e.sent+next), 1<<10)
		}
	}
	_, s := serve(f, Config{MaxBody: 1 << 16})
	s.large.from, s.large.most = 8, 1<<62 // what is large is let in by other ways
	s.http.Handler = func(ctx *fasthttp.RequestCtx) {
		w := ctx.Conn().(*conn).raw.(*wire)
		h := &ctx.Request.Header
		w.taken = append(w.taken, seen{string(h.Method()), string(h.RequestURI()), string(ctx.Request.Body())})
	}
	f.Fuzz(func(t *testing.T, sent []byte, piece int) {
		got, want := ours(s, sent, len(sent)+1), theirs(sent)
		for i := range min(len(got), len(want)) {
			if got[i] != want[i] {
				t.Fatalf("request %d of %q is %q; net/http takes it for %q", i, sent, got[i], want[i])
			}
		}
		pieces := ours(s, sent, max(1, piece))
		if len(pieces) != len(got) {
			t.Fatalf("%q is %q; in pieces of %d it is %q", sent, got, piece, pieces)
		}
		for i := range got {
			if got[i] != pieces[i] {
				t.Fatalf("request %d of %q is %q; in pieces of %d it is %q", i, sent, got[i], piece, pieces[i])
			}
		}
	})
}

// endless is a connection on which the same request comes over and over, n times.
type endless struct {
	wire
	request []byte
	n, at   int
}

func (e *endless) Read(b []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	n := copy(b, e.request[e.at:])
	if e.at += n; e.at == len(e.request) {
		e.at = 0
		e.n--
	}
	return n, nil
}

// BenchmarkRequest is a request's whole way through this package and the path,
// without a system call.
func BenchmarkRequest(b *testing.B) {
	_, s := serve(b, Config{})
	w := &endless{request: []byte(strings.Replace(typical, "digits", "e", 1) + strings.Repeat("a", 300)), n: b.N}
	b.ReportAllocs()
	b.ResetTimer()
	_ = s.http.ServeConn(&conn{Conn: w, raw: w, watch: s.watch, large: &s.large, frame: s.framer()}) // the end of w
}
