package codec

import (
	"bytes"
	"math"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
	"sluice.dev/scorer/codec/wire"
)

// ErrCut says that a request in protobuf cannot be read.
var ErrCut = scorer.Errorf(scorer.InvalidArgument, "the request is no protobuf message of its type, or is cut off")

// decodeGRPC reads a ModelInferRequest; the numbers of its fields are in
// gateway/grpcapi/inferencepb.
func (r *Infer) decodeGRPC(sig *tensor.Signature, model string, body []byte) error {
	m := wire.Read(body)
	for m.Next() {
		var err error
		switch {
		case m.Is(3):
			if r.id = m.Bytes; !utf8.Valid(r.id) {
				err = bad("the request's id must be UTF-8")
			}
		case m.Is(4):
			err = r.parameter(m.Bytes)
		case m.Is(5):
			err = r.grpcInput(sig, model, m.Bytes)
		case m.Is(6):
			err = r.grpcOutput(sig, model, m.Bytes)
		case m.Is(7) && len(r.raws) == len(sig.Inputs): // memory is not for the sender to choose
			err = tooManyRaws(model)
		case m.Is(7):
			r.raws = append(r.raws, m.Bytes)
		}
		if err != nil {
			return err
		}
	}
	if m.Bad() {
		return ErrCut
	}
	if err := r.spreadRaw(sig, model); err != nil {
		return err
	}
	return r.assemble(sig, model)
}

// spreadRaw gives the inputs the raw tensors, in the order in which they were
// named, where there are such.
func (r *Infer) spreadRaw(sig *tensor.Signature, model string) error {
	next := 0 // of the raw tensors
	for i := range r.given {
		in := &r.given[i]
		name := sig.Inputs[in.index].Name
		switch {
		case in.at.region != "" && in.found:
			return bad("unexpected 'content' provided when using shared memory for input tensor '%s' for model '%s'", name, model)
		case in.at.region != "":
		case in.found && len(r.raws) > 0:
			return bad("contents field must not be specified when using raw_input_contents for '%s' for model '%s'", name, model)
		case in.found:
		case next < len(r.raws):
			in.data = r.raws[next]
			next++
		default:
			if n, ok := tensor.Elements(r.shapes[in.shape[0]:in.shape[1]]); !ok || n > 0 {
				return bad("unable to find data for input tensor '%s' for model '%s' in request.", name, model)
			}
		}
	}
	if len(r.raws) > next {
		return tooManyRaws(model)
	}
	return nil
}

func tooManyRaws(model string) error {
	return bad("unexpected additional input data for model '%s'", model)
}

// parameter is an entry of a map of parameters. Its value is what the last field of
// the oneof says.
type parameter struct {
	name  []byte
	field protowire.Number // of the value; 0 if there is none
	n     uint64           // of a field of varints
	text  []byte           // of a field of bytes
}

// The fields of InferParameter.
const (
	int64Param  = 2
	stringParam = 3
	uint64Param = 5
)

// natural is a number that must not be negative.
func (p *parameter) natural() (uint64, error) {
	if p.field != int64Param && p.field != uint64Param || p.field == int64Param && int64(p.n) < 0 {
		return 0, bad("invalid value for '%s' parameter, expected int64_param >= 0.", p.name)
	}
	return p.n, nil
}

// place reads a parameter that is of a place.
func (p *parameter) place(at *place) (err error) {
	switch string(p.name) {
	case regionName:
		if p.field != stringParam {
			return bad("invalid value type for '%s' parameter, expected string_param.", p.name)
		}
		at.region = string(p.text)
	case regionOffset:
		at.offset, err = p.natural()
	case regionSize:
		at.size, err = p.natural()
	}
	return err
}

// readParameter reads an entry; false: it is cut off.
func readParameter(entry []byte) (p parameter, ok bool) {
	m := wire.Read(entry)
	for m.Next() {
		switch {
		case m.Is(1):
			p.name = m.Bytes
		case m.Is(2):
			v := wire.Read(m.Bytes)
			for v.Next() {
				p.field, p.n, p.text = v.Num, v.Varint, v.Bytes
			}
			if v.Bad() {
				return p, false
			}
		}
	}
	return p, !m.Bad()
}

// parameter reads one of the request.
func (r *Infer) parameter(entry []byte) error {
	p, ok := readParameter(entry)
	switch {
	case !ok:
		return ErrCut
	case string(p.name) == "timeout" || string(p.name) == "priority":
		if p.field != int64Param && p.field != uint64Param {
			return bad("invalid value type for '%s' parameter, expected int64_param.", p.name)
		}
		if p.field == int64Param && int64(p.n) < 0 {
			return bad("invalid value for '%s', expected value >= 0.", p.name)
		}
		if p.name[0] == 't' {
			r.Timeout = microseconds(p.n)
		} else {
			r.Priority = level(p.n)
		}
	case string(p.name) == "triton_enable_empty_final_response": // of a stream, whose answers always say which is the last
	case bytes.HasPrefix(p.name, []byte("triton_")):
		return errReserved
	}
	return nil
}

// grpcInput reads one input. Its data is read when its type is known.
func (r *Infer) grpcInput(sig *tensor.Signature, model string, b []byte) error {
	in := input{index: -1, count: -1}
	var name, datatype []byte
	in.shape[0], in.memory[0], in.memory[1] = len(r.shapes), len(r.memory), len(r.memory)
	m := wire.Read(b)
	for m.Next() {
		switch {
		case m.Is(1):
			name = m.Bytes
		case m.Is(2):
			datatype = m.Bytes
		case m.Num == 3:
			if err := r.grpcShape(m.Varints(), in.shape[0]); err != nil {
				return err
			}
		case m.Is(4):
			p, ok := readParameter(m.Bytes)
			if !ok {
				return ErrCut
			}
			if err := p.place(&in.at); err != nil {
				return err
			}
		}
	}
	if m.Bad() {
		return ErrCut
	}
	in.shape[1] = len(r.shapes)
	var ok bool
	if in.dtype, ok = tensor.ParseDType(datatype); !ok {
		return bad("invalid datatype '%.32s' for input '%.64s'", datatype, name)
	}
	for m := wire.Read(b); m.Next(); {
		if m.Is(5) {
			if err := r.contents(m.Bytes, &in, name, model); err != nil {
				return err
			}
		}
	}
	return r.take(sig, model, name, in)
}

// maxDims is how many dimensions a shape may have.
const maxDims = 64

func (r *Infer) grpcShape(dims wire.Varints, from int) error {
	for d, ok := dims.Next(); ok; d, ok = dims.Next() {
		if len(r.shapes)-from == maxDims {
			return bad("a shape has at most %d dimensions", maxDims)
		}
		r.shapes = append(r.shapes, int64(d))
	}
	if dims.Bad() {
		return ErrCut
	}
	return nil
}

// lists are the fields of InferTensorContents by element type; the 16-bit floats
// have none.
var lists = [...]struct {
	field protowire.Number
	name  string
}{
	tensor.Bool: {1, "BOOL"}, tensor.Int8: {2, "INT32"}, tensor.Int16: {2, "INT32"}, tensor.Int32: {2, "INT32"}, tensor.Int64: {3, "INT64"},
	tensor.Uint8: {4, "UINT32"}, tensor.Uint16: {4, "UINT32"}, tensor.Uint32: {4, "UINT32"}, tensor.Uint64: {5, "UINT64"},
	tensor.Float32: {6, "FP32"}, tensor.Float64: {7, "FP64"}, tensor.Bytes: {8, "BYTES"},
}

// contents reads elements that come one by one.
func (r *Infer) contents(b []byte, in *input, name []byte, model string) error {
	m := wire.Read(b)
	for m.Next() {
		if m.Num != lists[in.dtype].field {
			for _, l := range lists {
				if m.Num == l.field && l.field > 0 {
					return bad("unexpected explicit tensor data for input tensor '%.64s' for model '%s' of type '%v', expected datatype '%s'", name, model, in.dtype, l.name)
				}
			}
			continue
		}
		if err := r.elements(&m, in, name); err != nil {
			return err
		}
	}
	if m.Bad() {
		return ErrCut
	}
	return nil
}

// elements reads a field that has elements of in.
func (r *Infer) elements(m *wire.Message, in *input, name []byte) error {
	switch in.dtype {
	case tensor.Float32, tensor.Float64:
		chunk, ok := m.Fixed(in.dtype.Size())
		if !ok {
			return ErrCut
		}
		r.chunk(chunk, in)
	case tensor.Bytes:
		if m.Type == protowire.BytesType {
			r.memory = appendElement(r.memory, m.Bytes)
			in.memory[1], in.found = len(r.memory), true
		}
	default:
		v := m.Varints()
		for x, ok := v.Next(); ok; x, ok = v.Next() {
			if !r.appendVarint(x, in.dtype) {
				return outOfRange(x, in.dtype, name)
			}
		}
		if v.Bad() {
			return ErrCut
		}
		in.memory[1], in.found = len(r.memory), in.found || len(r.memory) > in.memory[0]
	}
	return nil
}

// chunk adds raw data to in: where it stands if it is all there is, else copied.
func (r *Infer) chunk(data []byte, in *input) {
	switch {
	case len(data) == 0:
		return
	case !in.found:
		in.data, in.found = data, true
		return
	case in.data != nil:
		r.memory = append(r.memory, in.data...)
		in.data = nil
	}
	r.memory = append(r.memory, data...)
	in.memory[1] = len(r.memory)
}

// appendElement appends an element of type BYTES: its length and its bytes.
func appendElement(dst, text []byte) []byte {
	n := len(text)
	return append(append(dst, byte(n), byte(n>>8), byte(n>>16), byte(n>>24)), text...)
}

// appendVarint decodes an element of an integer type or a Bool, after protobuf cut it to
// the type of its list. False: it is out of its own type's range.
func (r *Infer) appendVarint(x uint64, t tensor.DType) bool {
	switch t {
	case tensor.Bool:
		r.memory = append(r.memory, b2u(x != 0))
		return true
	case tensor.Int8, tensor.Int16, tensor.Int32:
		x = uint64(int64(int32(x)))
	case tensor.Uint8, tensor.Uint16, tensor.Uint32:
		x = uint64(uint32(x))
	}
	b := &ranges[t]
	if b.negative > 0 && (int64(x) > int64(b.positive) || int64(x) < -int64(b.positive)-1) || b.negative == 0 && x > b.positive {
		return false
	}
	r.memory = appendInteger(r.memory, b.size, x)
	return true
}

func outOfRange(x uint64, t tensor.DType, name []byte) error {
	if ranges[t].negative > 0 {
		return bad("Unable to parse 'contents': %d is out of range for input '%.64s' of type %v", int32(x), name, t)
	}
	return bad("Unable to parse 'contents': %d is out of range for input '%.64s' of type %v", uint32(x), name, t)
}

// grpcOutput reads an output that the request asks for.
func (r *Infer) grpcOutput(sig *tensor.Signature, model string, b []byte) error {
	var name []byte
	var o output
	m := wire.Read(b)
	for m.Next() {
		switch {
		case m.Is(1):
			name = m.Bytes
		case m.Is(2):
			p, ok := readParameter(m.Bytes)
			if !ok {
				return ErrCut
			}
			err := p.place(&o.at)
			if string(p.name) == "classification" {
				var n uint64
				n, err = p.natural()
				o.classes = int(min(n, math.MaxInt32))
			}
			if err != nil {
				return err
			}
		}
	}
	if m.Bad() {
		return ErrCut
	}
	return r.want(sig, model, name, o)
}

// appendGRPC writes a ModelInferResponse with raw outputs. That of an output in shared
// memory is empty: Triton's client in C++ reads one for each output, unchecked.
func (r *Infer) appendGRPC(dst []byte, sig *tensor.Signature, model, version string, out []tensor.Tensor) []byte {
	size := 0
	for k := range r.wanted {
		size += len(r.result(k, out).Data) + 128
	}
	dst = slices.Grow(dst, size)
	dst = wire.AppendBytes(dst, 1, model)
	dst = wire.AppendBytes(dst, 2, version)
	if len(r.id) > 0 {
		dst = wire.AppendBytes(dst, 3, r.id)
	}
	for k, w := range r.wanted {
		name, t := sig.Outputs[w.index].Name, r.result(k, out)
		n := wire.SizeBytes(1, len(name)) + wire.SizeBytes(2, len(t.DType.String())) + wire.SizeBytes(3, wire.SizeVarints(t.Shape))
		dst = wire.AppendLength(dst, 5, n)
		dst = wire.AppendBytes(dst, 1, name)
		dst = wire.AppendBytes(dst, 2, t.DType.String())
		dst = wire.AppendVarints(dst, 3, t.Shape)
	}
	for k, w := range r.wanted {
		data := r.result(k, out).Data
		if w.at.region != "" {
			data = nil
		}
		dst = wire.AppendBytes(dst, 6, data)
	}
	return dst
}
