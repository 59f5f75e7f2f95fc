package load

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func run(t *testing.T, h http.HandlerFunc, exact bool) (*Result, error) {
	t.Helper()
	s := httptest.NewServer(h)
	defer s.Close()
	return Run(context.Background(), strings.TrimPrefix(s.URL, "http://"), &Request{Path: "/x", Headers: []string{"A: b"}, Body: []byte("abc")}, 4, 100*time.Millisecond, exact)
}

func TestEveryAnswerIsCounted(t *testing.T) {
	var served atomic.Int64
	r, err := run(t, func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		if string(body) != "abc" || q.URL.Path != "/x" || q.Header.Get("A") != "b" {
			t.Errorf("got %s %q", q.URL, body)
		}
		served.Add(1)
		_, _ = w.Write([]byte("fine"))
	}, true)
	if err != nil || r.Errors != 0 || string(r.Body) != "fine" || r.P50 <= 0 || r.P99 < r.P50 {
		t.Fatalf("%+v, %v", r, err)
	}
	// The first answer is not counted, and each caller may leave one unread.
	if n := int(served.Load()); r.Requests < n-1-4 || r.Requests > n-1 {
		t.Errorf("counted %d of %d", r.Requests, n)
	}
}

func TestWrongAnswersAreErrors(t *testing.T) {
	for _, wrong := range []string{"status", "length", "body", "close"} {
		var n atomic.Int64
		r, err := run(t, func(w http.ResponseWriter, _ *http.Request) {
			if n.Add(1) == 1 {
				_, _ = w.Write([]byte("fine"))
				return
			}
			switch wrong {
			case "status":
				w.WriteHeader(500)
				_, _ = w.Write([]byte("fine"))
			case "length":
				_, _ = w.Write([]byte("fine!"))
			case "body":
				_, _ = w.Write([]byte("find"))
			case "close":
				c, _, _ := w.(http.Hijacker).Hijack()
				_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfi"))
				_ = c.Close()
			}
		}, true)
		if err != nil || r.Errors == 0 {
			t.Errorf("%s: %+v, %v; want errors", wrong, r, err)
		}
	}
}

func TestWithoutAServerThereIsAnError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if r, err := Run(context.Background(), l.Addr().String(), &Request{Path: "/"}, 1, time.Second, true); err == nil {
		t.Errorf("got %+v", r)
	}
}
