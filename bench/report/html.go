package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
	"time"

	"sluice.dev/bench"
	"sluice.dev/bench/stats"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// HTML writes one page with its pictures inside, light or dark as its reader's system is.
func (r *Report) HTML(w io.Writer) error {
	return page.Execute(w, map[string]any{"R": r, "Table": r.table(), "Charts": []chart{r.percentiles(), r.overTime()}})
}

// chart is a picture of lines; the vertical axis is logarithmic.
type chart struct {
	Title, X, Y string
	Lines       []line
	Across, Up  []mark
}

// line is one target's.
type line struct {
	Name   string
	Class  string
	Points string
}

// mark is a number at an axis.
type mark struct {
	At   float64
	Text string
}

// The plot's corners, in the picture's units.
const left, right, top, bottom = 60, 700, 20, 260

// point is a value of a line; x goes from 0 to 1.
type point struct{ x, y float64 }

// percentiles are latencies by how few requests take longer.
func (r *Report) percentiles() chart {
	shares := []float64{0, 50, 90, 99, 99.9, 99.99}
	lines := make([][]point, len(r.Targets))
	for i, t := range r.Targets {
		h := t.series().Latency
		for x := 0.0; x <= 4; x += 0.05 { // 10^-x of the requests take longer
			if few := math.Pow(10, -x); h.Count() > 0 && few*float64(h.Count()) >= 1 {
				lines[i] = append(lines[i], point{x / 4, stats.Millis(h.At(100 * (1 - few)))})
			}
		}
	}
	c := r.draw("Latency by percentile", "percentile", lines)
	for _, p := range shares {
		c.Across = append(c.Across, mark{left + (right-left)*-math.Log10(1-p/100)/4, number(p)})
	}
	return c
}

// overTime is the 99th percentile of each part of the run.
func (r *Report) overTime() chart {
	lines, slot := make([][]point, len(r.Targets)), 1.0
	for i, t := range r.Targets {
		for _, res := range t.Results {
			slot = res.Slot
		}
		for n, h := range t.series().Slots[:bench.Slots] {
			if h.Count() > 0 {
				lines[i] = append(lines[i], point{float64(n) / bench.Slots, stats.Millis(h.At(99))})
			}
		}
	}
	c := r.draw("99th percentile by when requests were due", "seconds", lines)
	for n := range 5 {
		c.Across = append(c.Across, mark{left + (right-left)*float64(n)/4, (time.Duration(slot*bench.Slots*float64(n)/4*1e3) * time.Millisecond).String()})
	}
	return c
}

// draw makes lines of points, over whole decades.
func (r *Report) draw(title, x string, lines [][]point) chart {
	low, high := math.Inf(1), math.Inf(-1)
	for _, l := range lines {
		for _, p := range l {
			if p.y > 0 {
				low, high = min(low, p.y), max(high, p.y)
			}
		}
	}
	if math.IsInf(low, 1) {
		low, high = 1, 1
	}
	from, to := math.Floor(math.Log10(low)), math.Floor(math.Log10(high))+1
	up := func(v float64) float64 {
		return bottom - (bottom-top)*(math.Log10(max(v, math.Pow(10, from)))-from)/(to-from)
	}
	c := chart{Title: title, X: x, Y: "ms"}
	for d := from; d <= to; d++ {
		c.Up = append(c.Up, mark{up(math.Pow(10, d)), number(math.Pow(10, d))})
	}
	for i, l := range lines {
		var b strings.Builder
		for _, p := range l {
			fmt.Fprintf(&b, "%.1f,%.1f ", left+(right-left)*p.x, up(p.y))
		}
		c.Lines = append(c.Lines, line{r.Targets[i].Name, fmt.Sprintf("c%d", i%6), b.String()})
	}
	return c
}
