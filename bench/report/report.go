// Package report writes down what was measured: as text, JSON, CSV, or a page that
// needs nothing else.
package report

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
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

// Measure is a quantity that is compared between targets.
type Measure struct {
	Name string
	Of   func(*bench.Result) float64
	// Server is whether it is of the server's processes. They are known only where the
	// load test was told; else 0 is no figure.
	Server bool
}

func (m Measure) unknown(v float64) bool { return m.Server && v == 0 }

func percentile(p float64) func(*bench.Result) float64 {
	return func(r *bench.Result) float64 { return stats.Millis(r.Latency.At(p)) }
}

// Measures are those of every table.
var Measures = []Measure{
	{"requests/s", func(r *bench.Result) float64 { return r.Rate }, false},
	{"p50 ms", percentile(50), false},
	{"p90 ms", percentile(90), false},
	{"p99 ms", percentile(99), false},
	{"p99.9 ms", percentile(99.9), false},
	{"max ms", percentile(100), false},
	{"server CPU µs", func(r *bench.Result) float64 { return r.ServerCPU }, true},
	{"server MB", func(r *bench.Result) float64 { return float64(r.ServerRSS) / 1e6 }, true},
	{"client CPU µs", func(r *bench.Result) float64 { return r.Client.CPU }, false},
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
	if v >= 1000 || v <= -1000 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
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
	for _, m := range Measures {
		rows = append(rows, r.row(m))
	}
	errors := []string{"errors"}
	for _, t := range r.Targets {
		failed, all := t.Errors()
		errors = append(errors, fmt.Sprintf("%d of %d", failed, all))
	}
	rows = append(rows, errors)
	return r.timed(rows)
}

func (r *Report) row(m Measure) []string {
	row := []string{m.Name}
	for _, t := range r.Targets {
		row = append(row, mean(t, m))
	}
	for _, t := range r.Targets[1:] {
		row = append(row, ratio(t.Ratio(m, r.Targets[0])))
	}
	return row
}

func mean(t *Target, m Measure) string {
	i := t.Mean(m)
	if m.unknown(i.Mid) {
		return "–"
	}
	return interval(i)
}

func ratio(i stats.Interval) string {
	if i.Repeats == 0 {
		return "–"
	}
	return interval(i)
}

// most is in tables where it was looked for.
var most = Measure{"most requests/s", (*bench.Result).Most, true}

// timed adds where the time went, where servers say it, and the highest rates.
func (r *Report) timed(rows [][]string) [][]string {
	queue, device := []string{"queue p50, p99 ms"}, []string{"device p50, p99 ms"}
	said, found := false, false
	for _, t := range r.Targets {
		s := t.series()
		said, found = said || s.Queue.Count() > 0, found || t.Mean(most).Mid > 0
		queue, device = append(queue, pair(s.Queue)), append(device, pair(s.Device))
	}
	if said {
		rows = append(rows, queue, device)
	}
	if found {
		rows = append(rows, r.row(most))
	}
	return rows
}

func pair(h *stats.Histogram) string {
	if h.Count() == 0 {
		return "–"
	}
	return number(stats.Millis(h.At(50))) + ", " + number(stats.Millis(h.At(99)))
}

// Text writes a table for people.
func (r *Report) Text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n%s; %s\n\n", r.Title, r.Machine, r.Loop, r.Checked)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range r.table() {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	_ = t.Flush() // into memory
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

// JSON writes everything.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func exact(m Measure, v float64) string {
	if m.unknown(v) {
		return ""
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}

// CSV writes a line per target and round.
func (r *Report) CSV(w io.Writer) error {
	c := csv.NewWriter(w)
	head := []string{"target", "round", "requests", "errors", "offered/s"}
	for _, m := range Measures {
		head = append(head, m.Name)
	}
	_ = c.Write(head) // Error below tells
	for _, t := range r.Targets {
		for _, res := range t.Results {
			line := []string{t.Name, strconv.Itoa(res.Round), strconv.FormatInt(res.Requests, 10), strconv.FormatInt(res.Errors(), 10), number(res.Offered)}
			for _, m := range Measures {
				line = append(line, exact(m, m.Of(res)))
			}
			_ = c.Write(line)
		}
	}
	c.Flush()
	return c.Error()
}
