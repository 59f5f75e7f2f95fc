package model

import (
	"slices"

	"sluice.dev/accel"
	"sluice.dev/accel/tensor"
)

// fitted is an instance whose clients see another signature than it has: tensors
// have as many elements, perhaps in other dimensions.
type fitted struct {
	accel.Instance
	seen     *tensor.Signature
	reshaped bool // some dimensions are others
}

// fit makes inst look as the plan says. On an error it is inst, as it was.
func fit(inst accel.Instance, p Plan) (accel.Instance, error) {
	if p == nil {
		return inst, nil
	}
	own := inst.Signature()
	seen, err := p.Fit(own)
	if err != nil {
		return inst, err
	}
	f := &fitted{Instance: inst, seen: seen}
	for _, pair := range [][2][]tensor.Info{{own.Inputs, seen.Inputs}, {own.Outputs, seen.Outputs}} {
		for i := range pair[0] {
			f.reshaped = f.reshaped || !compatible(pair[0][i].Shape, pair[1][i].Shape)
		}
	}
	return f, nil
}

// compatible reports whether every shape that seen accepts is one of own's.
func compatible(own, seen []int64) bool {
	return slices.EqualFunc(own, seen, func(a, b int64) bool { return a == -1 || a == b })
}

// Signature implements accel.Instance.
func (f *fitted) Signature() *tensor.Signature { return f.seen }

// Bind implements accel.Instance.
func (f *fitted) Bind(in, out []tensor.Tensor) (accel.Call, error) {
	if !f.reshaped {
		return f.Instance.Bind(in, out)
	}
	own := f.Instance.Signature()
	batched := f.seen.Batchable()
	call, err := f.Instance.Bind(reshape(in, own.Inputs, batched), reshape(out, own.Outputs, batched))
	if err != nil {
		return nil, err
	}
	return &refittedCall{Call: call, seen: f.seen, shapes: make([][]int64, len(own.Outputs))}, nil
}

// reshape gives tensors the dimensions of infos. What has no data is left alone.
func reshape(list []tensor.Tensor, infos []tensor.Info, batched bool) []tensor.Tensor {
	list = slices.Clone(list)
	for i := range list {
		if list[i].Shape != nil {
			list[i].Shape = resize(nil, list[i].Shape, infos[i].Shape, batched)
		}
	}
	return list
}

// resize appends to dst dimensions as in want with as many elements as shape. The
// rows of a batch stay as they are; one dimension that is free is what is left.
func resize(dst, shape, want []int64, batched bool) []int64 {
	left, _ := tensor.Elements(shape)
	free := -1
	from := len(dst)
	for i, d := range want {
		switch {
		case d >= 0:
		case i == 0 && batched:
			d = shape[0]
		default:
			free, d = i, 1
		}
		if d > 0 {
			left /= d
		}
		dst = append(dst, d)
	}
	if free >= 0 {
		dst[from+free] = left
	}
	return dst
}

// refittedCall is a call of a fitted instance.
type refittedCall struct {
	accel.Call
	seen   *tensor.Signature
	shapes [][]int64 // of outputs, valid until the next run
}

// Output implements accel.Call.
func (c *refittedCall) Output(i int) tensor.Tensor {
	t := c.Call.Output(i)
	c.shapes[i] = resize(c.shapes[i][:0], t.Shape, c.seen.Outputs[i].Shape, c.seen.Batchable())
	t.Shape = c.shapes[i]
	return t
}
