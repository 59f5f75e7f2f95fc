package sim

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"sluice.dev/scorer/batch"
)

// Contender is a rule by name.
type Contender struct {
	Name string
	New  func(Device) Rule
}

// Contenders are the rule that serves and what others do.
func Contenders() []Contender {
	triton := func(delay time.Duration, preferred ...int) func(Device) Rule {
		return func(d Device) Rule {
			return Ours(d, &batch.Policy{Fixed: true, Delay: delay, Preferred: preferred})
		}
	}
	return []Contender{
		{"Sluice", func(d Device) Rule { return Ours(d, nil) }},
		{"one by one", func(d Device) Rule { d.Limit = 1; return Ours(d, &batch.Policy{Fixed: true}) }},
		{"what waits", triton(0)},
		{"delay 1 ms", triton(time.Millisecond)},
		{"delay 5 ms", triton(5 * time.Millisecond)},
		{"Triton, preferred 4 and 8, 1 ms", triton(time.Millisecond, 4, 8)},
		{"Clipper, 10 runs of one row", func(d Device) Rule { return &Clipper{Objective: 10 * d.Time(1)} }},
	}
}

// Compared is a table of how rules do on a device, by load.
type Compared struct {
	Title string
	Loads []float64 // arrivals by capacity
	Rules []string
	Cells [][]Result // by rule, then load
}

// Capacity is the most rows per second that a device can do.
func (d Device) Capacity() float64 {
	best := 0.0
	for _, p := range d.points() {
		best = math.Max(best, float64(p.Rows)/p.Time.Seconds())
	}
	return best * float64(max(d.Slots, 1))
}

// Compare plays n requests that come by chance at each load to every rule.
func Compare(title string, d Device, rules []Contender, loads []float64, n int) Compared {
	c := Compared{Title: title, Loads: loads, Cells: make([][]Result, len(rules))}
	for i, rule := range rules {
		c.Rules = append(c.Rules, rule.Name)
		for _, load := range loads {
			l := Load{Arrivals: Poisson(load*d.Capacity(), n, 1), Skip: n / 20}
			c.Cells[i] = append(c.Cells[i], Play(d, rule.New(d), l, 1))
		}
	}
	return c
}

// Write writes the table: mean and 99th percentile of the latency.
func (c *Compared) Write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s\t", c.Title)
	for _, l := range c.Loads {
		fmt.Fprintf(w, "load %.2f\t", l)
	}
	fmt.Fprintln(w)
	for i, name := range c.Rules {
		fmt.Fprintf(w, "%s\t", name)
		for _, r := range c.Cells[i] {
			fmt.Fprintf(w, "%s / %s\t", short(r.Mean), short(r.P99))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// short is a time with three digits.
func short(d time.Duration) string {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit).String()
}

// Plot draws the 99th percentile over the load as SVG, times in powers of ten.
func (c *Compared) Plot(out io.Writer) error {
	const width, height, left, bottom = 720, 420, 70, 40
	low, high := math.Inf(1), 0.0
	for _, row := range c.Cells {
		low = math.Min(low, float64(row[0].P99))
	}
	low, high = math.Floor(math.Log10(low)), math.Ceil(math.Log10(low))+3
	x := func(load float64) float64 { return left + load*(width-left-220) }
	y := func(d time.Duration) float64 {
		share := (math.Log10(math.Max(float64(d), 1)) - low) / (high - low)
		return (height - bottom) * (1 - math.Max(0, math.Min(share, 1)))
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -30 %d %d" font-family="sans-serif" font-size="12">`, width, height+30)
	fmt.Fprintf(&b, `<text x="%d" y="-12" font-size="14">%s: 99th percentile of the latency by load</text>`, left, c.Title)
	for p := low; p <= high; p++ {
		at := time.Duration(math.Pow(10, p))
		fmt.Fprintf(&b, `<path d="M%d %.1fH%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%v</text>`, left, y(at), x(1), left-6, y(at)+4, at)
	}
	for _, l := range c.Loads {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%.2f</text>`, x(l), height-bottom+18, l)
	}
	colours := []string{"#c00", "#888", "#06c", "#090", "#a60", "#609", "#0aa", "#444"}
	for i, row := range c.Cells {
		var points strings.Builder
		for k, r := range row {
			fmt.Fprintf(&points, "%.1f,%.1f ", x(c.Loads[k]), y(r.P99))
		}
		colour := colours[i%len(colours)]
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="%d"/>`, points.String(), colour, map[bool]int{true: 3, false: 1}[i == 0])
		fmt.Fprintf(&b, `<text x="%d" y="%d" fill="%s">%s</text>`, width-205, 20+18*i, colour, c.Rules[i])
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(out, b.String())
	return err
}

// Plan is how many replicas answer so many requests per second with a 99th
// percentile of at most p99; 0 if as many as most do not. The results are
// those of a replica, by how many there are, from one on.
func Plan(d Device, perSecond float64, p99 time.Duration, most int) (replicas int, tried []Result) {
	const n = 20_000
	first := max(int(perSecond/d.Capacity()), 1) // fewer cannot
	for k := first; k <= most; k++ {
		r := Play(d, Ours(d, nil), Load{Arrivals: Poisson(perSecond/float64(k), n, uint64(k)), Skip: n / 20}, uint64(k))
		tried = append(tried, r)
		if r.P99 <= p99 && r.Missed == 0 {
			return k, tried
		}
	}
	return 0, tried
}
