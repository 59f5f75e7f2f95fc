package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/bench"
	"sluice.dev/bench/load"
	"sluice.dev/bench/pace"
	"sluice.dev/bench/proc"
	"sluice.dev/bench/report"
)

// benchOptions are the flags of sluice bench.
type benchOptions struct {
	rate                       []float64
	arrivals, trace            string
	plan                       bench.Plan
	repeats                    int
	protocol                   string
	data, expect, header, pid  []string
	key, keyFile, tokenFile    string
	findMax, timing            bool
	p99                        time.Duration
	limits                     bench.Limits
	json, csv, html, output    string
	recording                  *pace.Trace
	durationSet, inFlightGiven bool
}

func benchCommand() *cobra.Command {
	var o benchOptions
	c := &cobra.Command{
		Use: "bench [NAME=]URL …", Short: "Ask servers for scores at a rate or as fast as they can, and measure the answers", Args: cobra.MinimumNArgs(1),
		Long: `Ask servers for scores, and measure the answers.

Without --rate every connection asks as soon as it has its answer (a closed loop). With
it, requests come at that rate whatever is answered, and latency counts from when each
was due. Several targets are asked in turn, round after round, and compared: means
over the rounds with 95% confidence intervals, and ratios to the first target.

A URL is that of a model, such as http://127.0.0.1:8000/v2/models/digits, or of Azure
ML's scoring, /api/v1/service/digits/score; of gRPC it is grpc://HOST:PORT/MODEL[/VERSION].
Without --data, an input is made up from the model's metadata.

It exits with 1 where the figures do not count: an answer is not what --expect says,
more requests fail than --max-errors allows, or this program itself was too slow.`,
		Example: `  sluice bench http://127.0.0.1:8000/v2/models/digits --key-file .state/keys/digits
  sluice bench http://127.0.0.1:8000/v2/models/digits --key-file .state/keys/digits --rate 2000 --duration 30s --html report.html
  sluice bench old=http://127.0.0.1:8000/v2/models/digits new=http://127.0.0.1:9000/v2/models/digits --repeats 5`,
		RunE: func(c *cobra.Command, args []string) error {
			o.durationSet, o.inFlightGiven = c.Flags().Changed("duration"), c.Flags().Changed("in-flight")
			return o.run(c, args)
		},
	}
	o.flags(c)
	return c
}

func (o *benchOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.Float64SliceVar(&o.rate, "rate", nil, "requests per second; several for --arrivals step (one after the other) and ramp (from,to); none for a closed loop")
	f.StringVar(&o.arrivals, "arrivals", "poisson", "how requests come at --rate: poisson, constant, step, ramp; or trace")
	f.StringVar(&o.trace, "trace", "", "file of the times of requests to repeat, one a line: seconds first, or JSON with a member time, such as an access log")
	f.IntVar(&o.plan.Connections, "connections", 32, "connections that are opened at the start")
	f.IntVar(&o.plan.InFlight, "in-flight", 4096, "most requests under way at --rate; more wait, and their wait counts")
	f.DurationVar(&o.plan.Duration, "duration", 10*time.Second, "how long a round measures")
	f.DurationVar(&o.plan.WarmUp, "warm-up", time.Second, "how long a round asks before it measures")
	f.DurationVar(&o.plan.Timeout, "timeout", 30*time.Second, "how long a request may take")
	f.IntVar(&o.repeats, "repeats", 1, "rounds; intervals need at least 2")
	f.StringVar(&o.protocol, "protocol", "", "oip (JSON), binary (raw tensors), aml, http (any), grpc or grpc-stream; default by the URL")
	f.StringSliceVar(&o.data, "data", nil, "file of a request's body, or of a message of gRPC; given again, they are asked in turn")
	f.StringSliceVar(&o.expect, "expect", nil, "file of the right answer, one for each --data; whole numbers must be equal, floats may differ by 0.0001 of their size, or 0.000001 of the largest beside them (FP16 20, BF16 200 times that); of gRPC the outputs count")
	f.StringVar(&o.key, "key", "", "key or token; --key-file keeps it out of the process list")
	f.StringVar(&o.keyFile, "key-file", "", "file of the key")
	f.StringVar(&o.tokenFile, "token-file", "", "file of the token")
	f.StringSliceVar(&o.header, "header", nil, "further header, 'Name: value'; may be given again")
	f.BoolVar(&o.timing, "timing", true, "ask Sluice how long each request waited and ran (x-sluice-timing: 1; not for http and grpc-stream); what that costs is in the figures")
	f.StringSliceVar(&o.pid, "pid", nil, "process of a target, NAME=PID, or PID where there is one target: its CPU time and memory, with its children's, are reported")
	f.BoolVar(&o.findMax, "find-max", false, "find the highest rate at which --p99 is kept")
	f.DurationVar(&o.p99, "p99", 20*time.Millisecond, "the 99th percentile that --find-max keeps to")
	f.Float64Var(&o.limits.Errors, "max-errors", 0, "share of requests that may fail, 0 to 1")
	f.StringVar(&o.json, "json", "", "file for the report as JSON")
	f.StringVar(&o.csv, "csv", "", "file for the rounds as CSV")
	f.StringVar(&o.html, "html", "", "file for the report as a page")
	f.StringVarP(&o.output, "output", "o", "text", "text or json")
}

func (o *benchOptions) run(c *cobra.Command, args []string) error {
	if err := o.check(); err != nil {
		return err
	}
	targets, err := o.targets(c.Context(), args)
	if err != nil {
		return err
	}
	r := &report.Report{Title: "Load test: " + strings.Join(names(targets), ", "), Command: command(os.Args[1:]), When: time.Now(), Machine: machine(), Loop: o.loop(), Checked: o.checked()}
	for _, t := range targets {
		r.Targets = append(r.Targets, &report.Target{Name: t.name})
	}
	measure := o.rounds
	if o.findMax {
		measure = o.most
	}
	if err := measure(c.Context(), targets, r); err != nil {
		return err
	}
	for _, t := range r.Targets {
		for _, res := range t.Results {
			for _, p := range res.Problems(o.limits) {
				r.Problems = append(r.Problems, fmt.Sprintf("%s, round %d: %s", t.Name, res.Round, p))
			}
		}
	}
	if err := o.write(c.OutOrStdout(), r); err != nil {
		return err
	}
	if n := len(r.Problems); n > 0 {
		return fmt.Errorf("these figures do not count: %s", r.Problems[0])
	}
	return nil
}

// check completes the options, or tells what is wrong with them.
func (o *benchOptions) check() (err error) {
	o.limits.Late, o.limits.CPU = bench.DefaultLimits.Late, bench.DefaultLimits.CPU
	if err := checkOutput(o.output); err != nil {
		return err
	}
	if o.repeats < 1 {
		return fmt.Errorf("--repeats %d: must be at least 1", o.repeats)
	}
	if len(o.expect) > 0 && len(o.expect) != len(o.data) {
		return fmt.Errorf("%d --expect for %d --data: there must be one for each", len(o.expect), len(o.data))
	}
	if o.trace != "" {
		o.arrivals = "trace"
	}
	if o.arrivals == "trace" {
		return o.readTrace()
	}
	if !o.inFlightGiven {
		o.plan.InFlight = max(o.plan.InFlight, o.plan.Connections)
	}
	if len(o.rate) == 0 {
		o.plan.InFlight = o.plan.Connections
		return o.plan.Validate()
	}
	profile, err := o.profile()
	if err != nil {
		return err
	}
	o.plan.Arrivals = o.schedule(profile)
	return o.plan.Validate()
}

func (o *benchOptions) readTrace() error {
	f, err := os.Open(o.trace)
	if err != nil {
		return fmt.Errorf("--trace: %w", err)
	}
	defer f.Close()
	if o.recording, err = pace.ReadTrace(f); err != nil {
		return fmt.Errorf("--trace %s: %w", o.trace, err)
	}
	o.plan.WarmUp = 0
	if span, _ := o.recording.Span(); !o.durationSet {
		o.plan.Duration = max(span+time.Millisecond, time.Second)
	}
	o.plan.Arrivals = func() bench.Schedule { return o.recording.Again() }
	return o.plan.Validate()
}

// profile is the rates that are asked for, after a warm-up at the first of them.
func (o *benchOptions) profile() (list []pace.Segment, err error) {
	if o.plan.WarmUp > 0 && o.rate[0] > 0 {
		list = pace.Flat(o.rate[0], o.plan.WarmUp)
	}
	switch {
	case o.arrivals == "step":
		list = append(list, pace.Steps(o.rate, o.plan.Duration)...)
	case o.arrivals == "ramp" && len(o.rate) == 2:
		list = append(list, pace.Ramp(o.rate[0], o.rate[1], o.plan.Duration)...)
	case (o.arrivals == "poisson" || o.arrivals == "constant") && len(o.rate) == 1:
		list = append(list, pace.Flat(o.rate[0], o.plan.Duration)...)
	default:
		return nil, fmt.Errorf("--arrivals %s with %d rates: must be poisson or constant with one, step with some, ramp with two, or trace with --trace", o.arrivals, len(o.rate))
	}
	if o.rate[0] == 0 {
		o.plan.WarmUp = 0
	}
	return list, pace.Validate(list)
}

func (o *benchOptions) schedule(profile []pace.Segment) func() bench.Schedule {
	return func() bench.Schedule {
		if o.arrivals == "poisson" {
			return pace.Poisson(profile, 1)
		}
		return pace.Even(profile)
	}
}

// loop is how requests come, in words.
func (o *benchOptions) loop() string {
	often := fmt.Sprintf("%v after a warm-up of %v", o.plan.Duration, o.plan.WarmUp)
	if o.repeats > 1 {
		often += fmt.Sprintf(", %d rounds in turn", o.repeats)
	}
	if o.findMax {
		return fmt.Sprintf("highest rate with a 99th percentile of %v, %d connections, %s", o.p99, o.plan.Connections, often)
	}
	if o.plan.Arrivals == nil {
		return fmt.Sprintf("closed loop of %d connections, %s", o.plan.Connections, often)
	}
	if o.recording != nil {
		return "requests as recorded, " + often
	}
	return fmt.Sprintf("%s arrivals at %s per second, %s", o.arrivals, strings.Trim(fmt.Sprint(o.rate), "[]"), often)
}

func (o *benchOptions) checked() string {
	if len(o.expect) == 0 {
		return "answers were not compared: there was no --expect"
	}
	return "every answer was compared with what is expected"
}

// rounds asks the targets in turn.
func (o *benchOptions) rounds(ctx context.Context, targets []*benchTarget, r *report.Report) error {
	for round := range o.repeats {
		for i, t := range targets {
			res, err := o.ask(ctx, t, o.plan, round+1)
			if err != nil {
				return err
			}
			r.Targets[i].Results = append(r.Targets[i].Results, res)
		}
	}
	return nil
}

func (o *benchOptions) ask(ctx context.Context, t *benchTarget, plan bench.Plan, round int) (*bench.Result, error) {
	work := &load.Work{Dial: t.dial, Items: t.items, PIDs: t.processes()}
	if info, err := os.Stderr.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		work.Progress = func(p load.Progress) {
			fmt.Fprintf(os.Stderr, "\r\033[K%s, round %d: %.1f s, %d right, %d failed, p99 %v, %d connections, %d waiting", t.name, round, p.At.Seconds(), p.Right, p.Failed, p.P99.Round(10*time.Microsecond), p.Connections, p.Held)
		}
		defer fmt.Fprint(os.Stderr, "\r\033[K")
	}
	res, err := load.Run(ctx, plan, work)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.name, err)
	}
	res.Target, res.Round = t.name, round
	return res, nil
}

const halvings = 6 // of the span in which the highest rate is looked for

// most finds the highest rate of each target: between 0 and what a closed loop
// reaches, by halves. The figures are those at that rate.
func (o *benchOptions) most(ctx context.Context, targets []*benchTarget, r *report.Report) error {
	for i, t := range targets {
		closed := o.plan
		closed.Arrivals, closed.InFlight = nil, closed.Connections
		top, err := o.ask(ctx, t, closed, 0)
		if err != nil {
			return err
		}
		low, high, best := 0.0, 1.1*top.Rate, top
		for n := range halvings {
			rate := (low + high) / 2
			res, err := o.ask(ctx, t, o.at(rate), n+1)
			if err != nil {
				return err
			}
			if res.Latency.At(99) > o.p99 || len(res.Problems(o.limits)) > 0 {
				high = rate
				continue
			}
			low, best = rate, res
		}
		r.Targets[i].Max, r.Targets[i].Results = low, []*bench.Result{best}
		if low == 0 {
			r.Problems = append(r.Problems, fmt.Sprintf("%s: no rate keeps to a 99th percentile of %v; the figures are of a closed loop", t.name, o.p99))
		}
	}
	return nil
}

// at is the plan with Poisson arrivals at a rate.
func (o *benchOptions) at(rate float64) bench.Plan {
	plan := o.plan
	plan.InFlight = max(plan.InFlight, 4096)
	plan.Arrivals = func() bench.Schedule { return pace.Poisson(pace.Flat(rate, plan.WarmUp+plan.Duration), 1) }
	return plan
}

// write writes the report wherever it is wanted.
func (o *benchOptions) write(out io.Writer, r *report.Report) error {
	show := r.Text
	if o.output == "json" {
		show = r.JSON
	}
	if err := show(out); err != nil {
		return err
	}
	for _, f := range []struct {
		path  string
		write func(io.Writer) error
	}{{o.json, r.JSON}, {o.csv, r.CSV}, {o.html, r.HTML}} {
		if f.path == "" {
			continue
		}
		var b strings.Builder
		if err := f.write(&b); err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
		if err := os.WriteFile(f.path, []byte(b.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func names(targets []*benchTarget) (list []string) {
	for _, t := range targets {
		list = append(list, t.name)
	}
	return list
}

// command is a command line without its secrets.
func command(args []string) string {
	shown := slices.Clone(args)
	for i, a := range shown {
		for _, secret := range []string{"--key", "--header"} {
			if a == secret && i+1 < len(shown) {
				shown[i+1] = "…"
			} else if strings.HasPrefix(a, secret+"=") {
				shown[i] = secret + "=…"
			}
		}
	}
	return "sluice " + strings.Join(shown, " ")
}

func machine() string {
	return fmt.Sprintf("%s, %d cores, %d GB, %s", proc.Processor(), runtime.NumCPU(), proc.Memory()>>30, cmp.Or(proc.Kernel(), runtime.GOOS))
}
