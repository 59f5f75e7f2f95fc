// Package ort runs ONNX models with ONNX Runtime.
//
// It is the only package that touches the runtime's C interface, through
// github.com/yalue/onnxruntime_go and, for strings, by itself. The library is loaded
// when the first driver is made and stays loaded until the process ends.
package ort

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	ort "github.com/yalue/onnxruntime_go"

	"sluice.dev/accel"
	"sluice.dev/accel/tensor"
)

// Config of a driver.
type Config struct {
	Library string // path of ONNX Runtime's shared library, 1.24 or newer
	Slots   int    // runs side by side; 0 means as many as there are cores
}

// CPU runs models on the processor. It implements accel.Driver.
type CPU struct{ slots int }

var environment struct {
	sync.Mutex
	library string // that is loaded; empty if none
}

// NewCPU loads the library, or takes the one that is loaded. Errors wrap
// accel.ErrUnavailable and say what to do.
func NewCPU(c Config) (*CPU, error) {
	environment.Lock()
	defer environment.Unlock()
	if environment.library == c.Library && c.Library != "" {
		return &CPU{slots: c.Slots}, nil
	}
	if environment.library != "" {
		return nil, fmt.Errorf("%w: ONNX Runtime is loaded from %s already; one process cannot use %s as well", accel.ErrUnavailable, environment.library, c.Library)
	}
	if err := load(c.Library); err != nil {
		return nil, err
	}
	environment.library = c.Library
	return &CPU{slots: c.Slots}, nil
}

// load starts the library. The official builds contain an uploader of telemetry
// that is on by default and writes below HOME; only the environment variable,
// set before the library starts, keeps it off.
func load(path string) error {
	if err := os.Setenv("ORT_DISABLE_TELEMETRY", "1"); err != nil {
		return fmt.Errorf("switch off telemetry: %w", err)
	}
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%w: no ONNX Runtime library at %q; run 'sluice runtime install', or set its path", accel.ErrUnavailable, path)
	}
	ort.SetSharedLibraryPath(path)
	if err := errors.Join(ort.InitializeEnvironment(), findFunctions(path)); err != nil {
		return fmt.Errorf("%w: %s is not an ONNX Runtime library of version 1.24 or newer; run 'sluice runtime install', or set another path (%v)", accel.ErrUnavailable, path, err)
	}
	return nil
}

// Name implements accel.Driver.
func (*CPU) Name() string { return "cpu" }

// Devices implements accel.Driver: the processor, by default with a slot per core
// that the cgroup grants.
func (d *CPU) Devices() ([]accel.Device, error) {
	n := min(runtime.NumCPU(), runtime.GOMAXPROCS(0))
	slots := d.slots
	if slots == 0 {
		slots = n
	}
	return []accel.Device{{ID: "0", Name: fmt.Sprintf("CPU, %d cores", n), Slots: slots}}, nil
}

// Open implements accel.Driver.
func (*CPU) Open(m accel.Model, o accel.Options) (accel.Instance, error) {
	sig, err := signature(m.Path)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", m.Name, err)
	}
	options, err := sessionOptions(max(o.Threads, 1))
	if err != nil {
		return nil, err
	}
	defer options.Destroy()
	s, err := ort.NewDynamicAdvancedSession(m.Path, names(sig.Inputs), names(sig.Outputs), options)
	if err != nil {
		return nil, fmt.Errorf("model %s: ONNX Runtime cannot load it: %w", m.Name, err)
	}
	return &instance{session: s, sig: sig}, nil
}

func names(list []tensor.Info) []string {
	out := make([]string, len(list))
	for i := range list {
		out[i] = list[i].Name
	}
	return out
}

// sessionOptions are those of a server: threads of its own choosing, which do not
// spin for tens of milliseconds after each run.
func sessionOptions(threads int) (*ort.SessionOptions, error) {
	o, err := ort.NewSessionOptions()
	if err != nil {
		return nil, fmt.Errorf("session options: %w", err)
	}
	err = errors.Join(o.SetIntraOpNumThreads(threads), o.SetInterOpNumThreads(1), o.SetLogSeverityLevel(ort.LoggingLevelFatal))
	if threads > 1 {
		const spinMicros = 20
		err = errors.Join(err, o.AddSessionConfigEntry("session.intra_op.spin_duration_us", strconv.Itoa(spinMicros)))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("session options: %w", err), o.Destroy())
	}
	return o, nil
}

// dtypes are the element types that have a counterpart.
var dtypes = map[ort.TensorElementDataType]tensor.DType{
	ort.TensorElementDataTypeBool:     tensor.Bool,
	ort.TensorElementDataTypeUint8:    tensor.Uint8,
	ort.TensorElementDataTypeUint16:   tensor.Uint16,
	ort.TensorElementDataTypeUint32:   tensor.Uint32,
	ort.TensorElementDataTypeUint64:   tensor.Uint64,
	ort.TensorElementDataTypeInt8:     tensor.Int8,
	ort.TensorElementDataTypeInt16:    tensor.Int16,
	ort.TensorElementDataTypeInt32:    tensor.Int32,
	ort.TensorElementDataTypeInt64:    tensor.Int64,
	ort.TensorElementDataTypeFloat16:  tensor.Float16,
	ort.TensorElementDataTypeBFloat16: tensor.BFloat16,
	ort.TensorElementDataTypeFloat:    tensor.Float32,
	ort.TensorElementDataTypeDouble:   tensor.Float64,
	ort.TensorElementDataTypeString:   tensor.Bytes,
}

// signature reads what a model takes and gives. The runtime builds a session for
// it, so that is made as cheap as can be.
func signature(path string) (*tensor.Signature, error) {
	o, err := ort.NewSessionOptions()
	if err != nil {
		return nil, fmt.Errorf("session options: %w", err)
	}
	defer o.Destroy()
	err = errors.Join(o.SetGraphOptimizationLevel(ort.GraphOptimizationLevelDisableAll), o.SetIntraOpNumThreads(1), o.SetLogSeverityLevel(ort.LoggingLevelFatal))
	if err != nil {
		return nil, fmt.Errorf("session options: %w", err)
	}
	in, out, err := ort.GetInputOutputInfoWithOptions(path, o)
	if err != nil {
		return nil, fmt.Errorf("not a model that ONNX Runtime can read: %w", err)
	}
	sig := &tensor.Signature{}
	var unsupported []string
	for i := range in {
		sig.Inputs = append(sig.Inputs, info("input", &in[i], &unsupported))
	}
	for i := range out {
		sig.Outputs = append(sig.Outputs, info("output", &out[i], &unsupported))
	}
	if len(unsupported) > 0 {
		return nil, fmt.Errorf("only tensors can be served; unsupported: %s", strings.Join(unsupported, "; "))
	}
	if len(in) == 0 || len(out) == 0 {
		return nil, errors.New("a model without inputs or without outputs cannot be served")
	}
	return sig, nil
}

// info translates the description of one input or output.
func info(what string, d *ort.InputOutputInfo, unsupported *[]string) tensor.Info {
	t, ok := dtypes[d.DataType]
	if d.OrtValueType != ort.ONNXTypeTensor || !ok {
		kind := strings.TrimPrefix(d.OrtValueType.String(), "ONNX_TYPE_")
		if d.OrtValueType == ort.ONNXTypeTensor {
			kind = "tensor of " + d.DataType.String()
		}
		*unsupported = append(*unsupported, fmt.Sprintf("%s %q is a %s", what, d.Name, kind))
	}
	i := tensor.Info{Name: d.Name, DType: t, Shape: make([]int64, len(d.Dimensions))}
	for k, n := range d.Dimensions {
		i.Shape[k] = max(n, -1)
	}
	return i
}
