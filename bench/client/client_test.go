package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"sluice.dev/bench"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// readAll reads answers from a connection over which a server sent text, piece bytes
// at a time.
func readAll(text string, piece int) (list []string, err error) {
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; i < len(text); i += piece {
			if _, err := server.Write([]byte(text[i:min(i+piece, len(text))])); err != nil {
				return
			}
		}
		_ = server.Close()
	}()
	h := &httpConn{c: client}
	defer func() { _ = h.Close(); <-done }()
	for {
		var a bench.Answer
		err := h.Receive(&a)
		if err != nil && !errors.Is(err, ErrClosing) {
			return list, err
		}
		list = append(list, fmt.Sprintf("%s|%s|%s|%d|%v|%v", a.Failure, a.Body, a.Version, a.Head, a.Queue, a.Device))
		if err != nil {
			return list, err
		}
	}
}

func TestAnswersAreReadHoweverTheyCome(t *testing.T) {
	f := func(text string, end string, want ...string) {
		t.Helper()
		for _, piece := range []int{1, 2, 3, 7, 1 << 20} {
			got, err := readAll(text, piece)
			if strings.Join(got, "\n") != strings.Join(want, "\n") || !strings.Contains(err.Error(), end) {
				t.Errorf("%.60q by %d: got %.200q and %v, want %.200q and %v", text, piece, got, err, want, end)
			}
		}
	}
	const ok = "HTTP/1.1 200 OK\r\n"
	large := strings.Repeat("0123456789", 5000)
	f(ok+"Content-Length: 4\r\n\r\nfine"+ok+"content-length:2\r\nX-Sluice-Version: v2\r\n\r\nab", "EOF", "|fine||0|0s|0s", "|ab|v2|0|0s|0s")
	f(ok+"Content-Length: 50000\r\n\r\n"+large+ok+"Content-Length: 0\r\n\r\n", "EOF", "|"+large+"||0|0s|0s", "|||0|0s|0s")
	f(ok+"Transfer-Encoding: chunked\r\n\r\n4\r\nfine\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"+ok+"Content-Length: 1\r\n\r\nx", "EOF", "|fine0123456789||0|0s|0s", "|x||0|0s|0s")
	f(ok+"Connection: close\r\nContent-Length: 1\r\n\r\nx", "closes", "|x||0|0s|0s")
	f(ok+"\r\nto the end", "closes", "|to the end||0|0s|0s")
	f("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", "closes", "|x||0|0s|0s")
	f("HTTP/1.1 100 Continue\r\n\r\n"+ok+"Content-Length: 1\r\n\r\nx", "EOF", "|x||0|0s|0s")
	f("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nbad", "EOF", "|||0|0s|0s", "status 503|bad||0|0s|0s")
	f(ok+"Inference-Header-Content-Length: 12\r\nServer-Timing: total;dur=9, queue;desc=\"x\";dur=1.5, device;dur=\"2\", batch;dur=x, queue, batch;dur=0.25\r\nContent-Length: 0\r\n\r\n",
		"EOF", "|||12|1.75ms|2ms")
	f(ok+"Content-Length: 4\r\n\r\nfi", "unexpected EOF")
	f(ok+"Content-Length: x\r\n\r\nfine", "not a number")
	f(ok+"Content-Length: 1\r\nContent-Length: 2\r\n\r\nfine", "not a number")
	f(ok+"Content-Length: 99999999999\r\n\r\nfine", "1 GiB")
	f(ok+"Transfer-Encoding: chunked\r\n\r\n4\r\nfine!\r\n0\r\n\r\n", "longer than its size")
	f(ok+"Transfer-Encoding: chunked\r\n\r\nfffffffff\r\nfine!\r\n0\r\n\r\n", "no size")
	f("HTTP/1.1 20", "unexpected EOF")
	f("SSH-2.0-x\r\n\r\n", "does not start")
	f(ok+"A: "+strings.Repeat("x", 70<<10), "64 KiB")
}

// FuzzReceive: whatever a server sends, reading it ends, and the pieces in which it
// comes do not matter.
func FuzzReceive(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nServer-Timing: queue;dur=1\r\nConnection: close\r\n\r\nx", "HTTP/1.1 100 \r\n\r\nHTTP/1.0 999 \r\n\r\n",
	} {
		f.Add(s, 3)
	}
	f.Fuzz(func(t *testing.T, text string, piece int) {
		one, err1 := readAll(text, len(text)+1)
		two, err2 := readAll(text, max(1, min(piece, 100)))
		if fmt.Sprint(one) != fmt.Sprint(two) || fmt.Sprint(err1) != fmt.Sprint(err2) {
			t.Errorf("%q, %v in one piece, %q, %v in pieces of %d", one, err1, two, err2, piece)
		}
	})
}

// reply is a connection over which the same answer comes again and again.
type reply struct {
	net.Conn
	text []byte
}

func (r reply) Read(b []byte) (int, error) { return copy(b, r.text), nil }

const sluiceAnswer = "HTTP/1.1 200 OK\r\nServer: sluice\r\nDate: Mon, 02 Mar 2026 10:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: 40\r\n" +
	"X-Request-Id: 0123456789abcdef\r\nAzureml-Model-Deployment: linear\r\nX-Sluice-Version: linear\r\nX-Sluice-Variant: control\r\nX-Sluice-Assign: percentile\r\n" +
	"X-Sluice-Generation: 1\r\nServer-Timing: queue;dur=0.01, device;dur=0.2\r\n\r\n0123456789012345678901234567890123456789"

func TestReceivingAllocatesNothing(t *testing.T) {
	h, a := &httpConn{c: reply{text: []byte(sluiceAnswer)}}, &bench.Answer{}
	if n := testing.AllocsPerRun(1000, func() {
		if err := h.Receive(a); err != nil || a.Failure != "" || len(a.Body) != 40 || !a.Timed {
			t.Fatal(err, a)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkReceive(b *testing.B) {
	h, a := &httpConn{c: reply{text: []byte(sluiceAnswer)}}, &bench.Answer{}
	b.ReportAllocs()
	for b.Loop() {
		if err := h.Receive(a); err != nil {
			b.Fatal(err)
		}
	}
}

func TestHTTPAndTLS(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Sluice-Version", "one")
		_, _ = w.Write(bytes.ToUpper(body))
	})
	plain, secure := httptest.NewServer(h), httptest.NewTLSServer(h)
	defer plain.Close()
	defer secure.Close()
	roots := secure.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	for url, config := range map[string]*tls.Config{plain.URL: nil, secure.URL: {RootCAs: roots, ServerName: "example.com"}} {
		_, address, _ := strings.Cut(url, "://")
		c, err := HTTP(address, config)(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			var a bench.Answer
			err := errors.Join(c.Send(&bench.Item{Wire: []byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")}), c.Receive(&a))
			if err != nil || string(a.Body) != "ABC" || string(a.Version) != "one" || a.Failure != "" {
				t.Errorf("%s: %+v, %v", url, a, err)
			}
		}
		_ = c.Close()
	}
}

// grpcServer answers ModelInfer with the request in a response's raw contents, and
// the same over streams; the model "bad" does not exist.
func grpcServer(t *testing.T) string {
	t.Helper()
	answer := func(in []byte) []byte {
		out := protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), "v7")
		return protowire.AppendBytes(protowire.AppendTag(out, 6, protowire.BytesType), in)
	}
	s := grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(s)
		md, _ := metadata.FromIncomingContext(s.Context())
		if got := md.Get("authorization"); len(got) != 1 || got[0] != "Bearer k" {
			return status.Error(codes.Unauthenticated, "no key")
		}
		for {
			var in []byte
			if err := s.RecvMsg(&in); err != nil {
				if errors.Is(err, io.EOF) {
					return nil
				}
				return err
			}
			bad := string(field(in, 1)) == "bad"
			out := answer(in)
			switch {
			case method == streamMethod && bad:
				out = protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "no such model")
			case method == streamMethod:
				out = protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), out)
			case bad:
				return status.Error(codes.NotFound, "no such model")
			}
			if err := s.SetHeader(metadata.Pairs("server-timing", "queue;dur=1")); err != nil && method == unaryMethod {
				return err
			}
			if err := s.SendMsg(&out); err != nil || method != streamMethod {
				return err
			}
		}
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

func TestGRPC(t *testing.T) {
	address := grpcServer(t)
	message := func(model string) *bench.Item {
		return &bench.Item{Wire: protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), model)}
	}
	ask := func(c bench.Conn, item *bench.Item) (a bench.Answer) {
		t.Helper()
		if err := errors.Join(c.Send(item), c.Receive(&a)); err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, stream := range []bool{false, true} {
		g := &GRPC{Address: address, Stream: stream, Channels: 2, Header: map[string]string{"authorization": "Bearer k"}}
		var conns []bench.Conn
		for range 5 {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			c, err := g.Dial(ctx)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
		}
		if len(g.shared) != 2 {
			t.Errorf("%d channels, want 2", len(g.shared))
		}
		for _, c := range conns {
			for range 3 {
				good := message("good")
				if a := ask(c, good); a.Failure != "" || !bytes.Equal(field(a.Body, 6), good.Wire) || string(a.Version) != "v7" || a.Timed != !stream {
					t.Errorf("stream %v: %+v", stream, a)
				}
				want := "gRPC NotFound"
				if stream {
					want = "gRPC stream error"
				}
				if a := ask(c, message("bad")); a.Failure != want || string(a.Body) != "no such model" {
					t.Errorf("stream %v: failure %q: %q, want %q", stream, a.Failure, a.Body, want)
				}
			}
		}
		for _, c := range conns {
			_ = c.Close()
		}
		if len(g.shared) != 0 {
			t.Errorf("%d channels are left", len(g.shared))
		}
	}
	for _, stream := range []bool{false, true} {
		c, err := (&GRPC{Address: address, Stream: stream}).Dial(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var a bench.Answer
		err = c.Send(message("good"))
		if err == nil || stream { // a stream may have ended by now
			err = c.Receive(&a)
		}
		if a.Failure != "gRPC Unauthenticated" || string(a.Body) != "no key" || stream != errors.Is(err, ErrClosing) {
			t.Errorf("without a key, stream %v: %+v, %v", stream, a, err)
		}
	}
}

func TestGRPCSaysWhyItDoesNotConnect(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog, secure.EnableHTTP2 = log.New(io.Discard, "", 0), true
	secure.StartTLS()
	defer secure.Close()
	for want, g := range map[string]*GRPC{
		"connection refused": {Address: l.Addr().String()},
		"certificate":        {Address: secure.Listener.Addr().String(), TLS: &tls.Config{ServerName: "elsewhere"}},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		c, err := g.Dial(ctx)
		cancel()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, %v; want %q", c, err, want)
		}
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if c, err := (&GRPC{Address: silent.Addr().String()}).Dial(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", c, err)
	}
}

// The parser takes what net/http writes.
func TestAnswersOfNetHTTP(t *testing.T) {
	for _, size := range []int64{-1, 3} {
		var b bytes.Buffer
		r := &http.Response{ProtoMajor: 1, ProtoMinor: 1, StatusCode: 200, ContentLength: size, Body: io.NopCloser(strings.NewReader("abc")), Header: http.Header{}}
		if size < 0 {
			r.TransferEncoding = []string{"chunked"}
		}
		if err := r.Write(&b); err != nil {
			t.Fatal(err)
		}
		got, err := readAll(b.String(), 5)
		if !errors.Is(err, io.EOF) || len(got) != 1 || got[0] != "|abc||0|0s|0s" {
			t.Errorf("%q, %v", got, err)
		}
		if _, err := http.ReadResponse(bufio.NewReader(&b), nil); err != nil {
			t.Fatal(err)
		}
	}
}
