package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/bench/pace"
	"sluice.dev/scorer/batch/sim"
)

// simulateCommand plays requests to the rules that form batches.
func simulateCommand() *cobra.Command {
	var o simulateOptions
	c := &cobra.Command{
		Use: "simulate {--model ENDPOINT/VERSION | --times ROWS=TIME,…}", Args: cobra.NoArgs,
		Short: "Play requests to the rule that forms batches, and to others'",
		Long: `Play requests, each of one row, to the rule that forms batches in a server, and to
others': one by one, what waits, fixed delays, Triton's preferred sizes, Clipper's sizes
that grow and shrink. Time is virtual; the latency is that in a scorer of one replica.

Requests come by chance (poisson), in bursts, more and less over a day (daily), from
callers who ask again when they are answered (closed), or as recorded (--trace). Without
--rate there is a column for each of some parts of what the replica can do. Of 8 requests
at most, the best that any rule could do is searched, too.

A rule is overloaded where more and more requests wait: its times would grow on.`,
		Example: `  sluice simulate --times 1=4ms,8=17ms --slots 2
  sluice simulate --model digits/mlp --arrivals bursts --burst 50 --rate 1000,2000,4000 --plot bursts.svg
  sluice simulate --model digits/mlp --trace access.log
  sluice simulate --times 1=4ms,8=17ms --requests 6 --rate 500`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(c.Flags().Changed); err != nil {
				return err
			}
			return o.run(c.Context(), c.OutOrStdout())
		},
	}
	o.flags(c)
	_ = c.RegisterFlagCompletionFunc("arrivals", cobra.FixedCompletions(arrivalKinds, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	return c
}

type simulateOptions struct {
	deviceOptions
	arrivals, trace         string
	rate                    []float64
	callers                 []int
	burst, requests         int
	period, think, deadline time.Duration
	p99                     time.Duration
	plot, output            string
	bounded                 bool // by --requests, not by its default
}

// arrivalKinds are how requests may come, without a recording.
var arrivalKinds = []string{"poisson", "bursts", "daily", "closed"}

const (
	maxRequests = 10_000_000 // of all columns: a few hundred bytes each
	maxColumns  = 100
)

// loads are parts of the capacity at which requests come where no rate is given.
var loads = []float64{0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95}

// columns is how many loads there are.
func (o *simulateOptions) columns() int {
	switch {
	case len(o.rate) > 0:
		return len(o.rate)
	case o.trace != "":
		return 1
	case o.arrivals == "closed":
		return len(o.callers)
	}
	return len(loads)
}

func (o *simulateOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.arrivals, "arrivals", "poisson", "how requests come: "+strings.Join(arrivalKinds, ", "))
	f.StringVar(&o.trace, "trace", "", "file of the times of requests, as for 'sluice bench': seconds first on each line, or JSON with a member time, such as an access log")
	f.Float64SliceVar(&o.rate, "rate", nil, "requests per second, several for a column each; those of --trace are stretched to it")
	f.Lookup("rate").DefValue = ""
	f.IntVar(&o.requests, "requests", 20_000, "requests of each column, and most of --trace, of which it is all by default")
	f.IntSliceVar(&o.callers, "callers", []int{1, 8, 64}, "callers of --arrivals closed, several for a column each")
	f.DurationVar(&o.think, "think", 0, "how long a caller takes from an answer to the next request")
	f.IntVar(&o.burst, "burst", 20, "requests of a burst, in the mean")
	f.DurationVar(&o.period, "period", 0, "how long a day is; default a quarter of the time in which the requests come")
	f.DurationVar(&o.deadline, "deadline", 0, "after which a request is missed; default a minute")
	f.DurationVar(&o.p99, "p99", 0, "how long a run may take by Clipper's rule; default 10 runs of one row")
	o.deviceOptions.flags(c)
	f.StringVar(&o.plot, "plot", "", "SVG file of the 99th percentile by column, or, of one column, of all percentiles")
	f.StringVarP(&o.output, "output", "o", "text", "text or json")
}

// check tells what is wrong with the flags, and which of those that are given do nothing.
func (o *simulateOptions) check(given func(flag string) bool) error {
	if err := checkOutput(o.output); err != nil {
		return err
	}
	kind := o.arrivals
	if o.trace != "" {
		kind = "trace"
	} else if !slices.Contains(arrivalKinds, kind) {
		return fmt.Errorf("--arrivals %s: must be one of %s; a recording is named with --trace", kind, strings.Join(arrivalKinds, ", "))
	}
	for flag, of := range map[string]string{
		"arrivals": "poisson bursts daily closed", "rate": "poisson bursts daily trace", "callers": "closed", "think": "closed", "burst": "bursts", "period": "daily",
	} {
		if given(flag) && !slices.Contains(strings.Fields(of), kind) {
			return fmt.Errorf("--%s has no effect on requests that come by %s", flag, kind)
		}
	}
	o.bounded = given("requests")
	return o.bounds()
}

// bounds tells which number is too small or too large.
func (o *simulateOptions) bounds() error {
	switch {
	case o.columns() < 1 || o.columns() > maxColumns:
		return fmt.Errorf("--rate and --callers must have 1 to %d values", maxColumns)
	case o.requests < 1 || o.requests > maxRequests/o.columns():
		return fmt.Errorf("--requests %d: must be 1 to %d, in %d columns", o.requests, maxRequests/o.columns(), o.columns())
	case o.burst < 1 || o.burst > maxRequests:
		return fmt.Errorf("--burst %d: must be 1 to %d", o.burst, maxRequests)
	case min(o.period, o.think, o.deadline, o.p99) < 0:
		return fmt.Errorf("--period, --think, --deadline and --p99 must not be negative")
	case max(o.think, o.deadline) > 24*time.Hour:
		return fmt.Errorf("--think and --deadline must be a day at most")
	}
	for _, r := range o.rate {
		if err := playable(r); err != nil {
			return err
		}
	}
	for _, n := range o.callers {
		if o.arrivals == "closed" && (n < 1 || n > o.requests) {
			return fmt.Errorf("--callers %d: must be 1 to the number of --requests", n)
		}
	}
	return nil
}

func (o *simulateOptions) run(ctx context.Context, out io.Writer) error {
	d, err := o.device(ctx)
	if err != nil {
		return err
	}
	cases, err := o.cases(d)
	if err != nil {
		return err
	}
	c := sim.Compare("one replica", d, sim.Contenders(o.p99), cases)
	if o.plot != "" {
		if err := plotTo(o.plot, &c); err != nil {
			return err
		}
	}
	if o.output == "json" {
		return printJSON(out, simulated(d, &c))
	}
	fmt.Fprintln(out, replica(d))
	return c.Write(out)
}

// cases are the loads that are asked for.
func (o *simulateOptions) cases(d sim.Device) (list []sim.Case, err error) {
	switch {
	case o.trace != "":
		list, err = o.recorded()
	case o.arrivals == "closed":
		for _, n := range o.callers {
			list = append(list, sim.Case{Name: fmt.Sprintf("%d callers", n), At: float64(n),
				Load: sim.Load{Callers: n, Think: o.think, Requests: o.requests, Skip: o.requests / 20, Deadline: o.deadline}})
		}
	case len(o.rate) == 0:
		for _, load := range loads {
			list = append(list, sim.Case{Name: fmt.Sprintf("load %.2f", load), At: load, Load: o.load(load * d.Capacity())})
		}
	default:
		for _, rate := range o.rate {
			list = append(list, sim.Case{Name: perSecond(rate), At: rate, Load: o.load(rate)})
		}
	}
	for i := range list {
		for k := range list[i].Load.Arrivals {
			list[i].Load.Arrivals[k].Deadline = o.deadline
		}
	}
	return list, err
}

func perSecond(rate float64) string { return fmt.Sprintf("%.4g per second", rate) }

// load is made-up requests at a rate.
func (o *simulateOptions) load(rate float64) sim.Load {
	l := sim.Load{Skip: o.requests / 20}
	switch o.arrivals {
	case "bursts":
		l.Arrivals = sim.Bursts(rate, o.burst, o.requests, 1)
	case "daily":
		quarter := time.Duration(float64(o.requests) / rate / 4 * float64(time.Second))
		l.Arrivals = sim.Daily(rate, cmp.Or(o.period, max(quarter, 1)), o.requests, 1)
	default:
		l.Arrivals = sim.Poisson(rate, o.requests, 1)
	}
	return l
}

// recorded is the trace as it is, or stretched to each rate.
func (o *simulateOptions) recorded() (list []sim.Case, err error) {
	times, err := o.readTrace()
	if err != nil {
		return nil, err
	}
	own := float64(len(times)) / max(times[len(times)-1], 1).Seconds()
	if len(o.rate) == 0 {
		return []sim.Case{{Name: "as recorded", At: own, Load: stretched(times, 1)}}, nil
	}
	if times[len(times)-1] == 0 {
		return nil, fmt.Errorf("--trace %s: all requests come at once, so that --rate has no effect", o.trace)
	}
	for _, rate := range o.rate {
		list = append(list, sim.Case{Name: perSecond(rate), At: rate, Load: stretched(times, own/rate)})
	}
	return list, nil
}

func (o *simulateOptions) readTrace() (times []time.Duration, err error) {
	f, err := os.Open(o.trace)
	if err != nil {
		return nil, fmt.Errorf("--trace: %w", err)
	}
	defer f.Close()
	t, err := pace.ReadTrace(f)
	if err != nil {
		return nil, fmt.Errorf("--trace %s: %w", o.trace, err)
	}
	for at, ok := t.Next(); ok && (!o.bounded || len(times) < o.requests); at, ok = t.Next() {
		if len(times) == maxRequests/o.columns() {
			return nil, fmt.Errorf("--trace %s has more than %d requests, in %d columns; play the first ones with --requests", o.trace, len(times), o.columns())
		}
		times = append(times, at)
	}
	return times, nil
}

// stretched is a load of requests at times, times as far apart.
func stretched(times []time.Duration, factor float64) (l sim.Load) {
	for _, at := range times {
		l.Arrivals = append(l.Arrivals, sim.Arrival{At: time.Duration(float64(at) * factor), Rows: 1})
	}
	return l
}

// simulation is a comparison as JSON; times are nanoseconds.
type simulation struct {
	Slots    int            `json:"slots"`
	Limit    int            `json:"limit"`           // rows of a run
	Capacity float64        `json:"rows_per_second"` // at most
	Results  []simulatedOne `json:"results"`
}

type simulatedOne struct {
	Rule       string        `json:"rule"`
	Case       string        `json:"case"`
	At         float64       `json:"at"` // of the capacity, requests per second, or callers
	Overloaded bool          `json:"overloaded"`
	Requests   int           `json:"requests"` // that count
	Missed     int           `json:"missed"`
	Mean       time.Duration `json:"mean"`
	P50        time.Duration `json:"p50"`
	P99        time.Duration `json:"p99"`
	RowsPerRun float64       `json:"rows_per_run"`
	Rate       float64       `json:"rows_per_second"`
}

func simulated(d sim.Device, c *sim.Compared) simulation {
	s := simulation{Slots: d.Slots, Limit: d.Limit, Capacity: d.Capacity()}
	for i, rule := range c.Rules {
		for k := range c.Cases {
			r := &c.Cells[i][k]
			s.Results = append(s.Results, simulatedOne{rule, c.Cases[k].Name, c.Cases[k].At, r.Overloaded, r.Requests, r.Missed, r.Mean, r.P50, r.P99, r.RowsPerRun(), r.Rate})
		}
	}
	return s
}
