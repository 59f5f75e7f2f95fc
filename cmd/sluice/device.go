package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/scorer/batch"
	"sluice.dev/scorer/batch/sim"
	"sluice.dev/scorer/model"
)

// deviceOptions are the flags that say what a replica is, of commands that simulate one.
type deviceOptions struct {
	from         operators
	model, times string
	slots, limit int
}

const (
	maxSlots = 1024
	maxLimit = 16384 // rows
)

func (o *deviceOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.model, "model", "", "ENDPOINT/VERSION that a running server has served for a while")
	f.StringVar(&o.times, "times", "", "run times by rows, such as 1=4ms,8=17ms; linear in between, with what chance adds: 5% in the mean")
	f.IntVar(&o.slots, "slots", 0, "runs side by side in a replica, such as its cores; default the running server's, else 1")
	f.IntVar(&o.limit, "limit", 0, "most rows of a run; default the running server's, else the largest of --times")
	o.from.flags(c)
}

// device is what a replica is.
func (o *deviceOptions) device(ctx context.Context) (sim.Device, error) {
	d := sim.Device{Learn: true}
	switch {
	case (o.model == "") == (o.times == ""):
		return d, fmt.Errorf("exactly one of --model and --times must be given")
	case o.slots < 0 || o.slots > maxSlots:
		return d, fmt.Errorf("--slots %d: must be 1 to %d", o.slots, maxSlots)
	case o.limit < 0 || o.limit > maxLimit:
		return d, fmt.Errorf("--limit %d: must be 1 to %d", o.limit, maxLimit)
	case o.times != "":
		err := o.given(&d)
		return d, err
	}
	list, err := o.from.batching(ctx, o.model)
	if err == nil {
		err = o.learnt(list, &d)
	}
	return d, err
}

// given makes d what --times says.
func (o *deviceOptions) given(d *sim.Device) error {
	points, err := parseTimes(o.times)
	if err != nil {
		return err
	}
	d.Time, _ = sim.Measured(points)
	d.Noise = 0.05
	d.Slots, d.Limit = max(o.slots, 1), cmp.Or(o.limit, points[len(points)-1].Rows)
	return nil
}

// learnt makes d what a server knows of the version, for the shape that has run most.
func (o *deviceOptions) learnt(list []model.Explained, d *sim.Device) error {
	if len(list) > 1 {
		return fmt.Errorf("--model %s names %d versions; name one, as ENDPOINT/VERSION", o.model, len(list))
	}
	e := &list[0]
	d.Slots, d.Limit = cmp.Or(o.slots, e.Slots), cmp.Or(o.limit, e.Limit)
	var most *batch.ShapeCosts
	for i := range e.Shapes {
		if s := &e.Shapes[i]; most == nil || s.Runs > most.Runs {
			most = s
		}
	}
	if most == nil {
		return fmt.Errorf("%s has not run yet; send it requests, or give --times", o.model)
	}
	if !usable(most.Curve) || d.Slots < 1 || d.Slots > maxSlots || d.Limit < 1 || d.Limit > maxLimit {
		return fmt.Errorf("what %s tells of %s cannot be: %d slots, runs of up to %d rows, %v", o.from.address, o.model, d.Slots, d.Limit, most.Curve)
	}
	d.Time, d.Noise = sim.Measured(most.Curve)
	return nil
}

// usable reports whether sizes grow, and runs take time.
func usable(points []batch.Point) bool {
	last := 0
	for _, p := range points {
		if p.Rows <= last || p.Time <= 0 || p.Time > time.Hour || p.Spread < 0 || p.Runs < 0 {
			return false
		}
		last = p.Rows
	}
	return last > 0
}

// parseTimes reads run times by rows.
func parseTimes(text string) (points []batch.Point, err error) {
	var last batch.Point
	for _, part := range strings.Split(text, ",") {
		left, right, _ := strings.Cut(part, "=")
		rows, err := strconv.Atoi(left)
		took, err2 := time.ParseDuration(right)
		if err != nil || err2 != nil || rows <= last.Rows || rows > maxLimit || took < max(last.Time, 1) || took > time.Hour {
			return nil, fmt.Errorf("--times %s: must be up to %d rows and their times, of at most an hour, smallest first, none shorter than the one before, such as 1=4ms,8=17ms", text, maxLimit)
		}
		last = batch.Point{Rows: rows, Time: took}
		points = append(points, last)
	}
	return points, nil
}

// replica says what d is.
func replica(d sim.Device) string {
	return fmt.Sprintf("One replica (runs side by side: %d, rows of a run: up to %d) does %.0f rows per second at most.", d.Slots, d.Limit, d.Capacity())
}
