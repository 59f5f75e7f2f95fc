package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRequestsAreSimulated(t *testing.T) {
	trace := write(t, "0\n0.001\n0.002\n0.5\n0.501\n")
	f := func(want []string, args ...string) {
		t.Helper()
		out, err := said(simulateCommand(), append(args, "--times", "1=4ms,8=17ms")...)
		if err != nil {
			t.Errorf("%v: %v", args, err)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%v: no %q in\n%s", args, w, out)
			}
		}
	}
	f([]string{"does 448 rows per second", "load 0.95", "Triton, preferred 4 and 8", "Clipper", "overloaded"}, "--requests", "5000")
	f([]string{"100 per second", "200 per second"}, "--arrivals", "bursts", "--burst", "5", "--rate", "100,200", "--requests", "500")
	f([]string{"100 per second", "rows per run"}, "--arrivals", "daily", "--period", "1s", "--rate", "100", "--requests", "500")
	f([]string{"2 callers", "300 callers"}, "--arrivals", "closed", "--callers", "2,300", "--think", "1ms", "--requests", "500")
	f([]string{"as recorded", "optimum"}, "--trace", trace)
	f([]string{"5 per second", "optimum"}, "--trace", trace, "--rate", "5,50")
	f([]string{"all missed"}, "--deadline", "1ms", "--rate", "5,50", "--requests", "50")
	f([]string{"Clipper, runs of 30ms"}, "--p99", "30ms", "--rate", "5", "--requests", "50")
}

// A recording is played as it is: the last two requests of three come together, and alone one
// takes 4.2 ms, 5% more than --times says, since with so few nothing is left to chance.
func TestARecordingIsPlayed(t *testing.T) {
	plot := filepath.Join(t.TempDir(), "plot.svg")
	out, err := said(simulateCommand(), "--times", "1=4ms,8=4ms", "--trace", write(t, "1\n2\n2\n9\n"), "--requests", "3", "-o", "json", "--plot", plot)
	if err != nil {
		t.Fatal(err)
	}
	var s simulation
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	rules := map[string]simulatedOne{}
	for _, r := range s.Results {
		rules[r.Rule] = r
	}
	own, lone, best := rules["what waits"], rules["one by one"], rules["optimum of the mean"]
	if s.Slots != 1 || s.Limit != 8 || own.Requests != 3 || own.Case != "as recorded" || own.P99 != 4200*time.Microsecond || own.RowsPerRun != 1.5 {
		t.Errorf("%+v: %+v", s, own)
	}
	if lone.P99 != 8400*time.Microsecond || best.Mean != own.Mean {
		t.Errorf("one by one: %+v; the optimum: %+v", lone, best)
	}
	if svg, err := os.ReadFile(plot); err != nil || !bytes.HasPrefix(svg, []byte("<svg")) {
		t.Errorf("the plot: %.40s, %v", svg, err)
	}
}

func TestSimulationsThatCannotBeAreRefused(t *testing.T) {
	f := func(want string, args ...string) {
		t.Helper()
		if out, err := said(simulateCommand(), args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, not %q\n%s", args, err, want, out)
		}
	}
	given := []string{"--times", "1=4ms,8=17ms"}
	for _, c := range []struct {
		want string
		args []string
	}{
		{"poisson, bursts, daily, closed", []string{"--arrivals", "trace"}},
		{"--rate has no effect", []string{"--arrivals", "closed", "--rate", "5"}},
		{"--callers has no effect", []string{"--callers", "5"}},
		{"--burst has no effect", []string{"--arrivals", "daily", "--burst", "5"}},
		{"--arrivals has no effect", []string{"--arrivals", "daily", "--trace", "x"}},
		{"--rate NaN", []string{"--rate", "NaN"}},
		{"--requests 0", []string{"--requests", "0"}},
		{"--callers 9", []string{"--arrivals", "closed", "--callers", "9", "--requests", "8"}},
		{"must not be negative", []string{"--think", "-1s", "--arrivals", "closed"}},
		{"all requests come at once", []string{"--trace", write(t, "1\n1\n"), "--rate", "5"}},
		{"no times", []string{"--trace", write(t, "\n")}},
		{"text or json", []string{"-o", "yaml"}},
		{"--slots 2000", []string{"--slots", "2000"}},
		{"--limit 20000", []string{"--limit", "20000"}},
		{"write the plot", []string{"--requests", "5", "--plot", t.TempDir()}},
	} {
		f(c.want, append(c.args, given...)...)
	}
	f("exactly one", "--rate", "5")
	f("none shorter", "--times", "1=10ms,8=5ms")
	f("none shorter", "--times", "8=10ms,1=5ms")
	f("none shorter", "--times", "1=10")
}
