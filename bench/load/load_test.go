package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice.dev/bench"
	"sluice.dev/bench/client"
	"sluice.dev/bench/pace"
	"sluice.dev/bench/stats"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func item(body string) bench.Item {
	return bench.Item{Name: body, Wire: fmt.Appendf(nil, "POST /x HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%s", len(body), body)}
}

// expect takes only one body.
func expect(i bench.Item, body string) bench.Item {
	i.Check = func(a *bench.Answer) error {
		if string(a.Body) != body {
			return fmt.Errorf("got %q, want %q", a.Body, body)
		}
		return nil
	}
	return i
}

func dial(s *httptest.Server) bench.Dial {
	return client.HTTP(strings.TrimPrefix(s.URL, "http://"), nil)
}

func closed(connections int) bench.Plan {
	return bench.Plan{Connections: connections, InFlight: connections, WarmUp: 50 * time.Millisecond, Duration: 200 * time.Millisecond, Timeout: 10 * time.Second}
}

func even(rate float64, connections, inFlight int, d time.Duration) bench.Plan {
	return bench.Plan{
		Connections: connections, InFlight: inFlight, Duration: d, Timeout: 10 * time.Second,
		Arrivals: func() bench.Schedule { return pace.Even(pace.Flat(rate, d)) },
	}
}

func must(t *testing.T, plan bench.Plan, w *Work) *bench.Result {
	t.Helper()
	r, err := Run(context.Background(), plan, w)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// hang answers nothing; it sees that a client leaves once it has read the body.
func hang(_ http.ResponseWriter, q *http.Request) {
	_, _ = io.ReadAll(q.Body)
	<-q.Context().Done()
}

func TestAClosedLoopCountsEveryAnswer(t *testing.T) {
	var served atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		n := served.Add(1)
		w.Header().Set("X-Sluice-Version", []string{"a", "b"}[n%2])
		w.Header().Set("Server-Timing", "queue;dur=0.25, device;dur=0.5")
		_, _ = w.Write(append(body, '!'))
	}))
	defer s.Close()
	plan := closed(4)
	plan.WarmUp = 0
	r := must(t, plan, &Work{Dial: dial(s), Items: []bench.Item{expect(item("one"), "one!"), expect(item("three"), "three!")}, PIDs: []int{os.Getpid()}})
	if r.Requests != served.Load() || r.Latency.Count() != r.Requests || r.Errors() != 0 || len(r.Problems(bench.DefaultLimits)) != 0 {
		t.Errorf("%+v of %d", r, served.Load())
	}
	a, b := r.Versions["a"], r.Versions["b"]
	if len(r.Versions) != 2 || a == nil || b == nil || a.Latency.Count()+b.Latency.Count() != r.Requests || a.Queue.Count() != a.Latency.Count() {
		t.Fatalf("versions %+v", r.Versions)
	}
	if q, d := a.Queue.Mean().Round(10*time.Microsecond), a.Device.Mean().Round(10*time.Microsecond); q != 250*time.Microsecond || d != 500*time.Microsecond {
		t.Errorf("queue %v, device %v", q, d)
	}
	if r.Rate <= 0 || r.ServerCPU <= 0 || r.Client.CPU <= 0 || r.ServerRSS <= 0 {
		t.Errorf("%+v", r)
	}
	slots := int64(0)
	for _, h := range append(a.Slots, b.Slots...) {
		slots += h.Count()
	}
	if slots != r.Requests {
		t.Errorf("%d of %d in slots", slots, r.Requests)
	}
}

func TestTheWarmUpIsNotMeasured(t *testing.T) {
	begin := time.Now()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if time.Since(begin) < 100*time.Millisecond {
			w.WriteHeader(500)
		}
	}))
	defer s.Close()
	plan := closed(2)
	plan.WarmUp = 300 * time.Millisecond
	r := must(t, plan, &Work{Dial: dial(s), Items: []bench.Item{item("")}})
	if r.Errors() != 0 || r.Latency.Count() == 0 {
		t.Errorf("%v, %+v", r.Failed, r)
	}
}

func TestWhatFailsIsCountedByKind(t *testing.T) {
	f := func(kind string, h http.HandlerFunc) {
		t.Helper()
		s := httptest.NewServer(h)
		defer s.Close()
		for name, plan := range map[string]bench.Plan{"closed": closed(3), "open": even(100, 3, 10, 200*time.Millisecond)} {
			if kind == bench.TimedOut {
				plan.Timeout = 100 * time.Millisecond
			}
			r := must(t, plan, &Work{Dial: dial(s), Items: []bench.Item{expect(item("x"), "fine")}})
			if r.Failed[kind] == 0 || r.Errors() != r.Failed[kind] || r.Latency.Count() != 0 || r.Requests != r.Failed[kind] || len(r.Problems(bench.DefaultLimits)) == 0 {
				t.Errorf("%s, %s loop: %v of %d requests, %d right", kind, name, r.Failed, r.Requests, r.Latency.Count())
			}
		}
	}
	f("status 503", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	f(bench.WrongAnswer, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("find")) })
	f(bench.TimedOut, hang)
	f(bench.Broken, func(w http.ResponseWriter, _ *http.Request) {
		c, _, _ := w.(http.Hijacker).Hijack()
		_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfi"))
		_ = c.Close()
	})
}

func TestConnectionsThatTheServerEndsAreReplaced(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		_, _ = w.Write([]byte("fine"))
	}))
	defer s.Close()
	for name, plan := range map[string]bench.Plan{"closed": closed(3), "open": even(200, 3, 3, 200*time.Millisecond)} {
		r := must(t, plan, &Work{Dial: dial(s), Items: []bench.Item{expect(item("x"), "fine")}})
		if r.Errors() != 0 || r.Latency.Count() < 5 {
			t.Errorf("%s: %v, %d right", name, r.Failed, r.Latency.Count())
		}
	}
}

func TestATargetThatDiesIsAnError(t *testing.T) {
	for name, plan := range map[string]bench.Plan{"closed": closed(2), "open": even(100, 2, 4, 400*time.Millisecond)} {
		s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		time.AfterFunc(100*time.Millisecond, func() { s.CloseClientConnections(); s.Close() })
		r := must(t, plan, &Work{Dial: dial(s), Items: []bench.Item{item("x")}})
		if r.Failed[bench.NoConnect] == 0 || r.Latency.Count()+r.Errors() != r.Requests {
			t.Errorf("%s: %v, %d right of %d", name, r.Failed, r.Latency.Count(), r.Requests)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if r, err := Run(context.Background(), closed(3), &Work{Dial: client.HTTP(l.Addr().String(), nil), Items: []bench.Item{item("")}}); err == nil {
		t.Errorf("without a server: %+v", r)
	}
}

// stall is a server that answers at once, but not within a stretch of time, at whose
// end it answers all.
func stall(t *testing.T, from, to time.Duration) *httptest.Server {
	t.Helper()
	var once sync.Once
	var begin time.Time
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		once.Do(func() { begin = time.Now() })
		if at := time.Since(begin); at >= from && at < to {
			<-time.After(to - at)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// Without coordinated omission, a stall of 300 ms at 100 requests per second makes 30
// requests late, whose latencies go down from 300 ms to nothing. A closed loop sees
// one late request per connection. (A busy machine makes more of them late, never fewer.)
func TestAnOpenLoopChargesAStallForAllWhoCome(t *testing.T) {
	for _, inFlight := range []int{1, 50} {
		s := stall(t, 200*time.Millisecond, 500*time.Millisecond)
		r := must(t, even(100, 1, inFlight, 800*time.Millisecond), &Work{Dial: dial(s), Items: []bench.Item{item("")}})
		late := func(d time.Duration) (n int64) {
			for percent := 0.5; percent < 100; percent++ {
				if r.Latency.At(percent) > d {
					n += 1
				}
			}
			return n * r.Latency.Count() / 100
		}
		if r.Requests != 79 || r.Latency.Count() != 79 || r.Errors() != 0 || r.Offered < 98 || r.Offered > 99 {
			t.Fatalf("in flight %d: %d of %d, %v, offered %v", inFlight, r.Latency.Count(), r.Requests, r.Failed, r.Offered)
		}
		if n := late(200 * time.Millisecond); n < 7 {
			t.Errorf("in flight %d: %d requests took over 200 ms, want at least 10", inFlight, n)
		}
		if n := late(100 * time.Millisecond); n < 16 {
			t.Errorf("in flight %d: %d requests took over 100 ms, want at least 20", inFlight, n)
		}
		if inFlight == 1 && r.Held <= 20 {
			t.Errorf("in flight %d: %d held", inFlight, r.Held)
		}
	}
}

// What cannot be sent in time is not forgotten.
func TestADroppedScheduleIsAnError(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-time.After(50 * time.Millisecond) }))
	defer s.Close()
	plan := even(200, 1, 2, 500*time.Millisecond)
	plan.Timeout = 200 * time.Millisecond
	r := must(t, plan, &Work{Dial: dial(s), Items: []bench.Item{item("")}})
	if r.Requests != 99 || r.Unsent < 30 || r.Latency.Count()+r.Errors() != 99 {
		t.Errorf("%d requests, %d unsent, %d right, %v", r.Requests, r.Unsent, r.Latency.Count(), r.Failed)
	}
	if p := strings.Join(r.Problems(bench.Limits{Errors: 1, Late: 1}), "\n"); !strings.Contains(p, "schedule was dropped") {
		t.Errorf("problems: %s", p)
	}
}

// A schedule that the generator cannot keep is its own fault, and it says so.
func TestASaturatedClientSaysSo(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	plan := even(100e6, 4, 4, 30*time.Millisecond)
	plan.Timeout = 100 * time.Millisecond
	r := must(t, plan, &Work{Dial: dial(s), Items: []bench.Item{item("")}})
	if p := strings.Join(r.Problems(bench.Limits{Errors: 1, Late: 0.01}), "\n"); r.Client.Late < 0.5 || !strings.Contains(p, "client is saturated") {
		t.Errorf("late %v, problems: %s", r.Client.Late, p)
	}
}

func TestCancellingEndsARun(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(hang))
	defer s.Close()
	for name, plan := range map[string]bench.Plan{"closed": closed(3), "open": even(0.001, 3, 10, time.Hour), "busy": even(1000, 3, 10, time.Hour)} {
		plan.Duration = time.Hour
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		r, err := Run(ctx, plan, &Work{Dial: dial(s), Items: []bench.Item{item("")}})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || r.Latency.Count() != 0 {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

func TestProgressIsTold(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	var told atomic.Int64
	plan := even(200, 2, 10, 1200*time.Millisecond)
	must(t, plan, &Work{Dial: dial(s), Items: []bench.Item{item("")}, Progress: func(p Progress) {
		if p.Connections < 2 || p.Right == 0 || p.At <= 0 || p.P99 <= 0 {
			t.Errorf("%+v", p)
		}
		told.Add(1)
	}})
	if told.Load() < 2 {
		t.Errorf("told %d times", told.Load())
	}
}

// silent is a connection on which nothing comes back.
type silent struct{}

func (silent) Send(*bench.Item) error      { return nil }
func (silent) Receive(*bench.Answer) error { return io.EOF }
func (silent) Quick(*bench.Item) bool      { return true }
func (silent) Close() error                { return nil }

// A receiver whose connection ends asks, under the lock, whether a request was under
// way: as soon as the answer is yes, which one that is must be known.
func TestACallerThatIsTakenKnowsItsRequest(t *testing.T) {
	plan := even(1, 1, 1, time.Hour)
	r := &run{plan: plan, work: &Work{Items: []bench.Item{item("")}}, ctx: t.Context(), start: time.Now(), queue: &queue{lag: stats.Fine()}}
	k := &caller{run: r, conn: silent{}}
	for i := time.Duration(1); i <= 5_000; i++ {
		k.sent.Store(idle)
		k.free = true
		r.queue.idle = append(r.queue.idle, k)
		var wg sync.WaitGroup
		var started atomic.Bool
		wg.Go(func() {
			for started.Store(true); ; {
				r.mu.Lock()
				taken, due := !k.free, k.due.Load()
				r.mu.Unlock()
				if taken {
					if due != int64(i) {
						t.Errorf("it is due at %d, not %d", due, i)
					}
					return
				}
			}
		})
		for !started.Load() {
			runtime.Gosched()
		}
		r.arrive(i, i)
		wg.Wait()
		if t.Failed() {
			return
		}
	}
}

// fixed answers every request of the given size with the same bytes, and allocates
// nothing.
func fixed(t testing.TB, size int, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				in, out := make([]byte, size), []byte(answer)
				for {
					if _, err := io.ReadFull(c, in); err != nil {
						return
					}
					if _, err := c.Write(out); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l.Addr().String()
}

func TestRequestsAllocateNothing(t *testing.T) {
	ask := expect(item("x"), "fine")
	address := fixed(t, len(ask.Wire), "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Sluice-Version: one\r\nServer-Timing: queue;dur=1\r\n\r\nfine")
	for name, plan := range map[string]bench.Plan{"closed": closed(4), "open": even(20_000, 4, 8, 500*time.Millisecond)} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := must(t, plan, &Work{Dial: client.HTTP(address, nil), Items: []bench.Item{ask}})
		runtime.ReadMemStats(&after)
		// What the run itself needs, its histograms for instance, is spread over few requests.
		if per := float64(after.Mallocs-before.Mallocs) / float64(r.Requests); per > 0.3 || r.Requests < 1000 || r.Errors() != 0 {
			t.Errorf("%s: %.2f allocations per request of %d, %v", name, per, r.Requests, r.Failed)
		}
	}
}

// A generator without a core to spare is slow to notice answers, in an open loop too.
func TestAGeneratorThatIsShortOfCoresSaysSo(t *testing.T) {
	r := bench.Result{Offered: 100, Requests: 1, Latency: stats.Fine(), Client: bench.Client{Share: 0.96}}
	if p := r.Blame(bench.DefaultLimits); len(p) != 1 || !strings.Contains(p[0], "96% of its cores") {
		t.Errorf("%q", p)
	}
}

func TestBadPlansAreRefused(t *testing.T) {
	for _, p := range []bench.Plan{{}, {Connections: 2, InFlight: 1, Duration: 1, Timeout: 1}, {Connections: 1, InFlight: 1, Duration: 1}, {Connections: 1, InFlight: 1, Timeout: 1}} {
		if _, err := Run(context.Background(), p, &Work{Items: []bench.Item{{}}}); err == nil {
			t.Errorf("%+v is taken", p)
		}
	}
	if _, err := Run(context.Background(), closed(1), &Work{}); err == nil {
		t.Error("nothing to ask is taken")
	}
}

// The client's own cost: requests over loopback to a server in the same process.
func BenchmarkClosedLoop(b *testing.B) {
	ask := item("x")
	c, err := client.HTTP(fixed(b, len(ask.Wire), "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"), nil)(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	var a bench.Answer
	b.ReportAllocs()
	for b.Loop() {
		if err := errors.Join(c.Send(&ask), c.Receive(&a)); err != nil {
			b.Fatal(err)
		}
	}
}
