package batch

import (
	"slices"

	"sluice.dev/accel"
	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
)

// part is the output of one piece of a split job.
type part struct {
	from int
	out  []tensor.Tensor // owned
}

// keep copies a piece's outputs until the other pieces are there.
func (j *Job) keep(from int, out []tensor.Tensor) {
	p := part{from: from, out: make([]tensor.Tensor, len(out))}
	for i, t := range out {
		p.out[i] = tensor.Tensor{DType: t.DType, Shape: slices.Clone(t.Shape), Data: slices.Clone(t.Data)}
	}
	j.parts = append(j.parts, p)
}

// join puts a split job's outputs together in row order.
func (j *Job) join() ([]tensor.Tensor, error) {
	slices.SortFunc(j.parts, func(a, b part) int { return a.from - b.from })
	out := j.parts[0].out
	for _, p := range j.parts[1:] {
		for i := range out {
			if !slices.Equal(out[i].Shape[1:], p.out[i].Shape[1:]) {
				return nil, scorer.Errorf(scorer.ModelFailed, "output %d has shapes %v and %v in two runs of one request; send fewer rows", i, out[i].Shape, p.out[i].Shape)
			}
			out[i].Shape[0] += p.out[i].Shape[0]
			out[i].Data = append(out[i].Data, p.out[i].Data...)
		}
	}
	return out, nil
}

// slicer cuts a batch's outputs into its members' rows, in scratch memory.
type slicer struct {
	out    []tensor.Tensor
	shapes []int64
}

// cut gives rows [from, from+n) of each of call's outputs, valid until the next
// cut or run. all says that these are all rows.
func (c *slicer) cut(call accel.Call, outputs, from, n int, all bool) []tensor.Tensor {
	c.out, c.shapes = c.out[:0], c.shapes[:0]
	for i := range outputs {
		t := call.Output(i)
		if !all {
			t.Data = rowsOf(&t, from, n, false)
			at := len(c.shapes)
			c.shapes = append(c.shapes, t.Shape...)
			c.shapes[at] = int64(n)
			t.Shape = c.shapes[at:len(c.shapes):len(c.shapes)]
		}
		c.out = append(c.out, t)
	}
	return c.out
}
