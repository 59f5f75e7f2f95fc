// Package null is a device that does nothing: what is left of a request's cost
// is everybody else's.
package null

import (
	"slices"

	"sluice.dev/accel"
	"sluice.dev/accel/tensor"
)

// Digits is the signature of the digits example, which null models have: a row of
// 64 pixels in, a label and ten probabilities out.
var Digits = tensor.Signature{
	Inputs: []tensor.Info{{Name: "input", DType: tensor.Float32, Shape: []int64{-1, 64}}},
	Outputs: []tensor.Info{
		{Name: "label", DType: tensor.Int64, Shape: []int64{-1}},
		{Name: "probabilities", DType: tensor.Float32, Shape: []int64{-1, 10}},
	},
}

// Driver implements accel.Driver. The model's file is not read; every model has
// the signature Digits, and answers zeros.
type Driver struct{}

// New makes the driver.
func New() Driver { return Driver{} }

// Name implements accel.Driver.
func (Driver) Name() string { return "null" }

// Devices implements accel.Driver: one, with two slots.
func (Driver) Devices() ([]accel.Device, error) {
	return []accel.Device{{ID: "0", Name: "null", Slots: 2}}, nil
}

// Open implements accel.Driver.
func (Driver) Open(accel.Model, accel.Options) (accel.Instance, error) { return Open(&Digits), nil }

// Open makes a model that answers zeros, of a signature whose outputs have free first
// dimensions at most: as many rows as the first input.
func Open(sig *tensor.Signature) accel.Instance { return &instance{sig} }

type instance struct{ sig *tensor.Signature }

func (m *instance) Signature() *tensor.Signature { return m.sig }
func (m *instance) Close() error                 { return nil }

func (m *instance) Bind(in, out []tensor.Tensor) (accel.Call, error) {
	if err := accel.Check(m.sig, in, out); err != nil {
		return nil, err
	}
	c := &call{out: make([]tensor.Tensor, len(out))}
	for i, t := range out {
		info := m.sig.Outputs[i]
		if t.Data == nil {
			t.Shape = slices.Clone(info.Shape)
			if len(t.Shape) > 0 && t.Shape[0] < 0 {
				t.Shape[0] = in[0].Shape[0]
			}
			size, _ := tensor.ByteSize(info.DType, t.Shape)
			t.Data = make([]byte, size)
		}
		c.out[i] = tensor.Tensor{DType: info.DType, Shape: slices.Clone(t.Shape), Data: t.Data}
	}
	return c, nil
}

type call struct{ out []tensor.Tensor }

func (c *call) Run() error                 { return nil }
func (c *call) Terminate()                 {}
func (c *call) Output(i int) tensor.Tensor { return c.out[i] }
func (c *call) Close() error               { return nil }
