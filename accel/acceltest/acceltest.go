// Package acceltest holds a driver to the contract of package accel.
package acceltest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice.dev/accel"
	"sluice.dev/accel/tensor"
)

// Test runs every check. m is a model with the signature of the digits example:
// FP32 [N,64] to INT64 [N] and FP32 [N,10].
func Test(t *testing.T, d accel.Driver, m accel.Model) {
	devices, err := d.Devices()
	if err != nil || len(devices) == 0 {
		t.Fatalf("devices %v, %v", devices, err)
	}
	for _, device := range devices {
		if device.ID == "" || device.Name == "" || device.Slots < 1 {
			t.Errorf("device %+v is not described", device)
		}
		t.Run(device.ID, func(t *testing.T) {
			inst, err := d.Open(m, accel.Options{Device: device.ID})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := inst.Close(); err != nil {
					t.Error(err)
				}
			}()
			t.Run("given and provided outputs agree", func(t *testing.T) { outputs(t, inst) })
			t.Run("calls run side by side", func(t *testing.T) { sideBySide(t, inst) })
			t.Run("wrong memory is refused", func(t *testing.T) { wrongMemory(t, inst) })
			t.Run("a run does not allocate", func(t *testing.T) { allocations(t, inst) })
		})
	}
}

// Tensors are memory for rows digits.
func Tensors(rows int64) (in, out []tensor.Tensor) {
	return []tensor.Tensor{{DType: tensor.Float32, Shape: []int64{rows, 64}, Data: make([]byte, rows*256)}},
		[]tensor.Tensor{
			{DType: tensor.Int64, Shape: []int64{rows}, Data: make([]byte, rows*8)},
			{DType: tensor.Float32, Shape: []int64{rows, 10}, Data: make([]byte, rows*40)},
		}
}

// paint fills row r with pixels of one brightness.
func paint(t tensor.Tensor, r int, v float32) {
	for i := range 64 {
		binary.LittleEndian.PutUint32(t.Data[256*r+4*i:], math.Float32bits(v))
	}
}

// bind binds what must fit.
func bind(t *testing.T, m accel.Instance, in, out []tensor.Tensor) accel.Call {
	t.Helper()
	c, err := m.Bind(in, out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func outputs(t *testing.T, m accel.Instance) {
	in, out := Tensors(3)
	given, provided := bind(t, m, in, out), bind(t, m, in, make([]tensor.Tensor, 2))
	for _, v := range []float32{0, 3, 16} { // memory is read afresh
		paint(in[0], 1, v)
		if err := errors.Join(given.Run(), provided.Run()); err != nil {
			t.Fatal(err)
		}
		for i := range out {
			a, b := given.Output(i), provided.Output(i)
			if !bytes.Equal(a.Data, b.Data) || !bytes.Equal(a.Data, out[i].Data) || !slices.Equal(a.Shape, b.Shape) || b.Shape[0] != 3 || a.DType != b.DType {
				t.Errorf("output %d is %v %v %x given, %v %v %x provided", i, a.DType, a.Shape, a.Data, b.DType, b.Shape, b.Data)
			}
		}
	}
}

func sideBySide(t *testing.T, m accel.Instance) {
	var wg sync.WaitGroup
	for g := range 4 {
		in, out := Tensors(1)
		c := bind(t, m, in, out)
		paint(in[0], 0, float32(g))
		wg.Go(func() {
			var want []byte
			for range 500 {
				if err := c.Run(); err != nil {
					t.Error(err)
					return
				}
				if want == nil {
					want = bytes.Clone(out[1].Data)
				} else if !bytes.Equal(out[1].Data, want) {
					t.Errorf("caller %d got another answer", g)
					return
				}
			}
		})
	}
	wg.Wait()
}

func wrongMemory(t *testing.T, m accel.Instance) {
	f := func(want string, change func(in, out []tensor.Tensor)) {
		t.Helper()
		in, out := Tensors(1)
		change(in, out)
		if c, err := m.Bind(in, out); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("bound %v, %v; want an error with %q", c, err, want)
		}
	}
	f("FP32 [-1 64]; bound FP64", func(in, _ []tensor.Tensor) { in[0].DType = tensor.Float64 })
	f("bound FP32 [1 63]", func(in, _ []tensor.Tensor) { in[0].Shape = []int64{1, 63} })
	f("has 255 bytes", func(in, _ []tensor.Tensor) { in[0].Data = in[0].Data[:255] })
	f("has 0 bytes", func(in, _ []tensor.Tensor) { in[0].Shape, in[0].Data = []int64{0, 64}, nil })
	f("has 39 bytes", func(_, out []tensor.Tensor) { out[1].Data = out[1].Data[:39] })
	if _, err := m.Bind(nil, nil); err == nil {
		t.Error("bound nothing")
	}
}

func allocations(t *testing.T, m accel.Instance) {
	in, out := Tensors(8)
	c := bind(t, m, in, out)
	if n := testing.AllocsPerRun(100, func() { _ = c.Run() }); n != 0 {
		t.Errorf("%v allocations per run", n)
	}
}
