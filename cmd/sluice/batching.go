package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/scorer/batch"
	"sluice.dev/scorer/batch/sim"
	"sluice.dev/scorer/model"
)

// explainCommand tells why batches are as they are.
func explainCommand() *cobra.Command {
	c := &cobra.Command{Use: "explain", Short: "Tell why a running server does what it does"}
	var from, output string
	batching := &cobra.Command{
		Use: "batching [ENDPOINT[/VERSION]]", Short: "What runs of models cost, and why the last batches have the size that they have", Args: cobra.MaximumNArgs(1),
		Example: "  sluice explain batching\n  sluice explain batching digits/mlp",
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			list, err := explained(c.Context(), from, strings.Join(args, ""))
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(c.OutOrStdout(), list)
			}
			for i := range list {
				if err := explain(c.OutOrStdout(), &list[i]); err != nil {
					return err
				}
			}
			return nil
		},
	}
	batching.Flags().StringVar(&from, "metrics", "127.0.0.1:8002", "address of the metrics of the server, or scorer, that runs the models")
	batching.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	c.AddCommand(batching)
	return c
}

// explained asks a running server about its versions: all, or those that name says,
// an endpoint or an endpoint and a version.
func explained(ctx context.Context, address, name string) (list []model.Explained, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/batching", nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", address, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w; is a server there, and is this the address of its --metrics?", address, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s; is it the address of --metrics of a process that runs models?", address, resp.Status)
	}
	var all []model.Explained
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<20)).Decode(&all); err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", address, err)
	}
	for _, e := range all {
		if name == "" || name == e.Endpoint || name == e.Endpoint+"/"+e.Version {
			list = append(list, e)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s serves no %s", address, cmp.Or(name, "model"))
	}
	return list, nil
}

// explain prints what is known of one version.
func explain(out io.Writer, e *model.Explained) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s/%s on %s, %d runs side by side: %d rows per run at most, %.0f rows per second arrive, %d requests wait; the device worked %v for it, and %d times it paid to wait for more requests\n",
		e.Endpoint, e.Version, e.Device, e.Slots, e.Limit, e.RowsPerSecond, e.Waiting, e.Used.Round(time.Millisecond), e.Waits)
	if len(e.Policy) > 0 {
		fmt.Fprintf(w, "  policy: %s\n", strings.Join(e.Policy, "; "))
	}
	for _, s := range e.Shapes {
		title := "rows"
		if len(s.Dims) > 0 {
			title = fmt.Sprintf("rows of %v", s.Dims)
		}
		fmt.Fprintf(w, "  %s\ttime\tspread\trows per second\truns\n", title)
		for _, p := range s.Curve {
			best := ""
			if p.Rows == s.Best {
				best = "\t<- best"
			}
			fmt.Fprintf(w, "  %d\t%v\t%v\t%.0f\t%.0f%s\n", p.Rows, p.Time.Round(100), p.Spread.Round(100), float64(p.Rows)/p.Time.Seconds(), p.Runs, best)
		}
	}
	if len(e.Last) > 0 {
		fmt.Fprintf(w, "  last runs: waiting\trows\tbecause\texpected\trefused\n")
	}
	for _, d := range e.Last {
		why, _ := d.Reason.MarshalText() // cannot fail
		fmt.Fprintf(w, "  %d\t%d\t%s\t%v\t%d\n", d.Waiting, d.Rows, why, d.Expected.Round(100), d.Late)
	}
	return w.Flush()
}

// planCommand tells how many replicas a load needs.
func planCommand() *cobra.Command {
	var o planOptions
	c := &cobra.Command{
		Use: "plan --rate REQUESTS --p99 TIME {--model ENDPOINT/VERSION | --times ROWS=TIME,…}", Args: cobra.NoArgs,
		Short: "Tell how many replicas answer so many requests per second in time",
		Long: `Tell how many replicas answer so many requests per second, each of one row, with a
99th percentile of the latency of at most --p99 in the scorer. The rule that forms
batches in a server is played in virtual time to requests that come by chance.

How long runs take is asked of a running server (--model), or given (--times).`,
		Example: "  sluice plan --rate 3000 --p99 50ms --times 1=4ms,8=17ms --slots 2\n  sluice plan --rate 100000 --p99 5ms --model digits/mlp",
		RunE:    func(c *cobra.Command, _ []string) error { return o.run(c.Context(), c.OutOrStdout()) },
	}
	f := c.Flags()
	f.Float64Var(&o.rate, "rate", 0, "requests per second, of all replicas (required)")
	f.DurationVar(&o.p99, "p99", 0, "the longest 99th percentile of the latency (required)")
	f.StringVar(&o.model, "model", "", "ENDPOINT/VERSION that a running server has served for a while")
	f.StringVar(&o.from, "metrics", "127.0.0.1:8002", "address of that server's metrics")
	f.StringVar(&o.times, "times", "", "run times by rows, such as 1=4ms,8=17ms; linear in between and beyond")
	f.IntVar(&o.slots, "slots", 0, "runs side by side in a replica, such as its cores; default the running server's, else 1")
	f.IntVar(&o.most, "max-replicas", 1000, "replicas after which to give up")
	f.StringVar(&o.plot, "plot", "", "SVG file of the 99th percentile by load of one replica, beside other rules")
	return c
}

type planOptions struct {
	rate                     float64
	p99                      time.Duration
	model, from, times, plot string
	slots, most              int
}

func (o *planOptions) run(ctx context.Context, out io.Writer) error {
	if o.rate <= 0 || o.p99 <= 0 || (o.model == "") == (o.times == "") {
		return fmt.Errorf("--rate and --p99 must be more than 0, and exactly one of --model and --times must be given")
	}
	d, err := o.device(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "One replica of %d slots does %.0f rows per second at most.\n", d.Slots, d.Capacity())
	if lone := d.Time(1); lone > o.p99 {
		return fmt.Errorf("a run of one row takes %v, longer than --p99 %v: no number of replicas helps", lone, o.p99)
	}
	if n := o.rate / d.Capacity(); n > float64(o.most) {
		return fmt.Errorf("%.0f replicas would be busy all the time, more than --max-replicas %d", n, o.most)
	}
	replicas, tried := sim.Plan(d, o.rate, o.p99, o.most)
	first := max(int(o.rate/d.Capacity()), 1)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "replicas\tload\tmean\tp99\trows per run\n")
	for i, r := range tried {
		k := first + i
		fmt.Fprintf(w, "%d\t%.2f\t%v\t%v\t%.1f\n", k, o.rate/float64(k)/d.Capacity(), r.Mean.Round(10*time.Microsecond), r.P99.Round(10*time.Microsecond), r.RowsPerRun())
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if replicas == 0 {
		return fmt.Errorf("%d replicas do not answer %.0f requests per second within %v", o.most, o.rate, o.p99)
	}
	fmt.Fprintf(out, "%d replicas answer %.0f requests per second with a p99 of %v, without the network and the gateway.\n",
		replicas, o.rate, tried[len(tried)-1].P99.Round(10*time.Microsecond))
	return o.draw(d, out)
}

// device is what a replica is.
func (o *planOptions) device(ctx context.Context) (d sim.Device, err error) {
	d = sim.Device{Slots: max(o.slots, 1), Limit: 64, Learn: true, Noise: 0.05}
	var points []batch.Point
	if o.times != "" {
		points, err = parseTimes(o.times)
	} else {
		var list []model.Explained
		if list, err = explained(ctx, o.from, o.model); err == nil {
			points, err = o.learnt(list, &d)
		}
	}
	if err != nil {
		return d, err
	}
	var rows []int
	var took []time.Duration
	for _, p := range points {
		rows, took = append(rows, p.Rows), append(took, p.Time)
	}
	d.Time = sim.Times(rows, took)
	return d, nil
}

// learnt is what a server knows of the version, for the shape that has run most.
func (o *planOptions) learnt(list []model.Explained, d *sim.Device) ([]batch.Point, error) {
	if len(list) > 1 {
		return nil, fmt.Errorf("--model %s names %d versions; name one, as ENDPOINT/VERSION", o.model, len(list))
	}
	e := &list[0]
	if o.slots == 0 {
		d.Slots = e.Slots
	}
	d.Limit = e.Limit
	var points []batch.Point
	most := -1.0
	for _, s := range e.Shapes {
		runs := 0.0
		for _, p := range s.Curve {
			runs += p.Runs
		}
		if runs > most {
			points, most = s.Curve, runs
		}
	}
	if points == nil {
		return nil, fmt.Errorf("%s has not run yet; send it requests, or give --times", o.model)
	}
	return points, nil
}

// parseTimes reads run times by rows.
func parseTimes(text string) (points []batch.Point, err error) {
	last := 0
	for _, part := range strings.Split(text, ",") {
		left, right, _ := strings.Cut(part, "=")
		rows, err := strconv.Atoi(left)
		took, err2 := time.ParseDuration(right)
		if err != nil || err2 != nil || rows <= last || took <= 0 {
			return nil, fmt.Errorf("--times %s: must be rows and times, smallest first, such as 1=4ms,8=17ms", text)
		}
		last = rows
		points = append(points, batch.Point{Rows: rows, Time: took})
	}
	return points, nil
}

// draw writes the plot, if it is wanted, and the table beside it.
func (o *planOptions) draw(d sim.Device, out io.Writer) error {
	if o.plot == "" {
		return nil
	}
	c := sim.Compare("one replica", d, sim.Contenders(), []float64{0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95}, 20_000)
	f, err := os.Create(o.plot)
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
	return c.Write(out)
}
