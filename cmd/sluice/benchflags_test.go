package main

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice.dev/bench"
)

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestFlagsWithoutEffectAreRefused(t *testing.T) {
	f := func(want string, args ...string) {
		t.Helper()
		if _, err := runBench(append(args, "http://127.0.0.1:0/x")...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, not %q", args, err, want)
		}
	}
	file := write(t, "1\n2\n")
	f("--arrivals has no effect without --rate", "--arrivals", "step")
	f("--arrivals has no effect without --rate", "--arrivals", "constant", "--find-max")
	f("--p99 has no effect without --find-max", "--p99", "1s")
	f("--in-flight has no effect without --rate or --trace or --find-max", "--in-flight", "9")
	f("--expect has no effect without --data", "--expect", file)
	f("--trace and --rate", "--trace", file, "--rate", "5")
	f("--trace and --warm-up", "--trace", file, "--warm-up", "5s")
	f("--find-max and --rate", "--find-max", "--rate", "5")
	f("--find-max and --trace", "--find-max", "--trace", file)
	f("--key and --key-file", "--key", "x", "--key-file", file)
	f("--key-file and --token-file", "--key-file", file, "--token-file", file)
	f("authorization and a key", "--key", "x", "--header", "Authorization: Bearer y")
	f("each request has its own", "--header", "Content-Length: 3")
	f("must be 'Name: value'", "--header", "a b: c")
	f("no effect with gRPC", "--header", "Host: x", "--protocol", "grpc")
	f("--tls-ca has no effect", "--tls-ca", caFile(t, nil))
}

// caFile has the certificate of a server, or of one that is made for it.
func caFile(t *testing.T, s *httptest.Server) string {
	if s == nil {
		s = httptest.NewTLSServer(nil)
		defer s.Close()
	}
	return write(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
}

func TestAnAuthorityOfTheUsersIsTrusted(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ErrorLog = nil
	s.StartTLS()
	defer s.Close()
	if _, err := runBench(s.URL + "/x"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without --tls-ca: %v", err)
	}
	if out, err := runBench(s.URL+"/x", "--tls-ca", caFile(t, s)); err != nil && !strings.Contains(err.Error(), "client is saturated") {
		t.Errorf("%v\n%s", err, out)
	}
}

// Commas part nothing, and the user's headers take the place of ours.
func TestHeadersAreSentAsGiven(t *testing.T) {
	var odd atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		h := r.Header
		if h.Get("Accept") != "a/b, c/d" || !slices.Equal(h["Content-Type"], []string{"image/jpeg"}) || r.Host != "elsewhere" {
			odd.Store([]any{r.Host, h})
		}
	}))
	defer s.Close()
	data := filepath.Join(t.TempDir(), "one, two")
	if err := os.WriteFile(data, []byte("JPEG"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := runBench(s.URL+"/x", "--data", data, "--header", "Accept: a/b, c/d", "--header", "content-type: image/jpeg", "--header", "Host: elsewhere")
	if err != nil && !strings.Contains(err.Error(), "client is saturated") || odd.Load() != nil {
		t.Errorf("%v, %v\n%s", err, odd.Load(), out)
	}
}

func TestATargetMayHaveSeveralProcesses(t *testing.T) {
	me, parent := os.Getpid(), os.Getppid()
	o := &benchOptions{pid: []string{"a=" + strconv.Itoa(me), "a=" + strconv.Itoa(parent)}}
	list := []*benchTarget{{name: "a"}, {name: "b"}}
	if err := o.pids(list); err != nil {
		t.Skip(err) // no /proc here
	}
	if !slices.Equal(list[0].pids, []int{me, parent}) || list[1].pids != nil {
		t.Errorf("%v, %v", list[0].pids, list[1].pids)
	}
}

// Rounds have arrivals of their own, which the targets of a round share.
func TestRoundsDifferInTheirArrivals(t *testing.T) {
	o := &benchOptions{rate: []float64{1000}, arrivals: "poisson", plan: bench.Plan{Duration: time.Second}}
	if err := o.readRates(); err != nil {
		t.Fatal(err)
	}
	first := func(round int) time.Duration { at, _ := o.schedule(round).Next(); return at }
	if one, same, other := first(1), first(1), first(2); one != same || one == other {
		t.Errorf("%v, %v, %v", one, same, other)
	}
}

func TestATraceMayHaveManyConnections(t *testing.T) {
	o := &benchOptions{output: "text", repeats: 1, trace: write(t, "1\n2\n"), given: func(flag string) bool { return flag == "trace" }}
	o.plan = bench.Plan{Connections: 5000, InFlight: 4096, Timeout: time.Second}
	if err := o.check(); err != nil || o.plan.InFlight != 5000 {
		t.Errorf("%v, %d in flight", err, o.plan.InFlight)
	}
}

func TestTheFirstRequestsHaveTheTimeoutOfAll(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		<-r.Context().Done()
	}))
	defer s.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, args := range [][]string{{}, {"--data", write(t, "{}")}} {
		_, err := runBenchUntil(ctx, append(args, s.URL+"/v2/models/m", "--timeout", "100ms")...)
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// What was measured before the end is reported, and does not count.
func TestATestThatEndsEarlyIsReported(t *testing.T) {
	f := func(want string, end func(cancel context.CancelCauseFunc, b *httptest.Server)) {
		t.Helper()
		ctx, cancel := context.WithCancelCause(context.Background())
		defer cancel(nil)
		a := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		defer a.Close()
		var asked atomic.Int64
		var b *httptest.Server
		b = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			if asked.Add(1) == 2 { // the first one was before the rounds
				end(cancel, b)
			}
		}))
		defer b.Close()
		file := write(t, "")
		out, err := runBenchUntil(ctx, "a="+a.URL+"/x", "b="+b.URL+"/x", "--repeats", "3", "--json", file)
		if err == nil || !strings.Contains(out, "requests/s") || !strings.Contains(out, "the test ended early: b, round ") || !strings.Contains(out, want) {
			t.Errorf("%v\n%s", err, out)
		}
		if r := found(t, read(t, file)); len(r.Targets[0].Results) == 0 || len(r.Targets[0].Results) == 3 {
			t.Errorf("%d rounds", len(r.Targets[0].Results))
		}
	}
	f("a signal", func(cancel context.CancelCauseFunc, _ *httptest.Server) { cancel(errors.New("a signal")) })
	f("connection refused", func(_ context.CancelCauseFunc, b *httptest.Server) { _ = b.Listener.Close() })
}
