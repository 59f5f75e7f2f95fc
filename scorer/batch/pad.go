package batch

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"sluice.dev/accel/tensor"
)

// CheckPad says what is wrong with a policy's Pad for a model; nil if nothing.
func (p *Policy) CheckPad(sig *tensor.Signature) error {
	if p == nil || p.Pad == nil {
		return nil
	}
	for name := range p.Pad {
		if sig.Input(name) < 0 {
			return fmt.Errorf("pad names %q, which is no input of the model", name)
		}
	}
	for i := range sig.Inputs {
		in := &sig.Inputs[i]
		_, named := p.Pad[in.Name]
		switch free := len(in.Shape) > 0 && slices.Contains(in.Shape[1:], -1); {
		case free && !named:
			return fmt.Errorf("pad does not name input %q, whose shape is %v; give the value to fill it up with", in.Name, in.Shape)
		case free && in.DType == tensor.Bytes:
			return fmt.Errorf("pad: input %q has text, which cannot be filled up", in.Name)
		case free && in.DType == tensor.Float16 && p.Pad[in.Name] != 0:
			return fmt.Errorf("pad: input %q has 16 bit floats, which can be filled up with 0 only", in.Name)
		}
	}
	for _, out := range sig.Outputs {
		if len(out.Shape) == 0 || slices.Contains(out.Shape[1:], -1) {
			return fmt.Errorf("pad: the shape of output %q, %v, is not fixed, so that it would show what was filled up", out.Name, out.Shape)
		}
	}
	return nil
}

// element is v as one element of type t, little-endian.
func element(t tensor.DType, v float64) []byte {
	b := make([]byte, 8)
	switch t {
	case tensor.Float32:
		binary.LittleEndian.PutUint32(b, math.Float32bits(float32(v)))
	case tensor.BFloat16:
		binary.LittleEndian.PutUint16(b, uint16(math.Float32bits(float32(v))>>16))
	case tensor.Float16:
		// Only zero has the same bits in every width; other values are not offered.
	case tensor.Float64:
		binary.LittleEndian.PutUint64(b, math.Float64bits(v))
	case tensor.Uint64:
		binary.LittleEndian.PutUint64(b, uint64(v))
	default:
		binary.LittleEndian.PutUint64(b, uint64(int64(v)))
	}
	return b[:t.Size()]
}

// appendPadded appends src, of shape from, to dst as shape to, which is no smaller
// in any dimension, filled up with the element fill.
func appendPadded(dst, src []byte, from, to []int64, fill []byte) []byte {
	if slices.Equal(from[1:], to[1:]) && from[0] == to[0] {
		return append(dst, src...)
	}
	if len(to) == 1 {
		dst = append(dst, src...)
		for range to[0] - from[0] {
			dst = append(dst, fill...)
		}
		return dst
	}
	part := 0
	if from[0] > 0 {
		part = len(src) / int(from[0])
	}
	for i := range int(from[0]) {
		dst = appendPadded(dst, src[i*part:(i+1)*part], from[1:], to[1:], fill)
	}
	missing, _ := tensor.Elements(to[1:])
	for range (to[0] - from[0]) * missing {
		dst = append(dst, fill...)
	}
	return dst
}
