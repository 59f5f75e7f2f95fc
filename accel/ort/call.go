package ort

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	ort "github.com/yalue/onnxruntime_go"

	"sluice.dev/accel"
	"sluice.dev/accel/tensor"
)

// instance is one session. Any number of calls may run at a time.
type instance struct {
	session *ort.DynamicAdvancedSession
	sig     *tensor.Signature
	long    atomic.Bool // how it was with the call that found out last: its run lasted longRun
}

// Signature implements accel.Instance.
func (m *instance) Signature() *tensor.Signature { return m.sig }

// Close implements accel.Instance.
func (m *instance) Close() error { return m.session.Destroy() }

// elements are the runtime's names of the element types.
var elements = func() map[tensor.DType]ort.TensorElementDataType {
	m := map[tensor.DType]ort.TensorElementDataType{}
	for k, v := range dtypes {
		m[v] = k
	}
	return m
}()

// Bind implements accel.Instance. Data must be aligned to its element's size.
func (m *instance) Bind(in, out []tensor.Tensor) (accel.Call, error) {
	if err := accel.Check(m.sig, in, out); err != nil {
		return nil, err
	}
	c := &call{model: m, long: m.long.Load(), outputs: make([]ort.Value, len(out)), views: make([]tensor.Tensor, len(out))}
	if err := c.bind(in, out); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// call is a run over memory that its caller lends.
//
// The runtime keeps addresses of that memory between runs. It stays valid since
// the call refers to it (views, given) and pins it until Close; the binding keeps
// nothing alive by itself.
type call struct {
	model   *instance
	pins    runtime.Pinner
	inputs  []ort.Value
	refresh []func() error // copies into inputs that do not share the caller's memory
	outputs []ort.Value    // nil where the runtime provides them
	given   []tensor.Tensor
	views   []tensor.Tensor // the outputs
	binding *ort.IoBinding  // nil where an output is not given

	long bool // the last run lasted longRun; before the first, another call's did

	mu      sync.Mutex
	options *ort.RunOptions // of runs that can be terminated; nil before one was long
	over    bool            // it was terminated
}

// longRun is what a run must last so that the call's next one can be terminated, and
// the first one of a new call (where a dimension is free, every run has its own): that
// costs a few allocations, since the runtime's Go binding has no options for
// runs over a binding.
const longRun = time.Millisecond

func (c *call) bind(in, out []tensor.Tensor) error {
	for i := range in {
		v, err := c.input(&c.model.sig.Inputs[i], in[i])
		if err != nil {
			return err
		}
		c.inputs = append(c.inputs, v)
	}
	all := true
	for i := range out {
		if out[i].Data == nil {
			all = false
			continue
		}
		v, err := c.share(&c.model.sig.Outputs[i], out[i])
		if err != nil {
			return err
		}
		c.outputs[i] = v
		c.views[i] = tensor.Tensor{DType: out[i].DType, Shape: slices.Clone(out[i].Shape), Data: out[i].Data}
	}
	if !all {
		return c.known()
	}
	return c.bindAll()
}

// bindAll makes the binding with which a run passes nothing but a pointer.
func (c *call) bindAll() error {
	var err error
	if c.binding, err = c.model.session.CreateIoBinding(); err != nil {
		return fmt.Errorf("create binding: %w", err)
	}
	for i, v := range c.inputs {
		if err := c.binding.BindInput(c.model.sig.Inputs[i].Name, v); err != nil {
			return fmt.Errorf("bind input %q: %w", c.model.sig.Inputs[i].Name, err)
		}
	}
	for i, v := range c.outputs {
		if err := c.binding.BindOutput(c.model.sig.Outputs[i].Name, v); err != nil {
			return fmt.Errorf("bind output %q: %w", c.model.sig.Outputs[i].Name, err)
		}
	}
	return nil
}

// known refuses outputs that the runtime's Go binding cannot take over.
func (c *call) known() error {
	for i, o := range c.outputs {
		if t := c.model.sig.Outputs[i].DType; o == nil && (t == tensor.Float16 || t == tensor.BFloat16) {
			return fmt.Errorf("output %q of type %v needs memory given, so all its dimensions but the first must be fixed", c.model.sig.Outputs[i].Name, t)
		}
	}
	return nil
}

// input makes a value of t, sharing its memory where the runtime can.
func (c *call) input(info *tensor.Info, t tensor.Tensor) (ort.Value, error) {
	switch {
	case info.DType == tensor.Bytes:
		return c.strings(info, t)
	case len(t.Shape) == 0:
		return c.scalar(info, t)
	}
	return c.share(info, t)
}

// share makes a value over t's memory.
func (c *call) share(info *tensor.Info, t tensor.Tensor) (ort.Value, error) {
	switch {
	case info.DType == tensor.Bytes || len(t.Shape) == 0:
		return nil, fmt.Errorf("tensor %q of type %v and shape %v: its memory cannot be given", info.Name, info.DType, t.Shape)
	case uintptr(unsafe.Pointer(&t.Data[0]))%uintptr(info.DType.Size()) != 0:
		return nil, fmt.Errorf("tensor %q: the data of %v is not aligned", info.Name, info.DType)
	}
	c.pins.Pin(&t.Data[0])
	c.given = append(c.given, t)
	v, err := ort.NewCustomDataTensor(ort.NewShape(t.Shape...), t.Data, elements[info.DType])
	if err != nil {
		return nil, fmt.Errorf("tensor %q: %w", info.Name, err)
	}
	return v, nil
}

var errTerminated = errors.New("the run was terminated")

// Run implements accel.Call.
func (c *call) Run() error {
	for _, f := range c.refresh {
		if err := f(); err != nil {
			return err
		}
	}
	options, err := c.begin()
	if err != nil {
		return err
	}
	began := time.Now()
	if c.binding != nil && options == nil {
		err = c.model.session.RunWithBinding(c.binding)
	} else {
		err = c.runDynamic(options)
	}
	if long := time.Since(began) >= longRun; long != c.long {
		c.long = long
		c.model.long.Store(long)
	}
	return err
}

// begin returns the options of the next run, with which Terminate reaches it,
// or nil where the last one was too short for that to matter.
func (c *call) begin() (_ *ort.RunOptions, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.over:
		return nil, errTerminated
	case !c.long:
		return nil, nil
	case c.options == nil:
		c.options, err = ort.NewRunOptions()
	}
	return c.options, err
}

// Terminate implements accel.Call.
func (c *call) Terminate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.options != nil {
		_ = c.options.Terminate() // fails only where there are no options
	}
}

// runDynamic passes all values; the runtime provides the outputs that are not given.
func (c *call) runDynamic(o *ort.RunOptions) error {
	out := slices.Clone(c.outputs)
	if err := c.model.session.RunWithOptions(c.inputs, out, o); err != nil {
		return err
	}
	var err error
	for i, v := range out {
		if c.outputs[i] == nil {
			c.views[i], err = taken(v, c.model.sig.Outputs[i].DType, err)
		}
	}
	return err
}

// Output implements accel.Call.
func (c *call) Output(i int) tensor.Tensor { return c.views[i] }

// Close implements accel.Call.
func (c *call) Close() error {
	var errs []error
	if c.binding != nil {
		errs = append(errs, c.binding.Destroy())
	}
	if c.options != nil {
		errs = append(errs, c.options.Destroy())
	}
	for _, v := range slices.Concat(c.inputs, c.outputs) {
		if v != nil {
			errs = append(errs, v.Destroy())
		}
	}
	c.pins.Unpin()
	return errors.Join(errs...)
}
