package sim

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// Plot draws the 99th percentile by case as SVG, or, of one case, all percentiles; times are
// in powers of ten. What is overloaded, so that its times depend on how long it was played, is
// crossed out, or dashed.
func (c *Compared) Plot(out io.Writer) error {
	p := c.byCase()
	if len(c.Cases) == 1 {
		p = c.byPercentile()
	}
	p.fit()
	p.axes()
	for i := range p.lines {
		p.draw(i)
	}
	p.text(width-right+15, 20+18*len(p.lines), "#444", "start", "× or dashed: overloaded")
	p.b.WriteString("</svg>\n")
	_, err := io.WriteString(out, p.b.String())
	return err
}

// plot is a drawing under way.
type plot struct {
	b         strings.Builder
	title     string
	ticks     []tick
	lines     []line
	low, high float64 // powers of ten of nanoseconds
	most      float64 // at the right end
}

// tick is a place on the axis.
type tick struct {
	at   float64
	name string
}

// line is a rule. A point without a time is one where nothing was answered.
type line struct {
	name   string
	dashed bool
	dots   bool
	points []point
}

type point struct {
	at      float64
	time    time.Duration
	crossed bool
}

const width, height, left, right, bottom = 760, 420, 70, 260, 40

var colours = []string{"#c00", "#888", "#06c", "#090", "#a60", "#609", "#0aa", "#444"}

func (c *Compared) byCase() *plot {
	p := &plot{title: c.Title + ": 99th percentile of the latency"}
	for k := range c.Cases {
		p.ticks = append(p.ticks, tick{c.Cases[k].At, c.Cases[k].Name})
	}
	for i, name := range c.Rules {
		l := line{name: name, dots: true}
		for k := range c.Cells[i] {
			r := &c.Cells[i][k]
			l.points = append(l.points, point{c.Cases[k].At, r.P99, r.Overloaded})
		}
		p.lines = append(p.lines, l)
	}
	return p
}

// byPercentile has 90%, 99% and so on equally far apart, as far as there are requests.
func (c *Compared) byPercentile() *plot {
	p := &plot{title: fmt.Sprintf("%s, %s: percentiles of the latency", c.Title, c.Cases[0].Name), ticks: []tick{{math.Log10(2), "50%"}, {1, "90%"}}}
	most := 1.0
	for i, name := range c.Rules {
		r := &c.Cells[i][0]
		l := line{name: name, dashed: r.Overloaded}
		n := float64(len(r.Latencies))
		for nines := 0.0; n > 0 && nines <= math.Max(math.Log10(n), 1); nines += 0.1 {
			l.points = append(l.points, point{at: nines, time: r.Latencies[int(math.Min(n*(1-math.Pow(10, -nines)), n-1))]})
			most = math.Max(most, nines)
		}
		p.lines = append(p.lines, l)
	}
	for nines := 2; float64(nines) <= most; nines++ {
		p.ticks = append(p.ticks, tick{float64(nines), fmt.Sprintf("%.*f%%", nines-2, 100-math.Pow(10, float64(2-nines)))})
	}
	return p
}

// fit finds the ends of the axes. What is overloaded may be beyond them.
func (p *plot) fit() {
	low, high := math.Inf(1), 1.0
	for _, l := range p.lines {
		for _, v := range l.points {
			p.most = math.Max(p.most, v.at)
			if v.time > 0 {
				low = math.Min(low, float64(v.time))
			}
			if !v.crossed && !l.dashed {
				high = math.Max(high, float64(v.time))
			}
		}
	}
	if math.IsInf(low, 1) {
		low = 1 // nothing was answered
	}
	p.low = math.Floor(math.Log10(low))
	p.high = math.Max(math.Ceil(math.Log10(high)), p.low+1)
}

func (p *plot) x(at float64) float64 {
	return left + at/math.Max(p.most, math.SmallestNonzeroFloat64)*(width-left-right)
}

func (p *plot) y(d time.Duration) float64 {
	share := (math.Log10(math.Max(float64(d), 1)) - p.low) / (p.high - p.low)
	return (height - bottom) * (1 - math.Max(0, math.Min(share, 1)))
}

func (p *plot) text(x, y int, colour, anchor, text string) {
	fmt.Fprintf(&p.b, `<text x="%d" y="%d" fill="%s" text-anchor="%s">`, x, y, colour, anchor)
	_ = xml.EscapeText(&p.b, []byte(text)) // a Builder takes all
	p.b.WriteString("</text>")
}

func (p *plot) axes() {
	fmt.Fprintf(&p.b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -30 %d %d" font-family="sans-serif" font-size="12">`, width, height+30)
	p.text(left, -12, "#000", "start", p.title)
	for e := p.low; e <= p.high; e++ {
		at := time.Duration(math.Pow(10, e))
		fmt.Fprintf(&p.b, `<path d="M%d %.1fH%d" stroke="#ddd"/>`, left, p.y(at), width-right)
		p.text(left-6, int(p.y(at))+4, "#000", "end", at.String())
	}
	before := math.Inf(-1)
	for _, t := range p.ticks {
		if x := p.x(t.at); x-before > float64(7*len(t.name)) { // else it would be over the last
			p.text(int(x), height-bottom+18, "#000", "middle", t.name)
			before = x
		}
	}
}

// draw draws a rule; the first one is Sluice's.
func (p *plot) draw(i int) {
	l, colour, stroke := &p.lines[i], colours[i%len(colours)], 1
	if i == 0 {
		stroke = 3
	}
	var points, marks strings.Builder
	for _, v := range l.points {
		if v.time == 0 {
			continue
		}
		x, y := p.x(v.at), p.y(v.time)
		fmt.Fprintf(&points, "%.1f,%.1f ", x, y)
		switch {
		case v.crossed:
			fmt.Fprintf(&marks, `<path d="M%.1f %.1fl8 8m0 -8l-8 8" stroke="%s" stroke-width="2"/>`, x-4, y-4, colour)
		case l.dots:
			fmt.Fprintf(&marks, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`, x, y, colour)
		}
	}
	dash := ""
	if l.dashed {
		dash = ` stroke-dasharray="4"`
	}
	fmt.Fprintf(&p.b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="%d"%s/>%s`, points.String(), colour, stroke, dash, marks.String())
	p.text(width-right+15, 20+18*i, colour, "start", l.name)
}
