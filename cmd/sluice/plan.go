package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/scorer/batch/sim"
)

// planCommand tells how many replicas a load needs.
func planCommand() *cobra.Command {
	var o planOptions
	c := &cobra.Command{
		Use: "plan --rate REQUESTS --p99 TIME {--model ENDPOINT/VERSION | --times ROWS=TIME,…}", Args: cobra.NoArgs,
		Short: "Tell how many replicas answer so many requests per second in time",
		Long: `Tell how many replicas answer so many requests per second, each of one row, with a
99th percentile of the latency of at most --p99 in the scorer. The rule that forms
batches in a server is played in virtual time to requests that come by chance. A
replica has 2% of its capacity left, so that its queue does not grow for ever.

How long runs take is asked of a running server (--model), or given (--times).`,
		Example: "  sluice plan --rate 3000 --p99 50ms --times 1=4ms,8=17ms --slots 2\n  sluice plan --rate 100000 --p99 5ms --model digits/mlp",
		RunE:    func(c *cobra.Command, _ []string) error { return o.run(c.Context(), c.OutOrStdout()) },
	}
	f := c.Flags()
	f.Float64Var(&o.rate, "rate", 0, "requests per second, of all replicas (required)")
	f.DurationVar(&o.p99, "p99", 0, "the longest 99th percentile of the latency (required)")
	o.flags(c)
	f.IntVar(&o.most, "max-replicas", 1000, "replicas after which to give up")
	f.StringVar(&o.plot, "plot", "", "SVG file of the 99th percentile by load of one replica, beside other rules")
	f.StringVarP(&o.output, "output", "o", "text", "text or json")
	return c
}

type planOptions struct {
	deviceOptions
	rate         float64
	p99          time.Duration
	plot, output string
	most         int
}

// planned is a plan as JSON; times are nanoseconds.
type planned struct {
	Replicas int          `json:"replicas"` // 0: not even --max-replicas do
	Slots    int          `json:"slots"`
	Limit    int          `json:"limit"`           // rows of a run
	Capacity float64      `json:"rows_per_second"` // of a replica, at most
	Tried    []plannedOne `json:"tried"`
}

type plannedOne struct {
	Replicas   int           `json:"replicas"`
	Load       float64       `json:"load"` // of the capacity
	Mean       time.Duration `json:"mean"`
	P99        time.Duration `json:"p99"`
	RowsPerRun float64       `json:"rows_per_run"`
}

func (o *planOptions) run(ctx context.Context, out io.Writer) error {
	if err := o.check(); err != nil {
		return err
	}
	d, err := o.device(ctx)
	if err != nil {
		return err
	}
	if lone := d.Mean(1); lone > o.p99 {
		return fmt.Errorf("a run of one row takes %v, longer than --p99 %v: no number of replicas helps", lone, o.p99)
	}
	if o.rate/d.Capacity() > float64(o.most) || sim.Fewest(d, o.rate) > o.most {
		return fmt.Errorf("%.0f requests per second keep %.0f replicas busy all the time; --max-replicas is %d", o.rate, math.Ceil(o.rate/d.Capacity()), o.most)
	}
	p := planned{Slots: d.Slots, Limit: d.Limit, Capacity: d.Capacity()}
	var tried []sim.Tried
	p.Replicas, tried = sim.Plan(d, o.rate, o.p99, o.most)
	for _, t := range tried {
		p.Tried = append(p.Tried, plannedOne{t.Replicas, t.Load, t.Mean, t.P99, t.RowsPerRun()})
	}
	if o.output == "json" {
		err = printJSON(out, p)
	} else {
		err = o.print(out, d, &p)
	}
	if err == nil && p.Replicas == 0 {
		err = fmt.Errorf("%d replicas do not answer %.0f requests per second within %v", o.most, o.rate, o.p99)
	}
	if err != nil || o.plot == "" {
		return err
	}
	c := sim.Compare("one replica", d, sim.Contenders(o.p99), sim.ByChance(d, []float64{0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95}, 20_000))
	if err := plotTo(o.plot, &c); err != nil || o.output == "json" {
		return err
	}
	return c.Write(out)
}

func (o *planOptions) check() error {
	if err := checkOutput(o.output); err != nil {
		return err
	}
	if o.p99 <= 0 || o.most < 1 {
		return fmt.Errorf("--p99 %v, --max-replicas %d: must be more than 0", o.p99, o.most)
	}
	return playable(o.rate)
}

// print writes p for people.
func (o *planOptions) print(out io.Writer, d sim.Device, p *planned) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, replica(d))
	fmt.Fprintf(w, "replicas\tload\tmean\tp99\trows per run\n")
	for _, t := range p.Tried {
		fmt.Fprintf(w, "%d\t%.2f\t%s\t%s\t%.1f\n", t.Replicas, t.Load, sim.Brief(t.Mean), sim.Brief(t.P99), t.RowsPerRun)
	}
	if p.Replicas > 0 {
		fmt.Fprintf(w, "%d replicas answer %.0f requests per second with a p99 of %s, without the network and the gateway.\n",
			p.Replicas, o.rate, sim.Brief(p.Tried[len(p.Tried)-1].P99))
	}
	return w.Flush()
}

// playable tells what is wrong with a rate: virtual time is in nanoseconds, and ends after 292 years.
func playable(perSecond float64) error {
	if perSecond >= 0.01 && perSecond <= 1e9 {
		return nil
	}
	return fmt.Errorf("--rate %v: must be 0.01 to 1e9 requests per second", perSecond)
}

// plotTo draws c into a file.
func plotTo(path string, c *sim.Compared) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write the plot: %w", err)
	}
	err = c.Plot(f)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("write the plot: %w", err)
	}
	return nil
}
