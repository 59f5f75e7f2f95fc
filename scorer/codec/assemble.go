package codec

import (
	"fmt"
	"strings"

	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
)

func bad(format string, args ...any) error {
	return scorer.Errorf(scorer.InvalidArgument, format, args...)
}

// spread gives the inputs that have no data in the JSON theirs from tail, in the
// order in which they were named.
func (r *Infer) spread(sig *tensor.Signature, model string, tail []byte, hasHead bool) error {
	if len(r.given) != len(sig.Inputs) {
		return r.missing(sig, model)
	}
	for i := range r.given {
		in := &r.given[i]
		if in.found {
			continue
		}
		if !hasHead {
			return bad("must specify valid 'Infer-Header-Content-Length' in request header and 'binary_data_size' when passing inputs in binary data format")
		}
		if in.raw > len(tail) {
			return bad("unexpected size for input '%s', expecting %d additional bytes for model '%s'", sig.Inputs[in.index].Name, in.raw-len(tail), model)
		}
		in.data, tail = tail[:in.raw:in.raw], tail[in.raw:]
		in.count = -1
	}
	if len(tail) > 0 {
		return bad("unexpected additional input data for model '%s'", model)
	}
	return nil
}

// assemble makes Inputs of what was read.
func (r *Infer) assemble(sig *tensor.Signature, model string) error {
	if len(r.given) != len(sig.Inputs) {
		return r.missing(sig, model)
	}
	r.place(sig)
	for i := range r.given {
		in := &r.given[i]
		t := tensor.Tensor{DType: in.dtype, Shape: r.shapes[in.shape[0]:in.shape[1]:in.shape[1]], Data: in.data}
		if in.at.region != "" {
			var err error
			if t.Data, err = r.fetch(in); err != nil {
				return err
			}
		}
		if t.Data == nil {
			t.Data = r.memory[in.memory[0]:in.memory[1]:in.memory[1]]
		}
		if err := check(&sig.Inputs[in.index], &t, in, model); err != nil {
			return err
		}
		r.Inputs[in.index] = t
	}
	return nil
}

// missing says which inputs are.
func (r *Infer) missing(sig *tensor.Signature, model string) error {
	var got, lack []string
	for i := range sig.Inputs {
		if name := "'" + sig.Inputs[i].Name + "'"; r.input(i) != nil {
			got = append(got, name)
		} else {
			lack = append(lack, name)
		}
	}
	return bad("expected %d inputs but got %d inputs for model '%s'. Got input(s) [%s], but missing required input(s) [%s]. Please provide all required input(s).",
		len(sig.Inputs), len(r.given), model, strings.Join(got, ","), strings.Join(lack, ","))
}

// check holds an input against what the model declares, and its data against its
// shape.
func check(info *tensor.Info, t *tensor.Tensor, in *input, model string) error {
	if t.DType != info.DType {
		return bad("inference input '%s' data-type is '%v', but model '%s' expects '%v'", info.Name, t.DType, model, info.DType)
	}
	if !info.Accepts(t.Shape) {
		return bad("unexpected shape for input '%s' for model '%s'. Expected %s, got %s", info.Name, model, dims(info.Shape), dims(t.Shape))
	}
	count, ok := tensor.Elements(t.Shape)
	if !ok {
		return bad("invalid shape for input '%s': shape %s causes total element count to exceed maximum size of 9223372036854775807", info.Name, dims(t.Shape))
	}
	if in.count >= 0 && in.count != count {
		return bad("Unable to parse 'data': Shape does not match true shape of 'data' field")
	}
	if count == 0 {
		return bad("input '%s' for model '%s' has shape %s, which has no elements; every dimension must be at least 1", info.Name, model, dims(t.Shape))
	}
	if in.count >= 0 {
		return nil
	}
	if t.DType == tensor.Bytes {
		return checkStrings(t.Data, count, model, info.Name)
	}
	size, ok := tensor.ByteSize(t.DType, t.Shape)
	if !ok {
		return bad("byte size overflow for input '%s': shape %s of %v", info.Name, dims(t.Shape), t.DType)
	}
	if size != int64(len(t.Data)) {
		return bad("input byte size mismatch for input '%s' for model '%s'. Expected %d, got %d", info.Name, model, size, len(t.Data))
	}
	return nil
}

// dims writes a shape as Triton does.
func dims(shape []int64) string {
	var b strings.Builder
	b.WriteByte('[')
	for i, d := range shape {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprint(&b, d)
	}
	b.WriteByte(']')
	return b.String()
}

// checkRows finds how many rows the request has.
func (r *Infer) checkRows(sig *tensor.Signature, model string) error {
	if !sig.Batchable() {
		return nil
	}
	rows := r.Inputs[0].Shape[0]
	for i := range r.Inputs {
		if r.Inputs[i].Shape[0] != rows {
			return bad("input '%s' batch size does not match other inputs for '%s'", sig.Inputs[i].Name, model)
		}
	}
	if rows > 1<<30 {
		return bad("inference request batch-size must be <= %d for '%s'", 1<<30, model)
	}
	r.Rows = int(rows)
	return nil
}

// decodeRaw takes body as the only input's data.
func (r *Infer) decodeRaw(sig *tensor.Signature, model string, body []byte) error {
	r.binary = true
	if len(sig.Inputs) != 1 {
		return bad("Raw request must only have 1 input (found 1) to be deduced but got %d inputs in '%s' model configuration", len(sig.Inputs), model)
	}
	info := &sig.Inputs[0]
	r.place(sig)
	shape, err := r.deduce(info, len(body), sig.Batchable())
	if err != nil {
		return err
	}
	t := tensor.Tensor{DType: info.DType, Shape: shape, Data: body}
	if info.DType == tensor.Bytes {
		at := len(r.memory)
		r.memory = appendElement(r.memory, body)
		t.Data = r.memory[at:]
	}
	r.Inputs[0] = t
	return check(info, &r.Inputs[0], &input{count: -1}, model)
}

// deduce finds the shape of a raw body: one row, and at most one other dimension
// that the number of bytes decides.
func (r *Infer) deduce(info *tensor.Info, size int, batchable bool) ([]int64, error) {
	shape := append(r.shapes, info.Shape...)[len(r.shapes):]
	free, known := -1, int64(max(info.DType.Size(), 1))
	for i, d := range shape {
		switch {
		case d >= 0:
			known *= d
		case i == 0 && batchable:
			shape[0] = 1
		case free >= 0:
			return nil, bad("The shape of the raw input '%s' can not be deduced because there are more than one variable-sized dimension", info.Name)
		default:
			free = i
		}
	}
	if free >= 0 {
		shape[free] = 1
		if info.DType != tensor.Bytes && known > 0 {
			shape[free] = int64(size) / known
		}
	}
	if n, ok := tensor.Elements(shape); info.DType == tensor.Bytes && (!ok || n != 1) {
		return nil, bad("For BYTE datatype raw input '%s', the model must have input shape [1]", info.Name)
	}
	return shape, nil
}
