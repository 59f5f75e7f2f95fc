package report

import (
	"cmp"
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
	charts := []chart{r.percentiles(), r.overTime()}
	if c := r.byVersion(); len(c.Lines) > 0 {
		charts = append(charts, c)
	}
	if c := r.queueAndDevice(); len(c.Lines) > 0 {
		charts = append(charts, c)
	}
	return page.Execute(w, map[string]any{"R": r, "Tables": [][][]string{r.table(), r.versions()}, "Said": r.said(), "Charts": charts})
}

// chart is a picture of lines; the vertical axis is logarithmic.
type chart struct {
	Title, X, Y string
	Lines       []line
	Across, Up  []mark
}

// line is one of a target, or of a version.
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

// point is a value of a curve; x goes from 0 to 1, y is in ms.
type point struct{ x, y float64 }

// curve is a line before it is drawn.
type curve struct {
	name   string
	color  int
	dashed bool
	points []point
}

func (c *curve) class() string {
	if c.dashed || c.color%12 >= 6 { // there are six colours
		return fmt.Sprintf("c%d dashed", c.color%6)
	}
	return fmt.Sprintf("c%d", c.color%6)
}

// tail is a histogram by how few of its times are longer: 10^-4x of them.
func tail(h *stats.Histogram) (list []point) {
	for x := 0.0; x <= 4; x += 0.05 {
		if few := math.Pow(10, -x); few*float64(h.Count()) >= 1 {
			list = append(list, point{x / 4, stats.Millis(h.At(100 * (1 - few)))})
		}
	}
	return list
}

// tails draws curves made by tail.
func tails(title string, curves []curve) chart {
	c := draw(title, "percentile", curves)
	for _, p := range []float64{0, 50, 90, 99, 99.9, 99.99} {
		c.Across = append(c.Across, mark{left + (right-left)*-math.Log10(1-p/100)/4, number(p)})
	}
	return c
}

// percentiles are the targets' latencies.
func (r *Report) percentiles() chart {
	var list []curve
	for i, t := range r.Targets {
		list = append(list, curve{name: t.Name, color: i, points: tail(t.series().Latency)})
	}
	return tails("Latency by percentile", list)
}

// byVersion are the latencies of versions, of targets where several answered.
func (r *Report) byVersion() chart {
	var list []curve
	for _, t := range r.Targets {
		for _, v := range t.versions() {
			list = append(list, curve{name: t.Name + ", version " + v.name, color: len(list), points: tail(v.Latency)})
		}
	}
	return tails("Latency by percentile, per version", list)
}

// queueAndDevice are where the time went, of targets that say it.
func (r *Report) queueAndDevice() chart {
	var list []curve
	for i, t := range r.Targets {
		if s := t.series(); s.Queue.Count() > 0 {
			list = append(list, curve{name: t.Name + ", in queues", color: i, dashed: true, points: tail(s.Queue)},
				curve{name: t.Name + ", on the device", color: i, points: tail(s.Device)})
		}
	}
	return tails("Time in queues against time on the device, by percentile", list)
}

// overTime is the 99th percentile of each part of the run.
func (r *Report) overTime() chart {
	list, span := make([]curve, len(r.Targets)), r.span()
	for i, t := range r.Targets {
		list[i] = curve{name: t.Name, color: i}
		slot := 0.0
		for _, res := range t.Results {
			slot = res.Slot
		}
		for n, h := range t.series().Slots[:bench.Slots] {
			if x := float64(n) * slot / span; h.Count() > 0 && x <= 1 {
				list[i].points = append(list[i].points, point{x, stats.Millis(h.At(99))})
			}
		}
	}
	c := draw("99th percentile of latency by when requests were due", "time", list)
	for n := range 5 {
		c.Across = append(c.Across, mark{left + (right-left)*float64(n)/4, (time.Duration(span*float64(n)/4*1e3) * time.Millisecond).String()})
	}
	return c
}

// span is the longest round in seconds.
func (r *Report) span() (most float64) {
	for _, t := range r.Targets {
		for _, res := range t.Results {
			most = max(most, res.Elapsed)
		}
	}
	return cmp.Or(most, 1)
}

// scale is a logarithmic axis over whole decades.
type scale struct{ from, to float64 }

// scaleOf has room for all points above 0.
func scaleOf(curves []curve) scale {
	low, high := math.Inf(1), math.Inf(-1)
	for _, c := range curves {
		for _, p := range c.points {
			if p.y > 0 {
				low, high = min(low, p.y), max(high, p.y)
			}
		}
	}
	if math.IsInf(low, 1) {
		low, high = 1, 1
	}
	return scale{math.Floor(math.Log10(low)), math.Floor(math.Log10(high)) + 1}
}

// at is where a value is; what is below the axis, as 0 is, is at its end.
func (s scale) at(v float64) float64 {
	return bottom - (bottom-top)*(math.Log10(max(v, math.Pow(10, s.from)))-s.from)/(s.to-s.from)
}

// draw makes lines of the curves that have points.
func draw(title, x string, curves []curve) chart {
	c, up := chart{Title: title, X: x, Y: "ms"}, scaleOf(curves)
	for d := up.from; d <= up.to; d++ {
		c.Up = append(c.Up, mark{up.at(math.Pow(10, d)), number(math.Pow(10, d))})
	}
	for i := range curves {
		var b strings.Builder
		for _, p := range curves[i].points {
			fmt.Fprintf(&b, "%.1f,%.1f ", left+(right-left)*p.x, up.at(p.y))
		}
		if b.Len() > 0 {
			c.Lines = append(c.Lines, line{curves[i].name, curves[i].class(), b.String()})
		}
	}
	return c
}
