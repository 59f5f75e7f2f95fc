package sim

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"

	"sluice.dev/scorer/batch"
)

// Contender is a rule by name.
type Contender struct {
	Name string
	New  func(Device) Rule
}

// Contenders are the rule that serves and what others do. objective is that of a run of
// Clipper's rule; 0 is 10 runs of one row.
func Contenders(objective time.Duration) []Contender {
	triton := func(delay time.Duration, preferred ...int) func(Device) Rule {
		return func(d Device) Rule {
			return Ours(d, &batch.Policy{Fixed: true, Delay: delay, Preferred: preferred})
		}
	}
	clipper := "Clipper, 10 runs of one row"
	if objective > 0 {
		clipper = fmt.Sprintf("Clipper, runs of %v", objective)
	}
	return []Contender{
		{"Sluice", func(d Device) Rule { return Ours(d, nil) }},
		{"one by one", func(d Device) Rule { d.Limit = 1; return Ours(d, &batch.Policy{Fixed: true}) }},
		{"what waits", triton(0)},
		{"delay 1 ms", triton(time.Millisecond)},
		{"delay 5 ms", triton(5 * time.Millisecond)},
		{"Triton, preferred 4 and 8, 1 ms", triton(time.Millisecond, 4, 8)},
		{clipper, func(d Device) Rule {
			return &Clipper{Objective: cmp.Or(objective, 10*d.Time(1)), Limit: d.Limit}
		}},
	}
}

// Case is a load by name, and where it is on the axis of a plot.
type Case struct {
	Name string
	At   float64
	Load Load
}

// Compared is a table of how rules do on a device, by load.
type Compared struct {
	Title string
	Cases []Case
	Rules []string
	Cells [][]Result // by rule, then case
}

// Capacity is the most rows per second that a device can do.
func (d Device) Capacity() float64 {
	best := 0.0
	for n := 1; n <= d.Limit; n++ {
		best = math.Max(best, float64(n)/d.Mean(n).Seconds())
	}
	return best * float64(max(d.Slots, 1))
}

// ByChance are cases of n requests that come by chance, by parts of d's capacity.
func ByChance(d Device, loads []float64, n int) (list []Case) {
	for _, load := range loads {
		list = append(list, Case{fmt.Sprintf("load %.2f", load), load, Load{Arrivals: Poisson(load*d.Capacity(), n, 1), Skip: n / 20}})
	}
	return list
}

// Compare plays every case to every rule. Where each has so few requests that it can be
// searched the optimum is there, too, and runs take what they take in the mean, as for it.
func Compare(title string, d Device, rules []Contender, cases []Case) Compared {
	few := !slices.ContainsFunc(cases, func(c Case) bool { return !c.Load.few() })
	if few {
		d.Time, d.Noise = d.Mean, 0
	}
	c := Compared{Title: title, Cases: cases, Cells: make([][]Result, len(rules))}
	for i, rule := range rules {
		c.Rules = append(c.Rules, rule.Name)
		for k := range cases {
			c.Cells[i] = append(c.Cells[i], Play(d, rule.New(d), cases[k].Load, 1))
		}
	}
	if few {
		c.Rules = append(c.Rules, "optimum of the mean")
		row := make([]Result, len(cases))
		for k := range cases {
			row[k] = Optimum(d, cases[k].Load.Arrivals)
		}
		c.Cells = append(c.Cells, row)
	}
	return c
}

// few reports whether the optimum of l can be searched.
func (l *Load) few() bool {
	return l.Callers == 0 && len(l.Arrivals) <= Few && !slices.ContainsFunc(l.Arrivals, func(a Arrival) bool { return a.Rows > 1 })
}

// Write writes the table: mean and 99th percentile of the latency by case, or, of one case,
// more about it.
func (c *Compared) Write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	if len(c.Cases) == 1 {
		c.one(w)
		return w.Flush()
	}
	fmt.Fprintf(w, "%s, mean / p99\t", c.Title)
	for i := range c.Cases {
		fmt.Fprintf(w, "%s\t", c.Cases[i].Name)
	}
	fmt.Fprintln(w)
	for i, name := range c.Rules {
		fmt.Fprintf(w, "%s\t", name)
		for _, r := range c.Cells[i] {
			fmt.Fprintf(w, "%s\t", r.short())
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// short is a cell of a table of several cases.
func (r *Result) short() string {
	switch {
	case r.Overloaded:
		return "overloaded"
	case len(r.Latencies) == 0:
		return "all missed"
	case r.Missed > 0:
		return fmt.Sprintf("%s / %s, %.1f%% missed", Brief(r.Mean), Brief(r.P99), 100*float64(r.Missed)/float64(r.Requests))
	}
	return Brief(r.Mean) + " / " + Brief(r.P99)
}

// one writes the table of one case.
func (c *Compared) one(w io.Writer) {
	fmt.Fprintf(w, "%s, %s\tmean\tp50\tp99\tmissed\trows per run\trows per second\t\n", c.Title, c.Cases[0].Name)
	for i, name := range c.Rules {
		r := &c.Cells[i][0]
		if r.Overloaded {
			name += " (overloaded)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%.1f\t%.0f\t\n", name, r.brief(r.Mean), r.brief(r.P50), r.brief(r.P99), r.Missed, r.RowsPerRun(), r.Rate)
	}
}

// brief is one of r's times, where it has any.
func (r *Result) brief(d time.Duration) string {
	if len(r.Latencies) == 0 {
		return "–"
	}
	return Brief(d)
}

// Brief is a time with three digits.
func Brief(d time.Duration) string {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit).String()
}

// Busy is the part of its capacity that a replica may need: beyond it a queue grows for long.
const Busy = 0.98

// Tried is how a replica does, where there are so many.
type Tried struct {
	Replicas int
	Load     float64 // of its capacity
	Result
}

// Plan is how many replicas answer so many requests per second with a 99th
// percentile of at most p99; 0 if as many as most do not. Tried are all numbers from
// the fewest on that have the capacity.
func Plan(d Device, perSecond float64, p99 time.Duration, most int) (replicas int, tried []Tried) {
	for k := Fewest(d, perSecond); k <= most; k++ {
		own := perSecond / float64(k)
		n := requests(own, p99)
		r := Play(d, Ours(d, nil), Load{Arrivals: Poisson(own, n, uint64(k)), Skip: n / 20}, uint64(k))
		tried = append(tried, Tried{k, own / d.Capacity(), r})
		if r.P99 <= p99 && r.Missed == 0 && !r.Overloaded {
			return k, tried
		}
	}
	return 0, tried
}

// Fewest is how many replicas have the capacity.
func Fewest(d Device, perSecond float64) int {
	return max(int(math.Ceil(perSecond/(Busy*d.Capacity()))), 1)
}

// requests is how many are played: for so long that a queue which is as long as p99 allows
// would show. With the capacity to spare none that needs more than the most gets that long.
func requests(perSecond float64, p99 time.Duration) int {
	const least, most = 20_000, 1_000_000
	return int(min(max(least, 100*p99.Seconds()*perSecond), most))
}
