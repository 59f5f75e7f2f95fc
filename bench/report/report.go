// Package report writes down what was measured: as text, JSON, CSV, or a page that
// needs nothing else.
package report

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"sluice.dev/bench"
	"sluice.dev/bench/stats"
)

// Report is everything about a load test.
type Report struct {
	Title   string    `json:"title"`
	Command string    `json:"command"`
	When    time.Time `json:"when"`
	Machine string    `json:"machine"` // processor, cores, memory, operating system
	Loop    string    `json:"loop"`    // how requests came
	Checked string    `json:"checked"` // what answers were compared with
	Targets []*Target `json:"targets"`
	// Problems are why the figures do not count, by target.
	Problems []string `json:"problems"`
	Notes    []string `json:"notes,omitempty"` // what else is to be said
}

// Target is one that was asked, and what its rounds found.
type Target struct {
	Name    string          `json:"name"`
	Results []*bench.Result `json:"rounds"`
}

// version is what a version of a target answered, in all rounds.
type version struct {
	name string
	*bench.Series
}

// versions are those that answered, where there are several.
func (t *Target) versions() (list []version) {
	sums := map[string]*bench.Series{}
	for _, r := range t.Results {
		for name, s := range r.Versions {
			if sums[name] == nil {
				sums[name] = bench.NewSeries()
			}
			sums[name].Add(s)
		}
	}
	if len(sums) < 2 {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		list = append(list, version{cmp.Or(name, "(not told)"), sums[name]})
	}
	return list
}

// Measure is a quantity that is compared between targets. Of is NaN where a result has
// no figure.
type Measure struct {
	Name string
	Of   func(*bench.Result) float64
}

func percentile(p float64) func(*bench.Result) float64 {
	return func(r *bench.Result) float64 { return stats.Millis(r.Latency.At(p)) }
}

// some is a quantity that nobody has told where it is 0.
func some(v float64) float64 {
	if v == 0 {
		return math.NaN()
	}
	return v
}

// open is a share in percent that only an open loop has.
func open(r *bench.Result, share float64) float64 {
	if r.Offered == 0 {
		return math.NaN()
	}
	return 100 * share
}

// Measures are those of every table.
var Measures = []Measure{
	{"offered/s", func(r *bench.Result) float64 { return some(r.Offered) }},
	{"requests/s", func(r *bench.Result) float64 { return r.Rate }},
	{"p50 ms", percentile(50)},
	{"p90 ms", percentile(90)},
	{"p99 ms", percentile(99)},
	{"p99.9 ms", percentile(99.9)},
	{"max ms", percentile(100)},
	{"server CPU µs", func(r *bench.Result) float64 { return some(r.ServerCPU) }},
	{"server MB", func(r *bench.Result) float64 { return some(float64(r.ServerRSS) / 1e6) }},
	{"client CPU µs", func(r *bench.Result) float64 { return some(r.Client.CPU) }},
	{"client % of cores", func(r *bench.Result) float64 { return some(100 * r.Client.Share) }},
	{"sent late %", func(r *bench.Result) float64 { return open(r, r.Client.Late) }},
	{"held %", func(r *bench.Result) float64 { return open(r, float64(r.Held)/float64(max(r.Requests, 1))) }},
	{"most requests/s", func(r *bench.Result) float64 { return some(r.Most()) }},
}

func (t *Target) values(m Measure) []float64 {
	list := make([]float64, len(t.Results))
	for i, r := range t.Results {
		list[i] = m.Of(r)
	}
	return list
}

// Mean is a measure's mean over the rounds. None is below 0, so no interval is.
func (t *Target) Mean(m Measure) stats.Interval {
	i := stats.Mean(t.values(m))
	i.Low = max(i.Low, 0)
	return i
}

// Ratio is how many times as large a measure is as that of base, round by round.
func (t *Target) Ratio(m Measure, base *Target) stats.Interval {
	return stats.Ratio(t.values(m), base.values(m))
}

// Errors is how many requests failed in all rounds, of how many.
func (t *Target) Errors() (failed, all int64) {
	for _, r := range t.Results {
		failed, all = failed+r.Errors(), all+r.Requests
	}
	return failed, all
}

// series is the sum of the rounds and versions.
func (t *Target) series() *bench.Series {
	sum := bench.NewSeries()
	for _, r := range t.Results {
		for _, s := range r.Versions {
			sum.Add(s)
		}
	}
	return sum
}

// interval is an estimate as text, with its interval where there is one.
func interval(i stats.Interval) string {
	if i.Repeats < 2 {
		return number(i.Mid)
	}
	return fmt.Sprintf("%s (%s to %s)", number(i.Mid), number(i.Low), number(i.High))
}

func number(v float64) string {
	if math.IsNaN(v) {
		return none
	}
	if v >= 1000 || v <= -1000 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// measures are those that some target has a figure of.
func (r *Report) measures() (list []Measure) {
	for _, m := range Measures {
		if slices.ContainsFunc(r.Targets, func(t *Target) bool { return !math.IsNaN(t.Mean(m).Mid) }) {
			list = append(list, m)
		}
	}
	return list
}

// table is the figures, row by row, the heading first.
func (r *Report) table() [][]string {
	head := []string{""}
	for _, t := range r.Targets {
		head = append(head, t.Name)
	}
	for _, t := range r.Targets[1:] {
		head = append(head, t.Name+" / "+r.Targets[0].Name)
	}
	rows := [][]string{head}
	for _, m := range r.measures() {
		row := []string{m.Name}
		for _, t := range r.Targets {
			row = append(row, mean(t, m))
		}
		for _, t := range r.Targets[1:] {
			row = append(row, ratio(t.Ratio(m, r.Targets[0])))
		}
		rows = append(rows, row)
	}
	rows = r.timed(append(rows, r.failures()...))
	for i := range rows { // where there are no ratios
		rows[i] = append(rows[i], slices.Repeat([]string{""}, len(head)-len(rows[i]))...)
	}
	return rows
}

// failures are how many requests failed, and of which kind.
func (r *Report) failures() [][]string {
	errors, kinds := []string{"errors"}, map[string][]string{}
	for i, t := range r.Targets {
		failed, all := t.Errors()
		errors = append(errors, fmt.Sprintf("%d of %d", failed, all))
		for kind, n := range t.failed() {
			if kinds[kind] == nil {
				kinds[kind] = slices.Repeat([]string{"0"}, len(r.Targets))
			}
			kinds[kind][i] = strconv.FormatInt(n, 10)
		}
	}
	rows := [][]string{errors}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		rows = append(rows, append([]string{"– " + kind}, kinds[kind]...))
	}
	return rows
}

// failed is how many requests failed in all rounds, by kind.
func (t *Target) failed() map[string]int64 {
	sum := map[string]int64{}
	for _, r := range t.Results {
		for kind, n := range r.Failed {
			sum[kind] += n
		}
		if r.Unsent > 0 {
			sum["never sent"] += r.Unsent
		}
	}
	return sum
}

// said is what the first failure of each kind said.
func (r *Report) said() (list []string) {
	for _, t := range r.Targets {
		said := map[string]string{}
		for _, res := range t.Results {
			for kind, text := range res.Said {
				said[kind] = cmp.Or(said[kind], text)
			}
		}
		for _, kind := range slices.Sorted(maps.Keys(said)) {
			if said[kind] != "" {
				list = append(list, fmt.Sprintf("%s, %s: %q", t.Name, kind, said[kind]))
			}
		}
	}
	return list
}

// versions is a table of the versions of targets where several answered; nil where
// there is no such.
func (r *Report) versions() [][]string {
	rows := [][]string{{"target, version", "right answers", "share %", "p50 ms", "p90 ms", "p99 ms", "max ms", "queue p50, p99 ms", "device p50, p99 ms"}}
	for _, t := range r.Targets {
		list, all := t.versions(), int64(0)
		for _, v := range list {
			all += v.Latency.Count()
		}
		for _, v := range list {
			row := []string{t.Name + ", " + v.name, strconv.FormatInt(v.Latency.Count(), 10), number(100 * float64(v.Latency.Count()) / float64(max(all, 1)))}
			for _, p := range []float64{50, 90, 99, 100} {
				row = append(row, number(stats.Millis(v.Latency.At(p))))
			}
			rows = append(rows, append(row, pair(v.Queue), pair(v.Device)))
		}
	}
	if len(rows) == 1 {
		return nil
	}
	return rows
}

func mean(t *Target, m Measure) string {
	i := t.Mean(m)
	if math.IsNaN(i.Mid) {
		return none
	}
	return interval(i)
}

func ratio(i stats.Interval) string {
	if i.Repeats == 0 {
		return none
	}
	return interval(i)
}

const none = "–" // where there is no figure

// timed adds where the time went, where servers say it.
func (r *Report) timed(rows [][]string) [][]string {
	queue, device := []string{"queue p50, p99 ms"}, []string{"device p50, p99 ms"}
	said := false
	for _, t := range r.Targets {
		s := t.series()
		said = said || s.Queue.Count() > 0
		queue, device = append(queue, pair(s.Queue)), append(device, pair(s.Device))
	}
	if said {
		rows = append(rows, queue, device)
	}
	return rows
}

func pair(h *stats.Histogram) string {
	if h.Count() == 0 {
		return none
	}
	return number(stats.Millis(h.At(50))) + ", " + number(stats.Millis(h.At(99)))
}

// Text writes a table for people.
func (r *Report) Text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n%s; %s\n\n", r.Title, r.Machine, r.Loop, r.Checked)
	align(&b, r.table())
	if rows := r.versions(); rows != nil {
		b.WriteByte('\n')
		align(&b, rows)
	}
	for _, text := range r.said() {
		fmt.Fprintf(&b, "\n%s\n", text)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "\n- %s", n)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "\n! %s", p)
	}
	if len(r.Notes)+len(r.Problems) > 0 {
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func align(b *strings.Builder, rows [][]string) {
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	_ = t.Flush() // into memory
}

// JSON writes everything.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// exact is a number, empty where there is none.
func exact(v float64) string {
	if math.IsNaN(v) {
		return ""
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}

// CSV writes a line per target and round, and where several versions answered, one for
// each of them.
func (r *Report) CSV(w io.Writer) error {
	c := csv.NewWriter(w)
	head := []string{"target", "round", "version", "requests", "errors"}
	for _, m := range Measures {
		head = append(head, m.Name)
	}
	_ = c.Write(append(head, "queue p50 ms", "queue p99 ms", "device p50 ms", "device p99 ms", "failures")) // Error below tells
	for _, t := range r.Targets {
		for _, res := range t.Results {
			_ = c.Write(append(record(t.Name, "", res), res.Failures()))
			if len(res.Versions) < 2 {
				continue
			}
			for _, name := range slices.Sorted(maps.Keys(res.Versions)) {
				_ = c.Write(append(record(t.Name, cmp.Or(name, "(not told)"), alone(res, name)), ""))
			}
		}
	}
	c.Flush()
	return c.Error()
}

// record is what a result says of each measure, and where the time went.
func record(target, version string, r *bench.Result) []string {
	line := []string{target, strconv.Itoa(r.Round), version, strconv.FormatInt(r.Requests, 10), strconv.FormatInt(r.Errors(), 10)}
	for _, m := range Measures {
		line = append(line, exact(m.Of(r)))
	}
	sum := bench.NewSeries()
	for _, s := range r.Versions {
		sum.Add(s)
	}
	for _, h := range []*stats.Histogram{sum.Queue, sum.Device} {
		for _, p := range []float64{50, 99} {
			if h.Count() == 0 {
				line = append(line, "")
				continue
			}
			line = append(line, exact(stats.Millis(h.At(p))))
		}
	}
	return line
}

// alone is a round as one version knows it, by its right answers.
func alone(r *bench.Result, version string) *bench.Result {
	s := r.Versions[version]
	n := s.Latency.Count()
	return &bench.Result{
		Round: r.Round, Requests: n, Rate: float64(n) / r.Elapsed, Latency: s.Latency, Versions: map[string]*bench.Series{version: s},
	}
}
