package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"text/tabwriter"
	"time"

	"sluice.dev/bench/stats"
)

// setting is a fixed one, or, with limit 0, none at all.
type setting struct {
	delay time.Duration
	limit int
}

func (s setting) String() string { return fmt.Sprintf("delay %v, at most %d", s.delay, s.limit) }

// grid is the settings that somebody would try.
func grid() (list []setting) {
	for _, delay := range []time.Duration{0, 100 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 5 * time.Millisecond} {
		for _, limit := range []int{1, 4, 16, 64} {
			list = append(list, setting{delay, limit})
		}
	}
	return list
}

// A machine's pace drifts, and others use it too. So what is compared is measured
// in turn, for a short while each, and what counts is the median of the rounds'
// ratios.
const rounds = 9

// fastest is how many requests per second come by chance at most: they are made by one
// goroutine, which would else be what is measured.
const fastest = 200_000

// finalists is how many of the grid's settings are compared so.
const finalists = 3

// ratios measures the first against each of the others in turn, and returns the
// medians of the first's values, and per other of its values and of the ratios.
func ratios(measure ...func() (float64, error)) (own float64, others, ratio []float64, err error) {
	values := make([][]float64, len(measure))
	shares := make([][]float64, len(measure))
	for range rounds {
		for i, f := range measure {
			v, err := f()
			if err != nil {
				return 0, nil, nil, err
			}
			values[i] = append(values[i], v)
			shares[i] = append(shares[i], values[0][len(values[0])-1]/v)
		}
	}
	for i := range measure[1:] {
		others, ratio = append(others, stats.Median(values[i+1])), append(ratio, stats.Median(shares[i+1]))
	}
	return stats.Median(values[0]), others, ratio, nil
}

// trial is one model's measurement.
type trial struct {
	*bench
	*subject
	ctx  context.Context
	out  *tabwriter.Writer
	d    time.Duration // of a measurement
	bare *bareModel
}

// measure shows what one model does.
func (b *bench) measure(ctx context.Context, out *tabwriter.Writer, s *subject) (err error) {
	t := &trial{bench: b, subject: s, ctx: ctx, out: out, d: time.Duration(*seconds * float64(time.Second))}
	if t.bare, err = b.bare(s); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.bare.Close()) }()
	most, rows, err := t.bare.best(t.d / 4)
	if err != nil {
		return err
	}
	t.d = max(t.d, 3*time.Duration(float64(64*t.many())/most*1e9)) // some rounds of 64
	all, stop, err := b.serve(ctx, variant{subject: s})
	if err != nil {
		return err
	}
	defer stop()
	rate, err := t.learn(all[0])
	if err != nil {
		return err
	}
	if !skipped("closed") {
		err = t.manyCallers(all[0], rows)
	}
	if err == nil && !skipped("lone") {
		err = t.loneCaller(all[0])
	}
	if err == nil && !skipped("open") {
		err = t.byChance(math.Min(0.7*math.Min(rate, most), fastest))
	}
	return err
}

// learn serves as many as there may be, as a server would have for a while, and
// returns how many requests per second were answered in the end.
func (t *trial) learn(v *served) (rate float64, err error) {
	for _, callers := range []int{1, 4, 64, 64} {
		if rate, _, err = v.closed(callers, 1, 2*t.d, 0); err != nil {
			return 0, err
		}
	}
	return rate, nil
}

// manyCallers shows rows per second with 64 in flight.
func (t *trial) manyCallers(v *served, size int) error {
	rate := func(v *served) (float64, error) {
		rate, _, err := v.closed(64, t.many(), t.d, 0)
		return rate, err
	}
	own, bare, ratio, err := ratios(
		func() (float64, error) { return rate(v) },
		func() (float64, error) { return t.bare.loop(size, t.d/2) })
	if err != nil {
		return err
	}
	verdict(t.out, t.name, "rows/s, 64 in flight", fmt.Sprintf("%.0f", own), fmt.Sprintf("%.0f bare, %d rows at a time", bare[0], size), ratio[0], 0.95, false)
	return t.against(rate, true, func(own, other float64, set setting, ratio float64) {
		verdict(t.out, t.name, "rows/s, 64 in flight", fmt.Sprintf("%.0f", own), fmt.Sprintf("%.0f, %v", other, set), ratio, 1, false)
	})
}

// against tries every fixed setting, and reports how what is learnt does against the
// best of those.
func (t *trial) against(f func(*served) (float64, error), more bool, report func(own, other float64, set setting, ratio float64)) error {
	best, err := t.candidates(f, more)
	if err != nil {
		return err
	}
	list := []variant{{subject: t.subject}}
	for _, set := range best {
		list = append(list, variant{t.subject, set})
	}
	all, stop, err := t.serve(t.ctx, list...)
	if err != nil {
		return err
	}
	defer stop()
	if _, err := t.learn(all[0]); err != nil {
		return err
	}
	var measures []func() (float64, error)
	for _, v := range all {
		measures = append(measures, func() (float64, error) { return f(v) })
	}
	own, others, ratio, err := ratios(measures...)
	if err != nil {
		return err
	}
	worst := slices.Max(ratio)
	if more {
		worst = slices.Min(ratio)
	}
	i := slices.Index(ratio, worst)
	report(own, others[i], best[i], worst)
	return nil
}

// candidates are the settings that did best when each was tried once.
func (t *trial) candidates(f func(*served) (float64, error), more bool) ([]setting, error) {
	values := map[setting]float64{}
	list := grid()
	for _, set := range list {
		all, stop, err := t.serve(t.ctx, variant{t.subject, set})
		if err != nil {
			return nil, err
		}
		values[set], err = f(all[0])
		stop()
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(list, func(a, b setting) int {
		if (values[a] > values[b]) == more {
			return -1
		}
		return 1
	})
	return list[:finalists], nil
}

// loneCaller shows what a request takes beside the model's own time when it is alone.
func (t *trial) loneCaller(v *served) error {
	var extra []float64
	var alone, single time.Duration
	for range rounds {
		rate, err := t.bare.loop(1, t.d/4)
		if err != nil {
			return err
		}
		_, list, err := v.closed(1, 1, max(t.d/2, 40*time.Duration(float64(t.slots)/rate*1e9)), 0)
		if err != nil {
			return err
		}
		alone, single = list[len(list)/2], time.Duration(float64(t.slots)/rate*1e9)
		extra = append(extra, float64(alone-single)/1e3)
	}
	verdict(t.out, t.name, "lone request, µs beside the run", round(alone), round(single)+" bare", stats.Median(extra), 60, true)
	return nil
}

// byChance shows the tail of the latency of requests that come by chance.
func (t *trial) byChance(rate float64) error {
	n := max(int(rate*t.d.Seconds()), 200)
	f := func(v *served) (float64, error) {
		list, err := v.open(rate, n)
		return float64(p99(list)), err
	}
	return t.against(f, false, func(own, other float64, set setting, ratio float64) {
		verdict(t.out, t.name, fmt.Sprintf("p99 at %.0f/s", rate), round(time.Duration(own)), round(time.Duration(other))+", "+set.String(), ratio, 1, true)
	})
}

// twoModels shows what the flood of one model does to another on the same device,
// which has a request now and then.
func (b *bench) twoModels(ctx context.Context, out *tabwriter.Writer, list []*subject) error {
	for _, pair := range [][2]string{{"wide", "magika"}, {"wide", "direction"}, {"recogniser", "direction"}} {
		var both []variant
		for _, s := range list {
			if s.name == pair[0] || s.name == pair[1] {
				both = append(both, variant{subject: s})
			}
		}
		if len(both) < 2 {
			continue
		}
		if both[0].name != pair[0] {
			both[0], both[1] = both[1], both[0]
		}
		if err := b.flood(ctx, out, both); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) flood(ctx context.Context, out *tabwriter.Writer, both []variant) error {
	all, stop, err := b.serve(ctx, both...)
	if err != nil {
		return err
	}
	defer stop()
	flood, quiet := all[0], all[1]
	d := time.Duration(2 * *seconds * float64(time.Second))
	if _, _, err := flood.closed(64, 1, 2*d, 0); err != nil {
		return err
	}
	ask := func() (float64, error) {
		_, list, err := quiet.closed(1, 1, d, 2*time.Millisecond)
		return float64(p99(list)), err
	}
	var flooded float64
	beside, alone, ratio, err := ratios(
		func() (p float64, err error) {
			done := make(chan error)
			go func() {
				var err error
				flooded, _, err = flood.closed(64, 1, d+d/4, 0)
				done <- err
			}()
			p, err = ask()
			return p, errors.Join(err, <-done)
		}, ask)
	if err != nil {
		return err
	}
	verdict(out, quiet.name, fmt.Sprintf("p99 beside %s at %.0f/s", flood.name, flooded), round(time.Duration(beside)), round(time.Duration(alone[0]))+" alone", ratio[0], 2, true)
	return nil
}
