package model

import (
	"fmt"
	"math"
	"time"

	"sluice.dev/accel"
	"sluice.dev/accel/tensor"
)

// The search for the best batch size. Doubling sizes are timed while the rows
// per second still grow; the smallest size within tolerance of the best wins,
// since a larger one only adds latency and memory. Batching is not free: a
// convolutional network's working set may outgrow the cache at two images.
const (
	maxAutoBatch = 64
	tolerance    = 0.97            // of the best rows per second
	warmBudget   = 2 * time.Second // for one model
	warmRuns     = 3               // per size; the fastest counts

	// unknownBatch serves models with dimensions that only a request fixes,
	// which cannot be timed before one came.
	unknownBatch = 4
)

// warmUp runs the model once or more, so that the first request does not pay for
// it, and returns how many rows a run may have: limit if that is set, else the
// measured best.
func warmUp(inst accel.Instance, limit int) (int, error) {
	sig := inst.Signature()
	if !sig.Batchable() {
		return 1, nil
	}
	if !known(sig) {
		if limit == 0 {
			limit = unknownBatch
		}
		return limit, nil
	}
	if limit > 0 {
		_, err := timeRuns(inst, limit)
		return limit, err
	}
	return search(func(rows int) (time.Duration, error) { return timeRuns(inst, rows) })
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

// search finds the batch size, given how long a run takes.
func search(run func(rows int) (time.Duration, error)) (int, error) {
	var spent time.Duration
	var rates []float64 // rows per second at 1, 2, 4, …
	best := 0.0
	for rows := 1; rows <= maxAutoBatch && spent < warmBudget; rows *= 2 {
		took, err := run(rows)
		if err != nil {
			return 0, err
		}
		spent += warmRuns * took
		rate := float64(rows) / took.Seconds()
		rates = append(rates, rate)
		if n := len(rates); n > 2 && rate < best && rates[n-2] < best {
			break // twice past the peak
		}
		best = math.Max(best, rate)
	}
	rows := 1
	for _, rate := range rates {
		if rate >= tolerance*best {
			break
		}
		rows *= 2
	}
	return rows, nil
}

// timeRuns is the time of the fastest of a few runs of rows rows of zeros.
func timeRuns(inst accel.Instance, rows int) (time.Duration, error) {
	sig := inst.Signature()
	in := make([]tensor.Tensor, len(sig.Inputs))
	for i, info := range sig.Inputs {
		shape := append([]int64{int64(rows)}, info.Shape[1:]...)
		n, _ := tensor.ByteSize(info.DType, shape)
		in[i] = tensor.Tensor{DType: info.DType, Shape: shape, Data: make([]byte, n)}
	}
	call, err := inst.Bind(in, make([]tensor.Tensor, len(sig.Outputs)))
	if err != nil {
		return 0, err
	}
	defer call.Close()
	fastest := time.Duration(math.MaxInt64)
	for range warmRuns {
		began := time.Now()
		if err := call.Run(); err != nil {
			return 0, err
		}
		fastest = min(fastest, max(time.Since(began), 1))
	}
	for i := range sig.Outputs {
		if o := call.Output(i); len(o.Shape) == 0 || o.Shape[0] != int64(rows) {
			return 0, fmt.Errorf("output %q has shape %v for %d rows: set maxBatchSize: 1", sig.Outputs[i].Name, o.Shape, rows)
		}
	}
	return fastest, nil
}
