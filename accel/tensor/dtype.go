package tensor

import "fmt"

// DType is an element type of the Open Inference Protocol, version 2.
type DType uint8

// The element types. The zero value is no type.
const (
	Invalid DType = iota
	Bool          // one byte, 0 or 1
	Uint8
	Uint16
	Uint32
	Uint64
	Int8
	Int16
	Int32
	Int64
	Float16  // IEEE 754 binary16
	BFloat16 // the upper half of a Float32
	Float32
	Float64
	Bytes // variable length
)

var dtypes = [...]struct {
	name string
	size int
}{
	Invalid: {"INVALID", 0}, Bool: {"BOOL", 1},
	Uint8: {"UINT8", 1}, Uint16: {"UINT16", 2}, Uint32: {"UINT32", 4}, Uint64: {"UINT64", 8},
	Int8: {"INT8", 1}, Int16: {"INT16", 2}, Int32: {"INT32", 4}, Int64: {"INT64", 8},
	Float16: {"FP16", 2}, BFloat16: {"BF16", 2}, Float32: {"FP32", 4}, Float64: {"FP64", 8},
	Bytes: {"BYTES", 0},
}

// String is the protocol's name, such as FP32.
func (t DType) String() string {
	if int(t) >= len(dtypes) {
		return dtypes[Invalid].name
	}
	return dtypes[t].name
}

// Size is the length of one element in bytes, 0 for Bytes.
func (t DType) Size() int {
	if int(t) >= len(dtypes) {
		return 0
	}
	return dtypes[t].size
}

// ParseDType finds the type with the protocol's name; the match is exact.
func ParseDType(name []byte) (DType, bool) {
	for t := Bool; t <= Bytes; t++ {
		if dtypes[t].name == string(name) {
			return t, true
		}
	}
	return Invalid, false
}

// MarshalText gives the protocol's name.
func (t DType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads the protocol's name.
func (t *DType) UnmarshalText(text []byte) error {
	d, ok := ParseDType(text)
	if !ok {
		return fmt.Errorf("unknown datatype %q", text)
	}
	*t = d
	return nil
}
