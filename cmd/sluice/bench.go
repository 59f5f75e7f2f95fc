package main

import (
	"cmp"
	"context"
	"errors"
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
	rate                      []float64
	arrivals, trace           string
	plan                      bench.Plan
	repeats                   int
	protocol, authority       string
	data, expect, header, pid []string
	key, keyFile, tokenFile   string
	findMax, timing           bool
	p99                       time.Duration
	limits                    bench.Limits
	json, csv, html, output   string

	given    func(flag string) bool         // on the command line
	schedule func(round int) bench.Schedule // nil: a closed loop, or --find-max
}

func benchCommand() *cobra.Command {
	var o benchOptions
	c := &cobra.Command{
		Use: "bench [NAME=]URL …", Short: "Ask servers for scores at a rate or as fast as they can, and measure the answers", Args: cobra.MinimumNArgs(1),
		Long: `Ask servers for scores, and measure the answers.

Without --rate every connection asks as soon as it has its answer (a closed loop). With
it, requests come at that rate whatever is answered, and latency counts from when each
was due. Several targets are asked in turn, round after round, and compared: means
over the rounds with 95% confidence intervals, and ratios to the first target. With
--find-max each round looks for a target's highest rate: from what a closed loop
reaches by doubling or halving, then by bisection to 2%. A wrong answer ends that.

A URL is that of a model, such as http://127.0.0.1:8000/v2/models/digits, or of Azure
ML's scoring, /api/v1/service/digits/score; of gRPC it is grpc://HOST:PORT/MODEL[/VERSION].
Without --data, an input is made up from the model's metadata.

It exits with 1 where the figures do not count: an answer is not what --expect says,
more requests fail than --max-errors allows, this program itself was too slow, or the
test ended early, such as by an interrupt: what was measured until then is reported.`,
		Example: `  sluice bench http://127.0.0.1:8000/v2/models/digits --key-file .state/keys/digits
  sluice bench http://127.0.0.1:8000/v2/models/digits --key-file .state/keys/digits --rate 2000 --duration 30s --html report.html
  sluice bench old=http://127.0.0.1:8000/v2/models/digits new=http://127.0.0.1:9000/v2/models/digits --repeats 5`,
		RunE: func(c *cobra.Command, args []string) error {
			o.given = c.Flags().Changed
			return o.run(c, args)
		},
	}
	o.flags(c)
	return c
}

func (o *benchOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.Float64SliceVar(&o.rate, "rate", nil, "requests per second; several for --arrivals step (one after the other) and ramp (from,to); none for a closed loop")
	f.Lookup("rate").DefValue = ""
	f.StringVar(&o.arrivals, "arrivals", "poisson", "how requests come at --rate: poisson, constant, step or ramp")
	f.StringVar(&o.trace, "trace", "", "file of the times of requests to repeat, without a warm-up, one a line: seconds first, or JSON with a member time, such as an access log")
	f.IntVar(&o.plan.Connections, "connections", 32, "connections that are opened at the start")
	f.IntVar(&o.plan.InFlight, "in-flight", 4096, "most requests under way in an open loop, at least --connections; more wait, and their wait counts")
	f.DurationVar(&o.plan.Duration, "duration", 10*time.Second, "how long a round measures")
	f.DurationVar(&o.plan.WarmUp, "warm-up", time.Second, "how long a round asks before it measures")
	f.DurationVar(&o.plan.Timeout, "timeout", 30*time.Second, "how long a request may take")
	f.IntVar(&o.repeats, "repeats", 1, "rounds; intervals need at least 2")
	f.StringVar(&o.protocol, "protocol", "", "oip (JSON), binary (raw tensors), aml, http (any), grpc or grpc-stream; default by the URL")
	f.StringArrayVar(&o.data, "data", nil, "file of a request's body, or of a message of gRPC; given again, they are asked in turn")
	f.StringArrayVar(&o.expect, "expect", nil, "file of the right answer, one for each --data; whole numbers must be equal, floats may differ by 0.0001 of their size, or 0.000001 of the largest beside them (FP16 20, BF16 200 times that); of gRPC the outputs count")
	f.StringVar(&o.key, "key", "", "key or token; --key-file keeps it out of the process list")
	f.StringVar(&o.keyFile, "key-file", "", "file of the key")
	f.StringVar(&o.tokenFile, "token-file", "", "file of the token")
	f.StringArrayVar(&o.header, "header", nil, "further header, 'Name: value', which goes before our own of that name; may be given again")
	f.BoolVar(&o.timing, "timing", true, "ask Sluice how long each request waited and ran (x-sluice-timing: 1; not for http and grpc-stream); what that costs is in the figures")
	f.StringVar(&o.authority, "tls-ca", "", "file of the authority that signed the targets' certificates; default this machine's")
	f.StringArrayVar(&o.pid, "pid", nil, "process of a target, NAME=PID, or PID where there is one target: its CPU time and memory, with its children's, are reported; given again for a target, they are summed")
	f.BoolVar(&o.findMax, "find-max", false, "find the highest rate, of Poisson arrivals, at which --p99 is kept")
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
	if err := o.rounds(c.Context(), targets, r); err != nil {
		r.Targets = slices.DeleteFunc(r.Targets, func(t *report.Target) bool { return len(t.Results) == 0 })
		if len(r.Targets) == 0 {
			return err
		}
		r.Problems = append(r.Problems, fmt.Sprintf("the test ended early: %v", err))
	}
	o.remark(r)
	if err := o.write(c.OutOrStdout(), r); err != nil {
		return err
	}
	if n := len(r.Problems); n > 0 {
		return fmt.Errorf("these figures do not count: %s", r.Problems[0])
	}
	return nil
}

// remark adds what is to be said about the results.
func (o *benchOptions) remark(r *report.Report) {
	for _, t := range r.Targets {
		for _, res := range t.Results {
			at := fmt.Sprintf("%s, round %d: ", t.Name, res.Round)
			for _, p := range res.Problems(o.limits) {
				r.Problems = append(r.Problems, at+p)
			}
			if res.Most() > 0 && !res.Search.Client {
				r.Notes = append(r.Notes, at+"the highest rate is limited by this: "+res.Search.Limit)
			}
		}
	}
}

// beside says which flags say nothing, or contradict others.
var beside = []struct {
	flag  string
	needs []string // one of them
	not   []string
}{
	{flag: "arrivals", needs: []string{"rate"}},
	{flag: "p99", needs: []string{"find-max"}},
	{flag: "in-flight", needs: []string{"rate", "trace", "find-max"}},
	{flag: "expect", needs: []string{"data"}},
	{flag: "trace", not: []string{"rate", "warm-up"}},
	{flag: "find-max", not: []string{"rate", "trace"}},
	{flag: "key", not: []string{"key-file", "token-file"}},
	{flag: "key-file", not: []string{"token-file"}},
}

func checkBeside(given func(flag string) bool) error {
	for _, b := range beside {
		if !given(b.flag) {
			continue
		}
		if len(b.needs) > 0 && !slices.ContainsFunc(b.needs, given) {
			return fmt.Errorf("--%s has no effect without --%s", b.flag, strings.Join(b.needs, " or --"))
		}
		if i := slices.IndexFunc(b.not, given); i >= 0 {
			return fmt.Errorf("--%s and --%s do not go together: give one of them", b.flag, b.not[i])
		}
	}
	return nil
}

// check completes the options, or tells what is wrong with them.
func (o *benchOptions) check() (err error) {
	o.limits.Late, o.limits.CPU = bench.DefaultLimits.Late, bench.DefaultLimits.CPU
	if err := errors.Join(checkOutput(o.output), checkBeside(o.given)); err != nil {
		return err
	}
	if o.repeats < 1 {
		return fmt.Errorf("--repeats %d: must be at least 1", o.repeats)
	}
	if len(o.expect) > 0 && len(o.expect) != len(o.data) {
		return fmt.Errorf("%d --expect for %d --data: there must be one for each", len(o.expect), len(o.data))
	}
	if !o.given("in-flight") {
		o.plan.InFlight = max(o.plan.InFlight, o.plan.Connections)
	}
	switch {
	case o.trace != "":
		err = o.readTrace()
	case len(o.rate) > 0:
		err = o.readRates()
	case !o.findMax:
		o.plan.InFlight = o.plan.Connections
	}
	if err != nil {
		return err
	}
	return o.plan.Validate()
}

func (o *benchOptions) readTrace() error {
	f, err := os.Open(o.trace)
	if err != nil {
		return fmt.Errorf("--trace: %w", err)
	}
	defer f.Close()
	recording, err := pace.ReadTrace(f)
	if err != nil {
		return fmt.Errorf("--trace %s: %w", o.trace, err)
	}
	o.plan.WarmUp = 0
	if span, _ := recording.Span(); !o.given("duration") {
		o.plan.Duration = max(span+time.Millisecond, time.Second)
	}
	o.schedule = func(int) bench.Schedule { return recording.Again() }
	return nil
}

// readRates makes the schedule of --rate. Rounds differ in their Poisson arrivals,
// the targets of a round do not.
func (o *benchOptions) readRates() error {
	profile, err := o.profile()
	if err != nil {
		return err
	}
	o.schedule = func(round int) bench.Schedule {
		if o.arrivals == "poisson" {
			return pace.Poisson(profile, uint64(round))
		}
		return pace.Even(profile)
	}
	return nil
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
		return nil, fmt.Errorf("--arrivals %s with %d rates: must be poisson or constant with one, step with some, or ramp with two", o.arrivals, len(o.rate))
	}
	if o.rate[0] == 0 {
		o.plan.WarmUp = 0
	}
	return list, pace.Validate(list)
}

// loop is how requests come, in words.
func (o *benchOptions) loop() string {
	often := fmt.Sprintf("%v after a warm-up of %v", o.plan.Duration, o.plan.WarmUp)
	if o.repeats > 1 {
		often += fmt.Sprintf(", %d rounds in turn", o.repeats)
	}
	if o.findMax {
		return fmt.Sprintf("highest rate of Poisson arrivals with a 99th percentile of %v, %d connections, %s", o.p99, o.plan.Connections, often)
	}
	if o.schedule == nil {
		return fmt.Sprintf("closed loop of %d connections, %s", o.plan.Connections, often)
	}
	if o.trace != "" {
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

// rounds asks the targets in turn, until something ends that.
func (o *benchOptions) rounds(ctx context.Context, targets []*benchTarget, r *report.Report) error {
	measure := o.once
	if o.findMax {
		measure = o.most
	}
	for round := range o.repeats {
		for i, t := range targets {
			res, err := measure(ctx, t, round+1)
			if res != nil {
				r.Targets[i].Results = append(r.Targets[i].Results, res)
			}
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", t.name, round+1, err)
			}
		}
	}
	return nil
}

// once asks as the schedule says, or without one as fast as answers come.
func (o *benchOptions) once(ctx context.Context, t *benchTarget, round int) (*bench.Result, error) {
	plan := o.plan
	if o.schedule != nil {
		plan.Arrivals = func() bench.Schedule { return o.schedule(round) }
	}
	return o.ask(ctx, t, plan, round)
}

func (o *benchOptions) ask(ctx context.Context, t *benchTarget, plan bench.Plan, round int) (*bench.Result, error) {
	work := &load.Work{Dial: t.dial, Items: t.items, PIDs: t.pids}
	if info, err := os.Stderr.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		work.Progress = func(p load.Progress) {
			fmt.Fprintf(os.Stderr, "\r\033[K%s, round %d: %.1f s, %d right, %d failed, p99 %v, %d connections, %d waiting", t.name, round, p.At.Seconds(), p.Right, p.Failed, p.P99.Round(10*time.Microsecond), p.Connections, p.Held)
		}
		defer fmt.Fprint(os.Stderr, "\r\033[K")
	}
	res, err := load.Run(ctx, plan, work)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	res.Target, res.Round = t.name, round
	return res, nil
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
	list := []string{"sluice"}
	for i, a := range args {
		for _, secret := range []string{"--key", "--header"} {
			if i > 0 && args[i-1] == secret {
				a = "…"
			} else if strings.HasPrefix(a, secret+"=") {
				a = secret + "=…"
			}
		}
		list = append(list, shown(a))
	}
	return strings.Join(list, " ")
}

// shown is an argument without a URL's query, which may have a key in it.
func shown(arg string) string {
	if path, _, ok := strings.Cut(arg, "?"); ok && strings.Contains(path, "://") {
		return path + "?…"
	}
	return arg
}

func machine() string {
	return fmt.Sprintf("%s, %d cores, %d GB, %s", proc.Processor(), runtime.NumCPU(), proc.Memory()>>30, cmp.Or(proc.Kernel(), runtime.GOOS))
}
