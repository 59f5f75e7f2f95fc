// Command compare measures Sluice beside its peers in one run: every target in
// turn, round after round, with the CPU time per request of its processes.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"sluice.dev/bench"
	"sluice.dev/bench/client"
	"sluice.dev/bench/load"
	"sluice.dev/bench/local"
	"sluice.dev/bench/report"
	"sluice.dev/bench/stats"
)

var (
	rounds      = flag.Int("rounds", 5, "how often each target is measured")
	seconds     = flag.Float64("seconds", 2, "length of one measurement")
	connections = flag.Int("connections", 32, "keep-alive connections")
	results     = flag.String("results", "", "also write the outcome to this file, as Markdown")
	only        = flag.String("only", "", "start and measure only targets whose names match this regular expression, such as wide, with their echoes")
	binaries    = flag.String("bin", "bin", "folder of sluice, gateway and scorer")
	echo        = flag.String("echo", "", "internal: serve an echo of this address")
	echoBody    = flag.String("echo-body", "", "internal: file with the echo's answer")
	echoModel   = flag.String("echo-model", "", "internal: the wide model, which the echo runs for every answer")
)

func main() {
	flag.Parse()
	if *echo != "" {
		log.Fatal(serveEcho())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := compare(ctx); err != nil {
		log.Fatal(err)
	}
}

// serveEcho is the baseline: the cheapest HTTP server that reads a request and
// writes an answer of the same bytes as ours; with a model, one that runs it meanwhile.
func serveEcho() error {
	body, err := os.ReadFile(*echoBody)
	if err != nil {
		return err
	}
	run := func() error { return nil }
	if *echoModel != "" {
		m, err := openBare(*echoModel)
		if err != nil {
			return err
		}
		call, err := m.bind(1)
		if err != nil {
			return err
		}
		run = call.Run // for one connection
	}
	s := &fasthttp.Server{Name: "echo", MaxRequestBodySize: 8 << 20, Handler: func(c *fasthttp.RequestCtx) {
		if err := run(); err != nil {
			c.Error(err.Error(), fasthttp.StatusInternalServerError)
			return
		}
		c.Response.SetBodyRaw(body)
		c.SetContentType("application/json")
	}}
	return s.ListenAndServe(*echo)
}

// sample is one measurement of a target.
type sample struct {
	rate, cpu, p50, p99 float64 // per second, µs per request, µs, µs
	errors              int64
}

func compare(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	busy := loadAverage()
	match, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	p := &local.Processes{Bin: *binaries}
	defer p.Stop()
	targets, missing, err := start(ctx, p, dir, match.MatchString)
	if err != nil {
		return err
	}
	if len(targets)+len(missing) == 0 && !match.MatchString(wideName) {
		return fmt.Errorf("-only %s: no target has such a name", *only)
	}
	samples := make([][]sample, len(targets))
	for round := range *rounds {
		for i, t := range targets {
			fmt.Fprintf(os.Stderr, "\rround %d of %d: %-40s", round+1, *rounds, t.name)
			s, err := t.measure(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			samples[i] = append(samples[i], s)
		}
	}
	fmt.Fprintf(os.Stderr, "\r%60s\r", "")
	var text bytes.Buffer
	heading(&text, busy)
	if len(targets) > 0 {
		table(&text, targets, samples)
	}
	for _, m := range missing {
		fmt.Fprintf(&text, "\nNot measured: %s\n", m)
	}
	if match.MatchString(wideName) {
		p.Stop() // the runtime gets the machine for itself
		if err := wideModel(ctx, p, dir, &text); err != nil {
			return err
		}
	}
	if _, err := os.Stdout.Write(text.Bytes()); err != nil || *results == "" {
		return err
	}
	return report.Section(*results, text.String())
}

// measure asks a target for a while.
func (t *target) measure(ctx context.Context) (sample, error) {
	r, err := ask(ctx, t, *connections, *seconds)
	if err != nil {
		return sample{}, err
	}
	return sample{rate: r.Rate, cpu: r.ServerCPU, p50: micros(r.Latency.At(50)), p99: micros(r.Latency.At(99)), errors: r.Errors()}, nil
}

// ask keeps connections to a target busy.
func ask(ctx context.Context, t *target, connections int, seconds float64) (*bench.Result, error) {
	plan := bench.Plan{
		Connections: connections, InFlight: connections, Timeout: 10 * time.Second,
		WarmUp: 200 * time.Millisecond, Duration: time.Duration(seconds * float64(time.Second)),
	}
	return load.Run(ctx, plan, &load.Work{Dial: client.HTTP(t.address, nil), Items: []bench.Item{t.item}, PIDs: t.pids})
}

func micros(d time.Duration) float64 { return float64(d) / 1e3 }

func median[T any](list []T, of func(T) float64) float64 {
	v := make([]float64, len(list))
	for i, s := range list {
		v[i] = of(s)
	}
	return stats.Median(v)
}

// loadAverage is how busy the machine is with other things, where it can be told.
func loadAverage() string {
	data, _ := os.ReadFile("/proc/loadavg") // not there: not told
	before, _, _ := strings.Cut(string(data), " ")
	return before
}

// heading says what was measured, where, and how.
func heading(w io.Writer, busy string) {
	fmt.Fprintf(w, "# Sluice beside its peers\n\n`go run ./bench/compare %s` (`make bench`), %s; load average before: %s.\n", strings.Join(os.Args[1:], " "), report.Machine(), busy)
	fmt.Fprintf(w, "%d connections, %d rounds of %.1f s in turn, medians; one row of 64 floats.\n", *connections, *rounds, *seconds)
	fmt.Fprint(w, `
CPU is that of all of a target's processes. Its ratio is to the echo above, which answers the same bytes; of the servers in Python, which
run the same model, to Sluice in Azure ML's form. Every answer was checked: as bytes, of those servers within 0.0001. A server in Python
has a process per core, MLServer one.

`)
}

// table writes what was measured: medians, and ratios to the baseline of the same bodies.
func table(w io.Writer, targets []*target, samples [][]sample) {
	fmt.Fprintln(w, "| target | requests/s | CPU µs/request | ratio | goal | p50 µs | p99 µs | errors | version |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|")
	for i, t := range targets {
		errors := int64(0)
		for _, s := range samples[i] {
			errors += s.errors
		}
		cpu := func(s sample) float64 { return s.cpu }
		ratio := median(samples[i], cpu) / median(samples[t.baseline], cpu)
		goal := "–"
		if t.goal > 0 {
			goal = fmt.Sprintf("%.1f: reached", t.goal)
			if ratio > t.goal {
				goal = fmt.Sprintf("%.1f: missed by %.0f%%", t.goal, 100*(ratio/t.goal-1))
			}
		}
		fmt.Fprintf(w, "| %s | %.0f | %.1f | %.2f | %s | %.0f | %.0f | %d | %s |\n", t.name,
			median(samples[i], func(s sample) float64 { return s.rate }), median(samples[i], cpu), ratio, goal,
			median(samples[i], func(s sample) float64 { return s.p50 }), median(samples[i], func(s sample) float64 { return s.p99 }), errors, t.version)
	}
}
