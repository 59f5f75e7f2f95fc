package model

import (
	"fmt"
	"math"
	"time"

	"sluice.dev/accel"
	"sluice.dev/accel/tensor"
	"sluice.dev/scorer/batch"
)

// Warm-up times doubling sizes while the rows per second still grow, so that the
// first requests find a curve that is about right, and the first of each size does
// not pay for memory. Batching is not free: a convolutional network's working set
// may outgrow the cache at two images.
const (
	maxAutoBatch = 64
	tolerance    = 0.97            // of the best rows per second
	warmBudget   = 2 * time.Second // for one model
	warmRuns     = 3               // per size, after one that does not count
)

// warmUp runs the model and returns how many rows a run may have, limit if that is
// set, and what runs cost: what was kept from before, else what is measured. A model
// with dimensions that only a request fixes cannot be timed before one came.
func warmUp(inst accel.Instance, limit int, kept []batch.ShapeCosts) (int, []batch.ShapeCosts, error) {
	sig := inst.Signature()
	most := limit
	if most == 0 {
		most = maxAutoBatch
	}
	switch {
	case !sig.Batchable():
		return 1, kept, nil
	case !known(sig):
		return most, kept, nil
	case len(kept) == 1 && len(kept[0].Dims) == 0 && len(kept[0].Curve) > 0:
		if limit == 0 {
			most = room(kept[0].Curve)
		}
		_, err := timeRuns(inst, most) // for its memory
		return most, kept, err
	}
	points, err := search(most, func(rows int) (batch.Point, error) { return timeRuns(inst, rows) })
	if err != nil {
		return 0, nil, err
	}
	if limit == 0 {
		most = room(points)
	}
	return most, []batch.ShapeCosts{{Curve: points}}, nil
}

// known reports whether every input dimension but the first is fixed.
func known(sig *tensor.Signature) bool {
	for _, in := range sig.Inputs {
		if _, ok := tensor.ByteSize(in.DType, in.Shape[1:]); !ok {
			return false
		}
	}
	return true
}

// search times sizes up to most, given how long a run takes.
func search(most int, run func(rows int) (batch.Point, error)) (points []batch.Point, err error) {
	var spent time.Duration
	best := 0.0
	for rows := 1; rows <= most && spent < warmBudget; rows *= 2 {
		p, err := run(rows)
		if err != nil {
			return nil, err
		}
		spent += (warmRuns + 1) * p.Time
		points = append(points, p)
		if n := len(points); n > 2 && rate(p) < best && rate(points[n-2]) < best {
			break // twice past the peak
		}
		best = math.Max(best, rate(p))
	}
	return points, nil
}

// rate is rows per nanosecond.
func rate(p batch.Point) float64 { return float64(p.Rows) / float64(p.Time) }

// room is twice the smallest size with about the best rate, at most maxAutoBatch:
// as much memory as a run may need, and place for a better size to be found later.
func room(points []batch.Point) int {
	best := 0.0
	for _, p := range points {
		best = math.Max(best, rate(p))
	}
	for _, p := range points {
		if rate(p) >= tolerance*best {
			return min(2*p.Rows, maxAutoBatch)
		}
	}
	return 1
}

// timeRuns times a few runs of rows rows of zeros.
func timeRuns(inst accel.Instance, rows int) (batch.Point, error) {
	p := batch.Point{Rows: rows, Time: math.MaxInt64, Runs: warmRuns}
	sig := inst.Signature()
	in := make([]tensor.Tensor, len(sig.Inputs))
	for i, info := range sig.Inputs {
		shape := append([]int64{int64(rows)}, info.Shape[1:]...)
		n, _ := tensor.ByteSize(info.DType, shape)
		in[i] = tensor.Tensor{DType: info.DType, Shape: shape, Data: make([]byte, n)}
	}
	call, err := inst.Bind(in, make([]tensor.Tensor, len(sig.Outputs)))
	if err != nil {
		return p, err
	}
	defer call.Close()
	for i := range warmRuns + 1 {
		began := time.Now()
		if err := call.Run(); err != nil {
			return p, err
		}
		if took := max(time.Since(began), 1); i > 0 {
			p.Spread += (took - min(took, p.Time)) / warmRuns
			p.Time = min(p.Time, took)
		}
	}
	p.Spread = min(p.Spread, p.Time/4)
	for i := range sig.Outputs {
		if o := call.Output(i); len(o.Shape) == 0 || o.Shape[0] != int64(rows) {
			return p, fmt.Errorf("output %q has shape %v for %d rows: set maxBatchSize: 1", sig.Outputs[i].Name, o.Shape, rows)
		}
	}
	return p, nil
}
