package ask

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"sluice.dev/scorer/codec/wire"
)

// Tensor is what a model's metadata says of an input, in the Open Inference
// Protocol's words. A dimension that is not fixed is asked as 1.
type Tensor struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"`
}

// Inputs are a model's inputs with made-up values, always the same for the same Nth.
type Inputs struct {
	Tensors []Tensor
	Nth     int
}

const maxElements = 1 << 26 // of all inputs

// ParseMetadata reads a model's metadata in JSON.
func ParseMetadata(data []byte) (*Inputs, error) {
	var m struct {
		Inputs []Tensor `json:"inputs"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("the metadata is not JSON: %w", err)
	}
	return (&Inputs{Tensors: m.Inputs}).fixed()
}

// ParseMessage reads a message ModelMetadataResponse. Field numbers are those of the
// Open Inference Protocol.
func ParseMessage(data []byte) (*Inputs, error) {
	in := &Inputs{}
	m := wire.Read(data)
	for m.Next() {
		if !m.Is(4) {
			continue
		}
		t, ok := parseTensor(m.Bytes)
		if !ok {
			return nil, errMessage
		}
		in.Tensors = append(in.Tensors, t)
	}
	if m.Bad() {
		return nil, errMessage
	}
	return in.fixed()
}

// parseTensor reads an input's metadata; false: that is no message.
func parseTensor(data []byte) (t Tensor, ok bool) {
	m := wire.Read(data)
	for m.Next() {
		switch m.Num {
		case 1:
			t.Name = string(m.Bytes)
		case 2:
			t.Datatype = string(m.Bytes)
		case 3:
			dims := m.Varints()
			for d, more := dims.Next(); more; d, more = dims.Next() {
				t.Shape = append(t.Shape, int64(d))
			}
		}
	}
	return t, !m.Bad()
}

var errMessage = errors.New("the metadata is not a message of gRPC")

// fixed makes dimensions that are not fixed 1, and refuses what cannot be asked.
func (in *Inputs) fixed() (*Inputs, error) {
	if len(in.Tensors) == 0 {
		return nil, errors.New("the metadata names no inputs; give a request with --data")
	}
	sum := int64(0)
	for i := range in.Tensors {
		t := &in.Tensors[i]
		if kinds[t.Datatype].size == 0 {
			return nil, fmt.Errorf("input %.40q has the datatype %.20q, for which no values are made up; give a request with --data", t.Name, t.Datatype)
		}
		for d := range t.Shape {
			if t.Shape[d] < 0 {
				t.Shape[d] = 1
			}
			if t.Shape[d] > maxElements {
				return nil, fmt.Errorf("input %.40q is too large", t.Name)
			}
		}
		if sum += t.elements(); sum > maxElements || sum < 0 {
			return nil, fmt.Errorf("input %.40q is too large", t.Name)
		}
	}
	return in, nil
}

// elements is at most just above maxElements.
func (t *Tensor) elements() int64 {
	n := int64(1)
	for _, d := range t.Shape {
		if n *= d; n > maxElements {
			return maxElements + 1
		}
	}
	return n
}

// kind is how a datatype's values are written.
type kind struct {
	size  int // bytes of a value; of BYTES, its length and its text
	put   func(b []byte, v int) []byte
	quote bool // a JSON string
}

var (
	little = binary.LittleEndian
	zero16 = func(b []byte, _ int) []byte { return append(b, 0, 0) }
	int8s  = func(b []byte, v int) []byte { return append(b, byte(v)) }
	int16s = func(b []byte, v int) []byte { return little.AppendUint16(b, uint16(v)) }
	int32s = func(b []byte, v int) []byte { return little.AppendUint32(b, uint32(v)) }
	int64s = func(b []byte, v int) []byte { return little.AppendUint64(b, uint64(v)) }
)

// kinds are the datatypes for which values are made up; of half floats all are 0.
var kinds = map[string]kind{
	"BOOL": {1, func(b []byte, v int) []byte { return append(b, byte(v&1)) }, false},
	"INT8": {1, int8s, false}, "UINT8": {1, int8s, false}, "INT16": {2, int16s, false}, "UINT16": {2, int16s, false},
	"INT32": {4, int32s, false}, "UINT32": {4, int32s, false}, "INT64": {8, int64s, false}, "UINT64": {8, int64s, false},
	"FP16": {2, zero16, false}, "BF16": {2, zero16, false},
	"FP32":  {4, func(b []byte, v int) []byte { return little.AppendUint32(b, math.Float32bits(float32(v))) }, false},
	"FP64":  {8, func(b []byte, v int) []byte { return little.AppendUint64(b, math.Float64bits(float64(v))) }, false},
	"BYTES": {6, func(b []byte, v int) []byte { return fmt.Appendf(little.AppendUint32(b, 2), "%02d", v) }, true},
}

func (in *Inputs) value(i int64) int { return int(i*7+int64(in.Nth)) % 17 }

// values are a tensor's in JSON.
func (in *Inputs) values(t *Tensor) []any {
	list := make([]any, t.elements())
	for i := range list {
		switch v := in.value(int64(i)); t.Datatype {
		case "BYTES":
			list[i] = fmt.Sprintf("%02d", v)
		case "BOOL":
			list[i] = v&1 == 1
		case "FP16", "BF16":
			list[i] = 0
		default:
			list[i] = v
		}
	}
	return list
}

func (in *Inputs) raw(t *Tensor) []byte {
	k, b := kinds[t.Datatype], []byte{}
	for i := range t.elements() {
		b = k.put(b, in.value(i))
	}
	return b
}

type jsonTensor struct {
	Tensor
	Parameters map[string]any `json:"parameters,omitempty"`
	Data       []any          `json:"data,omitempty"`
}

// JSON is a request of the Open Inference Protocol.
func (in *Inputs) JSON() []byte {
	var q struct {
		Inputs []jsonTensor `json:"inputs"`
	}
	for i := range in.Tensors {
		q.Inputs = append(q.Inputs, jsonTensor{Tensor: in.Tensors[i], Data: in.values(&in.Tensors[i])})
	}
	b, _ := json.Marshal(q) // of numbers and texts: cannot fail
	return b
}

// Binary is one with raw tensors, whose first head bytes are JSON.
func (in *Inputs) Binary() (head int, body []byte) {
	var q struct {
		Inputs     []jsonTensor    `json:"inputs"`
		Parameters map[string]bool `json:"parameters"`
	}
	q.Parameters = map[string]bool{"binary_data_output": true}
	var tail []byte
	for i := range in.Tensors {
		raw := in.raw(&in.Tensors[i])
		q.Inputs = append(q.Inputs, jsonTensor{Tensor: in.Tensors[i], Parameters: map[string]any{"binary_data_size": len(raw)}})
		tail = append(tail, raw...)
	}
	b, _ := json.Marshal(q)
	return len(b), append(b, tail...)
}

// AML is a request of Azure ML: the only input as rows, or inputs by name.
func (in *Inputs) AML() []byte {
	if len(in.Tensors) == 1 {
		b, _ := json.Marshal(map[string]any{"data": nest(in.values(&in.Tensors[0]), in.Tensors[0].Shape)})
		return b
	}
	named := map[string]any{}
	for i := range in.Tensors {
		named[in.Tensors[i].Name] = nest(in.values(&in.Tensors[i]), in.Tensors[i].Shape)
	}
	b, _ := json.Marshal(map[string]any{"data": named})
	return b
}

// nest puts values into lists of lists.
func nest(values []any, shape []int64) any {
	if len(shape) == 0 {
		return values[0]
	}
	if len(shape) == 1 || len(values) == 0 {
		return values
	}
	list, each := make([]any, shape[0]), len(values)/int(shape[0])
	for i := range list {
		list[i] = nest(values[i*each:(i+1)*each], shape[1:])
	}
	return list
}

// Message is a message ModelInferRequest with raw tensors.
func (in *Inputs) Message(model, version string) (m []byte) {
	text := func(b []byte, number protowire.Number, s string) []byte {
		return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), s)
	}
	m = text(m, 1, model)
	if version != "" {
		m = text(m, 2, version)
	}
	for i := range in.Tensors {
		t := text(text(nil, 1, in.Tensors[i].Name), 2, in.Tensors[i].Datatype)
		var shape []byte
		for _, d := range in.Tensors[i].Shape {
			shape = protowire.AppendVarint(shape, uint64(d))
		}
		m = text(m, 5, string(t)+string(text(nil, 3, string(shape))))
	}
	for i := range in.Tensors {
		m = text(m, 7, string(in.raw(&in.Tensors[i])))
	}
	return m
}

// Model is the endpoint that a path of scoring names, empty where it names none.
func Model(path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	for i := range parts {
		if (parts[i] == "models" || parts[i] == "service") && i+1 < len(parts) {
			return parts[i+1]
		}
	}
	return ""
}
