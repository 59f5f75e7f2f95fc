// Package tensor describes dense tensors as typed views over borrowed bytes.
package tensor

import (
	"encoding/binary"
	"math"
	"slices"
)

// Tensor is a view: it owns neither Shape nor Data, and is valid for as long as
// whoever lent them says.
//
// Data is row-major and little-endian. A Bytes tensor is in the Open Inference
// Protocol's raw form: per element a uint32 length, then that many bytes.
type Tensor struct {
	DType DType
	Shape []int64 // dimensions, each >= 0; empty for a scalar
	Data  []byte
}

// Elements is the product of shape, 1 for a scalar. ok is false where a
// dimension is negative or the product exceeds an int64.
func Elements(shape []int64) (n int64, ok bool) {
	n = 1
	zero := false
	for _, d := range shape {
		switch {
		case d < 0:
			return 0, false
		case d == 0:
			zero = true
		case n > math.MaxInt64/d:
			return 0, false
		default:
			n *= d
		}
	}
	if zero {
		return 0, true
	}
	return n, true
}

// ByteSize is the length of a dense tensor's data in bytes. ok is false for
// Bytes (its length depends on its content) and where the product overflows.
func ByteSize(t DType, shape []int64) (n int64, ok bool) {
	size := int64(t.Size())
	n, ok = Elements(shape)
	if !ok || size == 0 || n > math.MaxInt64/size {
		return 0, false
	}
	return n * size, true
}

// Cut divides the data of elements of type t after the first n, which there must be.
func Cut(t DType, data []byte, n int) (head, rest []byte) {
	if size := t.Size(); size > 0 {
		return data[:n*size], data[n*size:]
	}
	rest = data
	for range n {
		rest = rest[4+binary.LittleEndian.Uint32(rest):]
	}
	return data[:len(data)-len(rest)], rest
}

// Info names a tensor that a model takes or gives.
type Info struct {
	Name  string  `json:"name"`
	DType DType   `json:"datatype"`
	Shape []int64 `json:"shape"` // -1 where any size is accepted
}

// Accepts reports whether shape fits the declared one.
func (i *Info) Accepts(shape []int64) bool {
	if len(shape) != len(i.Shape) {
		return false
	}
	for k, d := range i.Shape {
		if shape[k] < 0 || d >= 0 && d != shape[k] {
			return false
		}
	}
	return true
}

// Signature is a model's inputs and outputs, in the model's own order.
type Signature struct {
	Inputs  []Info `json:"inputs"`
	Outputs []Info `json:"outputs"`
	// Alone says that requests must not run as one, whatever the shapes allow.
	Alone bool `json:"alone,omitempty"`
}

// Batchable reports whether several requests can run as one: every input and
// every output has a first dimension of any size, and they need not be Alone. It is
// the declared half of the truth; a model may still mix its rows.
func (s *Signature) Batchable() bool {
	free := func(i Info) bool { return len(i.Shape) > 0 && i.Shape[0] == -1 }
	return !s.Alone && len(s.Inputs) > 0 && !slices.ContainsFunc(s.Inputs, func(i Info) bool { return !free(i) }) &&
		!slices.ContainsFunc(s.Outputs, func(i Info) bool { return !free(i) })
}

// Input is the index of the input called name, or -1.
func (s *Signature) Input(name string) int { return index(s.Inputs, name) }

// Output is the index of the output called name, or -1.
func (s *Signature) Output(name string) int { return index(s.Outputs, name) }

func index(list []Info, name string) int {
	for i := range list {
		if list[i].Name == name {
			return i
		}
	}
	return -1
}
