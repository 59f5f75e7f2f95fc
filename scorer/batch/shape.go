package batch

import (
	"math"
	"math/bits"
	"slices"

	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
)

// shape is the jobs that can run together, and what their runs cost. Where inputs
// may be filled up, lengths that are about as long are one shape.
type shape struct {
	dims   []int64 // all dimensions of all inputs but the first, in order, rounded up where they may be
	hash   uint64
	node   node[shape] // in Former.order while listed
	listed bool
	used   scorer.Instant

	jobs     heap[Job]
	rows     int // that wait
	curve    Curve
	arrivals arrivals // of this shape, where there are several
}

// maxShapes is how many are remembered beside those that are in use.
const maxShapes = 64

func newShape(dims []int64, hash uint64) *shape {
	s := &shape{dims: dims, hash: hash}
	s.node.owner = s
	return s
}

// fixedInside reports whether no input's dimensions but the first are free.
func fixedInside(sig *tensor.Signature) bool {
	return !slices.ContainsFunc(sig.Inputs, func(i tensor.Info) bool {
		return len(i.Shape) == 0 || slices.Contains(i.Shape[1:], -1)
	})
}

// shapeOf finds j's shape, or makes it.
func (f *Former) shapeOf(j *Job) *shape {
	if f.uniform {
		return f.shapes[0]
	}
	hash := f.hash(j)
	for _, s := range f.shapes {
		if s.hash == hash && f.fits(s, j) {
			s.used = j.arrived
			return s
		}
	}
	return f.addShape(j, hash)
}

// roundUp is a dimension as shapes have it: lengths within an eighth of an octave
// are one where inputs are filled up.
func (f *Former) roundUp(d int64) int64 {
	if f.policy.Pad == nil || d <= 8 {
		return d
	}
	step := int64(1) << max(bits.Len64(uint64(d-1))-4, 0)
	return (d + step - 1) / step * step
}

// inner are the dimensions of an input that shapes are told apart by.
func inner(t *tensor.Tensor) []int64 {
	if len(t.Shape) == 0 {
		return nil
	}
	return t.Shape[1:]
}

// hash is hashOf j's dimensions.
func (f *Former) hash(j *Job) uint64 {
	h := hashBase
	for i := range j.In {
		for _, d := range inner(&j.In[i]) {
			h = hashStep(h, f.roundUp(d))
		}
	}
	return h
}

// hashOf is FNV-1a over dimensions.
func hashOf(dims []int64) uint64 {
	h := hashBase
	for _, d := range dims {
		h = hashStep(h, d)
	}
	return h
}

const hashBase uint64 = 14695981039346656037

func hashStep(h uint64, d int64) uint64 { return (h ^ uint64(d)) * 1099511628211 }

// fits reports whether j is of shape s.
func (f *Former) fits(s *shape, j *Job) bool {
	k := 0
	for i := range j.In {
		for _, d := range inner(&j.In[i]) {
			if k >= len(s.dims) || s.dims[k] != f.roundUp(d) {
				return false
			}
			k++
		}
	}
	return k == len(s.dims)
}

// addShape makes j's shape, in the place of one that was not used for long if there
// are many. Until it ran, it is taken to cost what the nearest does per element.
func (f *Former) addShape(j *Job, hash uint64) *shape {
	var dims []int64
	for i := range j.In {
		for _, d := range inner(&j.In[i]) {
			dims = append(dims, f.roundUp(d))
		}
	}
	s := newShape(dims, hash)
	s.used = j.arrived
	f.guess(s)
	oldest := -1
	for i, o := range f.shapes {
		if o.jobs.first() == nil && (oldest < 0 || o.used < f.shapes[oldest].used) {
			oldest = i
		}
	}
	if len(f.shapes) >= maxShapes && oldest >= 0 {
		f.shapes[oldest] = s
	} else {
		f.shapes = append(f.shapes, s)
	}
	return s
}

// elements is the size of a row of s.
func (s *shape) elements() float64 {
	n := 1.0
	for _, d := range s.dims {
		n *= float64(max(d, 1))
	}
	return n
}

// guess gives s the curve of the shape whose rows are nearest in size, if one ran.
func (f *Former) guess(s *shape) {
	var near *shape
	off := math.Inf(1)
	for _, o := range f.shapes {
		if d := math.Abs(math.Log(s.elements() / o.elements())); o.curve.Known() && d < off {
			near, off = o, d
		}
	}
	if near != nil {
		s.curve.guess(&near.curve, s.elements()/near.elements())
	}
}

// covers reports whether a row of o fits into a row of s that is filled up.
func (s *shape) covers(o *shape) bool {
	if len(s.dims) != len(o.dims) {
		return false
	}
	for i := range s.dims {
		if s.dims[i] < o.dims[i] {
			return false
		}
	}
	return true
}

// join adds to a run that has room jobs of other shapes, filled up, where one run
// of all takes less time than a run of each.
func (f *Former) join(now scorer.Instant, p *Plan) {
	if f.policy.Pad == nil || f.fixed || len(p.Run) == 0 {
		return
	}
	for p.rows < f.limit {
		var best *shape
		var most float64
		for _, o := range f.shapes {
			if gain := f.joined(p, o); gain > most {
				best, most = o, gain
			}
		}
		if best == nil {
			return
		}
		own, rows := p.shape, p.rows
		p.shape = best
		f.fill(now, min(rows+best.rows, f.limit), own.curve.At(rows+best.rows), p)
		if own.covers(best) {
			p.shape = own
		}
		if p.rows == rows {
			return // who is there does not fit
		}
	}
}

// joined is what it gains in nanoseconds to run what waits of o with p.
func (f *Former) joined(p *Plan, o *shape) float64 {
	if o == p.shape || o.rows == 0 || !o.curve.Known() || !p.shape.curve.Known() {
		return 0
	}
	large := o
	switch {
	case p.shape.covers(o):
		large = p.shape
	case !o.covers(p.shape):
		return 0
	}
	n := min(o.rows, f.limit-p.rows)
	return p.shape.curve.at(float64(p.rows)) + o.curve.at(float64(n)) - large.curve.at(float64(p.rows+n))
}
