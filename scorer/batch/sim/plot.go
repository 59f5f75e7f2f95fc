package sim

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// Plot draws the 99th percentile by case as SVG, times in powers of ten. A cross is an
// overloaded rule, whose time depends on how long it was played.
func (c *Compared) Plot(out io.Writer) error {
	p := newPlot(c)
	p.axes()
	for i := range c.Rules {
		p.line(i)
	}
	p.text(width-right+15, 20+18*len(c.Rules), "#444", "start", "× overloaded")
	p.b.WriteString("</svg>\n")
	_, err := io.WriteString(out, p.b.String())
	return err
}

// plot is a drawing under way.
type plot struct {
	*Compared
	b         strings.Builder
	low, high float64 // powers of ten of nanoseconds
	most      float64 // at the right end
}

const width, height, left, right, bottom = 760, 420, 70, 260, 40

var colours = []string{"#c00", "#888", "#06c", "#090", "#a60", "#609", "#0aa", "#444"}

func newPlot(c *Compared) *plot {
	p := &plot{Compared: c, low: math.Inf(1)}
	for i := range c.Cases {
		p.most = math.Max(p.most, c.Cases[i].At)
	}
	for _, row := range c.Cells {
		for k := range row {
			if t := float64(row[k].P99); t > 0 {
				p.low = math.Min(p.low, t)
			}
			if !row[k].Overloaded {
				p.high = math.Max(p.high, float64(row[k].P99))
			}
		}
	}
	if math.IsInf(p.low, 1) {
		p.low = 1 // nothing was answered
	}
	p.low = math.Floor(math.Log10(p.low))
	p.high = math.Max(math.Ceil(math.Log10(math.Max(p.high, 1))), p.low+1)
	fmt.Fprintf(&p.b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -30 %d %d" font-family="sans-serif" font-size="12">`, width, height+30)
	return p
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
	p.text(left, -12, "#000", "start", p.Title+": 99th percentile of the latency")
	for e := p.low; e <= p.high; e++ {
		at := time.Duration(math.Pow(10, e))
		fmt.Fprintf(&p.b, `<path d="M%d %.1fH%d" stroke="#ddd"/>`, left, p.y(at), width-right)
		p.text(left-6, int(p.y(at))+4, "#000", "end", at.String())
	}
	before := -math.MaxFloat64
	for i := range p.Cases {
		c := &p.Cases[i]
		if x := p.x(c.At); x-before > 55 { // else it would be over the last
			p.text(int(x), height-bottom+18, "#000", "middle", c.Name)
			before = x
		}
	}
}

// line draws a rule.
func (p *plot) line(i int) {
	colour, stroke := colours[i%len(colours)], 1
	if i == 0 {
		stroke = 3
	}
	var points, marks strings.Builder
	for k := range p.Cells[i] {
		r := &p.Cells[i][k]
		x, y := p.x(p.Cases[k].At), p.y(r.P99)
		switch {
		case r.P99 == 0:
			continue // nothing was answered
		case r.Overloaded:
			fmt.Fprintf(&marks, `<path d="M%.1f %.1fl8 8m0 -8l-8 8" stroke="%s" stroke-width="2"/>`, x-4, y-4, colour)
		default:
			fmt.Fprintf(&marks, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`, x, y, colour)
		}
		fmt.Fprintf(&points, "%.1f,%.1f ", x, y)
	}
	fmt.Fprintf(&p.b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="%d"/>%s`, points.String(), colour, stroke, marks.String())
	p.text(width-right+15, 20+18*i, colour, "start", p.Rules[i])
}
