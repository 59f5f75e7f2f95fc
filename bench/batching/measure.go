package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
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
// ratios. It takes so many rounds, more where they are short.
const rounds, mostRounds, enough = 9, 25, 40 * time.Second

// fastest is how many requests per second come by chance at most: they are made by one
// goroutine, which would else be what is measured.
const fastest = 200_000

// finalists is how many of the grid's settings are compared in turn, in so many rounds,
// to find the best of them. That one is measured anew beside what is learnt: of what
// decided who is best, luck is a part.
const finalists, heats = 3, 5

// measurement is one value of something, such as its rows per second; what is by
// chance is the same in all measurements of a round.
type measurement func(round int) (float64, error)

// inTurn takes all measurements in each of n rounds, each time another one first.
func inTurn(n int, list ...measurement) (values [][]float64, err error) {
	values = make([][]float64, len(list))
	for round := range n {
		for k := range list {
			i := (round + k) % len(list)
			v, err := list[i](round)
			if err != nil {
				return nil, err
			}
			values[i] = append(values[i], v)
		}
	}
	return values, nil
}

// ratio is how many times as large values are as others that were measured in turn.
func ratio(values, others []float64) stats.Interval {
	var list []float64
	for i := range values {
		list = append(list, values[i]/others[i])
	}
	return stats.Middle(list)
}

// trial is one model's measurement.
type trial struct {
	*bench
	*subject
	ctx  context.Context
	out  io.Writer
	d    time.Duration // of a measurement
	bare *bareModel
}

// measure shows what one model does.
func (b *bench) measure(ctx context.Context, out io.Writer, s *subject) (err error) {
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

// rounds is how many rounds of so many measurements there are.
func (t *trial) rounds(measurements int) int {
	return min(max(int(enough/(time.Duration(measurements)*t.d)), rounds), mostRounds)
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
	rate := func(v *served, _ int) (float64, error) {
		rate, _, err := v.closed(64, t.many(), t.d, 0)
		return rate, err
	}
	values, err := inTurn(t.rounds(2),
		func(round int) (float64, error) { return rate(v, round) },
		func(int) (float64, error) { return t.bare.loop(size, t.d/2) })
	if err != nil {
		return err
	}
	own, bare := stats.Median(values[0]), stats.Median(values[1])
	t.line("rows/s, 64 in flight", fmt.Sprintf("%.0f", own), fmt.Sprintf("%.0f bare, %d rows at a time", bare, size), ratio(values[0], values[1]), 0.95, false)
	return t.against(rate, true, "rows/s, 64 in flight", func(v float64) string { return fmt.Sprintf("%.0f", v) })
}

// against tries every fixed setting, and writes how what is learnt does against the
// best of those; beside it, how that one does against itself.
func (t *trial) against(f func(*served, int) (float64, error), more bool, what string, words func(float64) string) error {
	best, err := t.champion(f, more)
	if err != nil {
		return err
	}
	all, stop, err := t.serve(t.ctx, variant{subject: t.subject}, variant{t.subject, best}, variant{t.subject, best})
	if err != nil {
		return err
	}
	defer stop()
	if _, err := t.learn(all[0]); err != nil {
		return err
	}
	values, err := inTurn(t.rounds(len(all)), measurements(f, all)...)
	if err != nil {
		return err
	}
	own, other := stats.Median(values[0]), stats.Median(values[1])
	t.line(what, words(own), words(other)+", "+best.String(), ratio(values[0], values[1]), 1, !more)
	t.line("the same", words(stats.Median(values[2])), "the same setting again", ratio(values[2], values[1]), 0, false)
	return nil
}

func measurements(f func(*served, int) (float64, error), all []*served) (list []measurement) {
	for _, v := range all {
		list = append(list, func(round int) (float64, error) { return f(v, round) })
	}
	return list
}

// champion is the setting that is best by some rounds among those that did best when
// each was tried once.
func (t *trial) champion(f func(*served, int) (float64, error), more bool) (best setting, err error) {
	list, err := t.candidates(f, more)
	if err != nil {
		return setting{}, err
	}
	var variants []variant
	for _, set := range list {
		variants = append(variants, variant{t.subject, set})
	}
	all, stop, err := t.serve(t.ctx, variants...)
	if err != nil {
		return setting{}, err
	}
	defer stop()
	values, err := inTurn(heats, measurements(f, all)...)
	if err != nil {
		return setting{}, err
	}
	medians := make([]float64, len(values))
	for i := range values {
		medians[i] = stats.Median(values[i])
	}
	if more {
		return list[slices.Index(medians, slices.Max(medians))], nil
	}
	return list[slices.Index(medians, slices.Min(medians))], nil
}

// candidates are the settings that did best when each was tried once.
func (t *trial) candidates(f func(*served, int) (float64, error), more bool) ([]setting, error) {
	values := map[setting]float64{}
	list := grid()
	for _, set := range list {
		all, stop, err := t.serve(t.ctx, variant{t.subject, set})
		if err != nil {
			return nil, err
		}
		values[set], err = f(all[0], 0)
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

// line writes a line of the table about t's model.
func (t *trial) line(what, learnt, peer string, ratio stats.Interval, goal float64, most bool) {
	verdict(t.out, t.name, what, learnt, peer, ratio, goal, most)
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
	t.line("lone request, µs beside the run", round(alone), round(single)+" bare", stats.Middle(extra), 60, true)
	return nil
}

// byChance shows the tail of the latency of requests that come by chance.
func (t *trial) byChance(rate float64) error {
	n := max(int(rate*t.d.Seconds()), 200)
	f := func(v *served, round int) (float64, error) {
		list, err := v.open(rate, n, uint64(round))
		return float64(p99(list)), err
	}
	return t.against(f, false, fmt.Sprintf("p99 at %.0f/s", rate), func(v float64) string { return round(time.Duration(v)) })
}

// think is how long the caller of a model waits before it asks again, while another
// is flooded.
const think = 2 * time.Millisecond

// twoModels shows what the flood of one model does to another on the same device,
// which has a request now and then; and what two bare loops of them do.
func (b *bench) twoModels(ctx context.Context, out io.Writer, list []*subject) error {
	for _, pair := range [][2]string{{"wide", "magika"}, {"wide", "direction"}, {"recogniser", "direction"}} {
		flood, quiet := named(list, pair[0]), named(list, pair[1])
		if flood == nil || quiet == nil {
			continue
		}
		if err := errors.Join(b.flood(ctx, out, flood, quiet), b.bareFlood(out, flood, quiet)); err != nil {
			return err
		}
	}
	return nil
}

func named(list []*subject, name string) *subject {
	i := slices.IndexFunc(list, func(s *subject) bool { return s.name == name })
	if i < 0 {
		return nil
	}
	return list[i]
}

func (b *bench) flood(ctx context.Context, out io.Writer, flooded, asked *subject) error {
	all, stop, err := b.serve(ctx, variant{subject: flooded}, variant{subject: asked})
	if err != nil {
		return err
	}
	defer stop()
	d := time.Duration(4 * *seconds * float64(time.Second))
	if _, _, err := all[0].closed(64, 1, d, 0); err != nil {
		return err
	}
	var rate float64
	return beside(out, func() string { return fmt.Sprintf("%s at %.0f/s", flooded.name, rate) }, asked.name,
		func() (err error) {
			rate, _, err = all[0].closed(64, 1, d+d/4, 0)
			return err
		},
		func(int) (float64, error) {
			_, list, err := all[1].closed(1, 1, d, think)
			return float64(p99(list)), err
		}, 2)
}

// bareFlood is flood without queues: what the machine does.
func (b *bench) bareFlood(out io.Writer, flooded, asked *subject) (err error) {
	flood, err := b.bare(flooded)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, flood.Close()) }()
	quiet, err := b.bare(asked)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, quiet.Close()) }()
	d := time.Duration(4 * *seconds * float64(time.Second))
	_, rows, err := flood.best(d / 8)
	if err != nil {
		return err
	}
	return beside(out, func() string { return "a bare loop of " + flooded.name }, asked.name+", bare",
		func() error { _, err := flood.loop(rows, d+d/4); return err },
		func(int) (float64, error) {
			list, err := quiet.now(d)
			return float64(p99(list)), err
		}, 0)
}

// beside shows p99 beside a flood and alone, in turn.
func beside(out io.Writer, flooded func() string, name string, flood func() error, p99 measurement, goal float64) error {
	values, err := inTurn(rounds,
		func(round int) (p float64, err error) {
			done := make(chan error)
			go func() { done <- flood() }()
			p, err = p99(round)
			return p, errors.Join(err, <-done)
		}, p99)
	if err != nil {
		return err
	}
	together, alone := stats.Median(values[0]), stats.Median(values[1])
	verdict(out, name, "p99 beside "+flooded(), round(time.Duration(together)), round(time.Duration(alone))+" alone", ratio(values[0], values[1]), goal, true)
	return nil
}
