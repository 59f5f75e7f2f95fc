// Package sim is a device that takes time and computes nothing: load tests and
// capacity plans of an accelerator that is not there, or not free.
//
// Its models are JSON files that say how long runs take, such as
//
//	{"times": {"1": "4ms", "8": "5ms", "64": "12ms"}}
//
// by their rows: a straight line between two sizes, and on past the last. A
// "signature" of "inputs" and "outputs", as metadata of the Open Inference Protocol
// has them, is that of the digits example where it is left out. Answers are zeros.
package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"sluice.dev/accel"
	"sluice.dev/accel/null"
	"sluice.dev/accel/tensor"
)

// Driver implements accel.Driver.
type Driver struct{}

// New makes the driver.
func New() Driver { return Driver{} }

// Name implements accel.Driver.
func (Driver) Name() string { return "sim" }

// Devices implements accel.Driver: one, which runs one batch at a time.
func (Driver) Devices() ([]accel.Device, error) {
	return []accel.Device{{ID: "0", Name: "simulated", Slots: 1}}, nil
}

const maxFile = 1 << 20 // bytes

// Open implements accel.Driver.
func (Driver) Open(m accel.Model, _ accel.Options) (accel.Instance, error) {
	f, err := os.Open(m.Path)
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err // the error is told without the path
		}
		return nil, fmt.Errorf("open simulated model: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read simulated model: %w", err)
	}
	sig, times, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("simulated model: %w", err)
	}
	return &instance{null.Open(sig), times}, nil
}

// point is how long runs of so many rows take.
type point struct {
	rows int
	took time.Duration
}

// parse reads a model.
func parse(text []byte) (*tensor.Signature, []point, error) {
	if len(text) > maxFile {
		return nil, nil, errors.New("the file is larger than 1 MiB")
	}
	var file struct {
		Signature *tensor.Signature `json:"signature"`
		Times     map[string]string `json:"times"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		return nil, nil, fmt.Errorf(`%w; it is JSON such as {"times": {"1": "4ms", "64": "12ms"}}`, err)
	}
	times, err := points(file.Times)
	if err != nil {
		return nil, nil, err
	}
	sig := file.Signature
	if sig == nil {
		return &null.Digits, times, nil
	}
	return sig, times, check(sig)
}

// points are the times by rows, in order.
func points(times map[string]string) (list []point, err error) {
	const longest = time.Hour
	for rows, text := range times {
		n, err := strconv.Atoi(rows)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("times: %.40q is not a number of rows", rows)
		}
		took, err := time.ParseDuration(text)
		if err != nil || took < 0 || took > longest {
			return nil, fmt.Errorf("times: %.40q is not a duration of up to %v, such as 4ms", text, longest)
		}
		list = append(list, point{n, took})
	}
	if len(list) == 0 {
		return nil, errors.New(`"times" says nothing; give at least one, such as {"1": "4ms"}`)
	}
	slices.SortFunc(list, func(a, b point) int { return a.rows - b.rows })
	return list, nil
}

// maxRow is the most bytes of an output's row.
const maxRow = 64 << 20

// check refuses signatures that answers cannot be made for.
func check(sig *tensor.Signature) error {
	if len(sig.Inputs) == 0 || len(sig.Outputs) == 0 {
		return errors.New("the signature needs an input and an output")
	}
	for _, i := range slices.Concat(sig.Inputs, sig.Outputs) {
		if i.Name == "" || i.DType == tensor.Invalid || slices.ContainsFunc(i.Shape, func(d int64) bool { return d < -1 || d == 0 }) {
			return fmt.Errorf("tensor %.40q needs a name, a datatype such as FP32, and a shape of dimensions over 0, or -1 for any", i.Name)
		}
	}
	for _, o := range sig.Outputs {
		row := slices.Clone(o.Shape)
		if len(row) > 0 && row[0] == -1 && len(sig.Inputs[0].Shape) > 0 {
			row[0] = 1
		}
		if size, ok := tensor.ByteSize(o.DType, row); !ok || size > maxRow || o.DType == tensor.Bytes {
			return fmt.Errorf("output %.40q: outputs are numbers, at most 64 MiB a row, and only their first dimension may be -1, where the first input has one", o.Name)
		}
	}
	return nil
}

// after is how long a run of rows takes: at least nothing.
func after(times []point, rows int) time.Duration {
	i := slices.IndexFunc(times, func(p point) bool { return rows <= p.rows })
	switch {
	case len(times) == 1 || i == 0:
		return times[0].took
	case i < 0:
		i = len(times) - 1
	}
	a, b := times[i-1], times[i]
	slope := float64(b.took-a.took) / float64(b.rows-a.rows)
	return max(0, a.took+time.Duration(slope*float64(rows-a.rows)))
}

type instance struct {
	accel.Instance // which takes no time
	times          []point
}

// Bind implements accel.Instance.
func (m *instance) Bind(in, out []tensor.Tensor) (accel.Call, error) {
	c, err := m.Instance.Bind(in, out)
	if err != nil {
		return nil, err
	}
	rows := 1
	if s := in[0].Shape; len(s) > 0 {
		rows = int(s[0])
	}
	return &call{Call: c, took: after(m.times, rows)}, nil
}

type call struct {
	accel.Call
	took time.Duration
	stop atomic.Bool
}

var errTerminated = errors.New("terminated")

// Run implements accel.Call. It holds a thread, as a driver does that waits for its
// device, and looks once a millisecond whether it is terminated.
func (c *call) Run() error {
	for end := time.Now().Add(c.took); !c.stop.Load(); {
		left := time.Until(end)
		if left <= 0 {
			return c.Call.Run()
		}
		sleep(min(left, time.Millisecond))
	}
	return errTerminated
}

// Terminate implements accel.Call.
func (c *call) Terminate() { c.stop.Store(true) }
