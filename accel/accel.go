// Package accel is the contract between the batcher and whatever runs a model.
//
// A [Driver] opens models on the devices of one kind. An [Instance] is one model
// on one device; a [Call] is one prepared run over memory that the caller lends.
// Everything is synchronous and no foreign type shows.
package accel

import (
	"errors"

	"sluice.dev/accel/tensor"
)

// ErrUnavailable wraps errors of a driver whose library or device is missing on
// this machine: another driver may do.
var ErrUnavailable = errors.New("accelerator unavailable")

// Driver opens models. Safe for concurrent use.
type Driver interface {
	// Name is the driver's name in configuration, such as "cpu".
	Name() string
	// Devices lists what the driver can open models on. The error wraps
	// ErrUnavailable where library or device is missing.
	Devices() ([]Device, error)
	// Open loads the model and makes it ready to run. The error says what is
	// wrong with the model or the machine, without paths of either.
	Open(m Model, o Options) (Instance, error)
}

// Device is one place where models run.
type Device struct {
	ID    string // unique within the driver, such as "0"
	Name  string // for people, such as "NVIDIA H100" or "CPU, 2 cores"
	Slots int    // runs that the device does side by side without loss, >= 1
}

// Model is where a model's file lies, and what to call it in errors.
type Model struct {
	Name string
	Path string
}

// Options of Open. The zero value is the default.
type Options struct {
	// Device is a Device.ID; empty means the first.
	Device string
	// Threads is how many threads one run may use; 0 means 1, which gives the
	// best throughput when several runs go side by side.
	Threads int
}

// Instance is one model on one device. Safe for concurrent use.
type Instance interface {
	// Signature does not change and must not be modified.
	Signature() *tensor.Signature
	// Bind prepares a run. in holds one tensor per input in signature order,
	// with Data of exactly the shape's length (a Bytes tensor: its raw form).
	// out holds one tensor per output: with Shape and Data set, the run writes
	// there; with nil Data the driver provides memory and finds the shape.
	// The memory is lent until the call is closed; the slices and shapes are not.
	Bind(in, out []tensor.Tensor) (Call, error)
	// Close frees the model. Every call must be closed before.
	Close() error
}

// Call is a prepared run. For one goroutine at a time.
type Call interface {
	// Run runs the model once over the bound memory, reading it afresh, so the
	// caller may rewrite inputs between runs.
	Run() error
	// Terminate makes the run that is under way, or the next one, return soon, with
	// an error, where the driver can do that; runs that are short it need not. The
	// call is of no use after it. For any goroutine, until Close.
	Terminate()
	// Output is output i of the last run, valid until the next Run or Close.
	Output(i int) tensor.Tensor
	// Close ends the loan of the bound memory.
	Close() error
}
