package metrics

import (
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Buckets are the buckets of histograms of one kind: classic ones, and the native
// ones of Prometheus, eight for each power of two. Immutable.
//
// What is counted are cells: native buckets, those in which a classic bound falls
// cut in two there. So one counter is enough for both, and they never disagree.
type Buckets struct {
	bounds  []float64 // upper ones of the cells, inclusive; above the last is one cell more
	classic []float64 // upper ones, inclusive; each is in bounds
	native  []int     // by cell, the index of its native bucket; nil where there is none
}

const (
	schema   = 3 // native buckets grow by 2^(1/8), 9%
	perPower = 1 << schema
	lowest   = -20 // power of two up to which all is zero: a microsecond
	highest  = 9   // power of two above which all is one bucket: 512 seconds
)

// Seconds are buckets of durations: the given classic ones, which are longer than a
// microsecond, and native ones.
func Seconds(classic []float64) *Buckets {
	b := &Buckets{classic: classic, bounds: slices.Clone(classic)}
	for i := lowest * perPower; i <= highest*perPower; i++ {
		b.bounds = append(b.bounds, math.Exp2(float64(i)/perPower))
	}
	slices.Sort(b.bounds)
	b.bounds = slices.Compact(b.bounds)
	index := lowest * perPower // the bucket that counts as zero
	for _, bound := range b.bounds {
		b.native = append(b.native, index)
		if bound >= math.Exp2(float64(index)/perPower) {
			index++
		}
	}
	b.native = append(b.native, index)
	return b
}

// Counts are classic buckets alone.
func Counts(classic []float64) *Buckets { return &Buckets{classic: classic, bounds: classic} }

// chunk is cells that are next to each other.
type chunk [16]atomic.Uint64

// chunks is how many the largest Buckets have.
const chunks = 17

// Histogram counts observations. The cells that are never met take no memory, which
// is what a process of many endpoints lives by: 60,000 versions of three histograms
// each. Safe for concurrent use; an observation takes no lock.
type Histogram struct {
	buckets *Buckets
	sum     atomic.Uint64 // bits of a float64
	cells   [chunks]atomic.Pointer[chunk]
}

// NewHistogram makes an empty one.
func NewHistogram(b *Buckets) *Histogram { return &Histogram{buckets: b} }

// Observe counts v.
func (h *Histogram) Observe(v float64) {
	i, _ := slices.BinarySearch(h.buckets.bounds, v)
	c := h.cells[i/len(chunk{})].Load()
	if c == nil {
		c = h.add(i / len(chunk{}))
	}
	c[i%len(chunk{})].Add(1)
	for {
		old := h.sum.Load()
		if h.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// add makes a chunk, unless somebody else has just done so.
func (h *Histogram) add(i int) *chunk {
	h.cells[i].CompareAndSwap(nil, new(chunk))
	return h.cells[i].Load()
}

// Metric is what was observed until now, under a description with values for its
// labels. It is read when it is written.
func (h *Histogram) Metric(d *prometheus.Desc, labels ...string) prometheus.Metric {
	return reading{h, d, labels}
}

// reading is a Histogram as Prometheus reads it.
type reading struct {
	*Histogram
	desc   *prometheus.Desc
	labels []string
}

// Desc implements prometheus.Metric.
func (r reading) Desc() *prometheus.Desc { return r.desc }

// Write implements prometheus.Metric.
func (r reading) Write(out *dto.Metric) error {
	b := r.buckets
	classic, native := map[float64]uint64{}, map[int]int64{}
	var count, zero uint64
	next := 0
	for i := range len(b.bounds) + 1 {
		if c := r.cells[i/len(chunk{})].Load(); c != nil {
			n := c[i%len(chunk{})].Load()
			count += n
			switch {
			case b.native == nil || n == 0:
			case b.native[i] == lowest*perPower:
				zero += n
			default:
				native[b.native[i]] += int64(n)
			}
		}
		if next < len(b.classic) && i < len(b.bounds) && b.bounds[i] == b.classic[next] {
			classic[b.classic[next]] = count
			next++
		}
	}
	sum := math.Float64frombits(r.sum.Load())
	m, err := prometheus.NewConstHistogram(r.desc, count, sum, classic, r.labels...)
	if err != nil {
		return err
	}
	if err := m.Write(out); err != nil || b.native == nil {
		return err
	}
	m, err = prometheus.NewConstNativeHistogram(r.desc, count, sum, native, nil, zero, schema, math.Exp2(lowest), time.Time{}, r.labels...)
	if err != nil {
		return err
	}
	var other dto.Metric
	if err := m.Write(&other); err != nil {
		return err
	}
	to, from := out.Histogram, other.Histogram
	to.Schema, to.ZeroThreshold, to.ZeroCount, to.PositiveSpan, to.PositiveDelta = from.Schema, from.ZeroThreshold, from.ZeroCount, from.PositiveSpan, from.PositiveDelta
	return nil
}
