package main

import (
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice.dev/bench"
	"sluice.dev/bench/report"
	"sluice.dev/bench/stats"
)

// The highest rate is found whatever a closed loop reaches, to 2%, also where the
// generator is now and then in its own way.
func TestTheSearchClosesInOnTheHighestRate(t *testing.T) {
	f := func(first, limit float64, found bool) {
		t.Helper()
		for _, hiccups := range []int{1, 3} { // 1: none
			s, n := search{first: first}, 0
			for rate, more := s.next(); more; rate, more = s.next() {
				p := bench.Probe{Rate: rate}
				if n++; hiccups > 1 && n%hiccups == 0 {
					p.Limit, p.Client = "a hiccup", true
				} else if rate > limit {
					p.Limit = "too much"
				}
				s.note(p)
			}
			most := s.found.Most
			if n > 40 || n != len(s.found.Probes) || found != (most > 0) || found && (most > limit || most < limit/1.02) || s.found.Client || first > 0 && s.found.Limit != "too much" {
				t.Errorf("from %v: %+v of %v after %d", first, s, limit, n)
			}
		}
	}
	f(100, 100, true)
	f(100, 1e6, true)
	f(100, 173, true)
	f(100, 0.3, true)
	f(100, 0.01, false)
	f(0, 100, false)
	s := search{first: 100}
	s.note(bench.Probe{Rate: 100, Limit: "saturated", Client: true})
	s.note(bench.Probe{Rate: 100, Limit: "saturated", Client: true})
	if rate, _ := s.next(); rate != 50 || !s.found.Client {
		t.Errorf("then %v, %+v", rate, s)
	}
}

// desk serves as many at once as there are places, each for 5 ms; with more than
// right of them under way it gives a wrong answer.
func desk(t *testing.T, places int, right int64) string {
	t.Helper()
	free := make(chan bool, places)
	var busy atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		defer busy.Add(-1)
		if busy.Add(1) > right {
			_, _ = io.WriteString(w, "8")
			return
		}
		free <- true
		<-time.After(5 * time.Millisecond)
		<-free
		_, _ = io.WriteString(w, "7")
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func found(t *testing.T, out string) *report.Report {
	t.Helper()
	var r report.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return &r
}

// A server that takes many at once is faster than two connections can show; what keeps
// from more is told, and is a problem where it is the client.
func TestTheHighestRateIsNotBoundByConnections(t *testing.T) {
	data := write(t, "{}")
	out, err := runBench(desk(t, 16, math.MaxInt64)+"/x", "--data", data, "--find-max", "--p99", "60ms", "-o", "json")
	r := found(t, out)
	s := r.Targets[0].Results[0].Search
	if s == nil || len(s.Probes) < 3 || s.Limit == "" {
		t.Fatalf("%+v, %v", s, err)
	}
	if s.Client {
		if err == nil || !strings.Contains(err.Error(), "limited by the client") && !strings.Contains(err.Error(), "no rate was found") {
			t.Errorf("limited by the client, and: %v", err)
		}
		return // the machine is busy
	}
	if s.Most < 1.5*s.Probes[0].Rate || err != nil || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "99th percentile") {
		t.Errorf("%+v, %v, %q", s, err, r.Notes)
	}
}

func TestAWrongAnswerEndsTheSearch(t *testing.T) {
	out, err := runBench(desk(t, 16, 2)+"/x", "--data", write(t, "{}"), "--expect", write(t, "7"), "--find-max", "--p99", "10s", "-o", "json")
	if err == nil || !strings.Contains(err.Error(), "wrong answers") {
		t.Fatalf("%v\n%s", err, out)
	}
	if s := found(t, out).Targets[0].Results[0].Search; s == nil || len(s.Probes) == 0 || s.Probes[len(s.Probes)-1].Limit == "" {
		t.Errorf("%+v", s)
	}
}

// Each round searches anew, so that the highest rates have intervals and a ratio.
func TestTheHighestRateIsFoundInEveryRound(t *testing.T) {
	args := []string{"a=" + desk(t, 2, math.MaxInt64) + "/x", "b=" + desk(t, 4, math.MaxInt64) + "/x", "--data", write(t, "{}"),
		"--find-max", "--p99", "30ms", "--repeats", "2", "--duration", "100ms", "--warm-up", "0s"}
	file := write(t, "")
	out, err := runBench(append(args, "--json", file)...)
	if !strings.Contains(out, "most requests/s  ") || !strings.Contains(out, "2 rounds in turn") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, target := range found(t, read(t, file)).Targets {
		if len(target.Results) != 2 || target.Results[0].Search == nil || target.Results[1].Round != 2 || target.Results[1].Search == nil {
			t.Errorf("%s: %d rounds", target.Name, len(target.Results))
		}
	}
}

// Where the generator fails nothing is known of the target, whatever came back.
func TestALimitOfTheClientIsAProblem(t *testing.T) {
	o := &benchOptions{p99: time.Millisecond, limits: bench.DefaultLimits}
	f := func(client bool, want string, change func(*bench.Result)) {
		t.Helper()
		res := &bench.Result{Requests: 1, Latency: stats.Fine(), Failed: map[string]int64{}}
		res.Latency.Record(time.Microsecond)
		change(res)
		p := o.judge(100, res)
		if p.Client != client || !strings.Contains(p.Limit, want) || (want == "") != (p.Limit == "") {
			t.Errorf("%+v, want %q", p, want)
		}
		best := &bench.Result{Latency: res.Latency, Search: &bench.Search{Most: 90, Limit: p.Limit, Client: p.Client}}
		if got := best.Problems(o.limits); client != (len(got) == 1 && strings.Contains(got[0], "limited by the client") && strings.Contains(got[0], want)) {
			t.Errorf("problems %q", got)
		}
	}
	f(false, "", func(*bench.Result) {})
	f(false, "99th percentile", func(r *bench.Result) { r.Latency.Record(time.Second) })
	f(false, "status 503: 7", func(r *bench.Result) { r.Failed["status 503"] = 7 })
	f(true, "sent 50.0% of the requests", func(r *bench.Result) { r.Client.Late = 0.5; r.Failed["status 503"] = 7 })
	f(true, "never sent", func(r *bench.Result) { r.Unsent = 9 })
	f(true, "99% of its cores", func(r *bench.Result) { r.Client.Share = 0.99 })
}
