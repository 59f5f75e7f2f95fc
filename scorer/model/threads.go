package model

import (
	"errors"
	"math"
	"sync"
	"time"

	"sluice.dev/accel"
	"sluice.dev/scorer/batch"
)

// Threads of a run are chosen by measuring where they are not set: either every run
// has one thread and as many runs go side by side as there are slots, or one run has
// all. The first mostly has more rows per second, the second answers a lone request
// sooner, so that it is taken where it loses little. Never both at once: that costs a
// fifth.
const (
	longRun     = 500 * time.Microsecond // shorter runs gain nothing from threads
	measureFor  = 200 * time.Millisecond // of each arrangement
	worthLosing = 0.97                   // of the rows per second
)

// chooseThreads measures and returns the instance that is to be used, how many
// threads its runs have, and has made learnt its costs; the other one is closed. A
// model that cannot be timed keeps one thread. limit is the most rows of a run.
func chooseThreads(inst accel.Instance, open func(threads int) (accel.Instance, error), slots, limit int, learnt []batch.ShapeCosts) (accel.Instance, int, error) {
	if slots < 2 || !inst.Signature().Batchable() || !known(inst.Signature()) || len(learnt) != 1 || len(learnt[0].Curve) == 0 || learnt[0].Curve[0].Time < longRun {
		return inst, 1, nil
	}
	all, err := open(slots)
	if err != nil {
		return inst, 1, err
	}
	points, err := search(limit, func(rows int) (batch.Point, error) { return timeRuns(all, rows) })
	if err != nil {
		return inst, 1, errors.Join(err, all.Close())
	}
	apart, err := side(inst, slots, fastest(learnt[0].Curve).Rows)
	together, err2 := side(all, 1, fastest(points).Rows)
	if err = errors.Join(err, err2); err != nil || together < worthLosing*apart {
		return inst, 1, errors.Join(err, all.Close())
	}
	learnt[0].Curve = points
	return all, slots, inst.Close()
}

// fastest is the point with the most rows per second.
func fastest(points []batch.Point) (best batch.Point) {
	for _, p := range points {
		if best.Rows == 0 || rate(p) > rate(best) {
			best = p
		}
	}
	return best
}

// side is rows per second of n loops side by side with rows at a time.
func side(inst accel.Instance, n, rows int) (float64, error) {
	var wg sync.WaitGroup
	rates, errs := make([]float64, n), make([]error, n)
	for k := range n {
		wg.Go(func() {
			began := time.Now()
			for done := 0; time.Since(began) < measureFor && errs[k] == nil; {
				var p batch.Point
				p, errs[k] = timeRuns(inst, rows)
				done += (warmRuns + 1) * p.Rows
				rates[k] = float64(done) / math.Max(time.Since(began).Seconds(), 1e-9)
			}
		})
	}
	wg.Wait()
	sum := 0.0
	for _, r := range rates {
		sum += r
	}
	return sum, errors.Join(errs...)
}
