package upstream

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"sluice.dev/accel/tensor"
	"sluice.dev/scorer/codec/wire"
)

// The messages of the Open Inference Protocol's service inference.GRPCInferenceService,
// of which only what is needed is written and read.

// Numbers of fields: of ModelInferRequest (the first two also of ModelReady's and
// ModelMetadata's requests), of ModelInferResponse, of ModelMetadataResponse, and of
// tensors in all of them.
const (
	fieldModel, fieldVersion          = 1, 2
	fieldInputs, fieldRawInputs       = 5, 7
	fieldOutputs, fieldRawOutputs     = 5, 6
	fieldPlatform                     = 3
	fieldMetaInputs, fieldMetaOutputs = 4, 5
	fieldName, fieldType, fieldShape  = 1, 2, 3
	fieldContents                     = 5
)

// appendModel appends the fields that name a model: a request for it alone.
func appendModel(dst []byte, model, version string) []byte {
	dst = wire.AppendBytes(dst, fieldModel, model)
	if version != "" {
		dst = wire.AppendBytes(dst, fieldVersion, version)
	}
	return dst
}

// appendInfer appends the request to score in, whose tensors are those of infos.
func appendInfer(dst []byte, model, version string, infos []tensor.Info, in []tensor.Tensor) []byte {
	size := 0
	for i := range in {
		size += len(in[i].Data) + 128
	}
	dst = appendModel(slices.Grow(dst, size), model, version)
	var one []byte
	for i := range in {
		one = wire.AppendBytes(one[:0], fieldName, infos[i].Name)
		one = wire.AppendBytes(one, fieldType, in[i].DType.String())
		one = wire.AppendVarints(one, fieldShape, in[i].Shape)
		dst = wire.AppendBytes(dst, fieldInputs, one)
	}
	for i := range in {
		dst = wire.AppendBytes(dst, fieldRawInputs, in[i].Data)
	}
	return dst
}

var (
	errMessage = errors.New("a message that is not one")
	errTensors = fmt.Errorf("more than %d tensors", maxTensors)
	errRaw     = errors.New("its raw contents are not one for each output")
)

// ended is the error of a message that was read to its end.
func ended(m *wire.Message) error {
	if m.Bad() {
		return errMessage
	}
	return nil
}

// readReady reads a ModelReadyResponse.
func readReady(b []byte) (ready bool, err error) {
	m := wire.Read(b)
	for m.Next() {
		ready = ready || m.IsVarint(1) && m.Varint == 1
	}
	return ready, ended(&m)
}

// readMetadata reads a ModelMetadataResponse.
func readMetadata(b []byte) (platform string, sig tensor.Signature, err error) {
	m := wire.Read(b)
	for err == nil && m.Next() {
		switch m.Num {
		case fieldPlatform:
			platform = string(m.Bytes)
		case fieldMetaInputs:
			err = readInfo(&sig.Inputs, m.Bytes)
		case fieldMetaOutputs:
			err = readInfo(&sig.Outputs, m.Bytes)
		}
	}
	return platform, sig, cmp.Or(err, ended(&m))
}

// readInfo appends a tensor that a model takes or gives.
func readInfo(list *[]tensor.Info, b []byte) error {
	var o output
	if err := o.read(b); err != nil {
		return err
	}
	if len(*list) == maxTensors {
		return errTensors
	}
	*list = append(*list, tensor.Info{Name: string(o.name), DType: o.DType, Shape: o.Shape})
	return nil
}

// output is a tensor of an answer.
type output struct {
	name []byte
	tensor.Tensor
}

// Limits of a message, since what is empty there is not empty here.
const (
	maxTensors = 1 << 12
	maxRank    = 16
	maxEmpty   = 1 << 16 // arrays without an element
)

func (o *output) read(b []byte) error {
	var contents []byte
	m := wire.Read(b)
	for m.Next() {
		switch m.Num {
		case fieldName:
			o.name = m.Bytes
		case fieldType:
			o.DType, _ = tensor.ParseDType(m.Bytes)
		case fieldShape:
			if err := o.shape(m.Varints()); err != nil {
				return err
			}
		case fieldContents:
			contents = m.Bytes
		}
	}
	if m.Bad() {
		return errMessage
	}
	m = wire.Read(contents)
	for m.Next() {
		if err := o.contents(&m); err != nil {
			return err
		}
	}
	return ended(&m)
}

// shape appends dimensions.
func (o *output) shape(list wire.Varints) error {
	for {
		d, ok := list.Next()
		switch {
		case list.Bad():
			return errMessage
		case !ok:
			return nil
		case len(o.Shape) == maxRank:
			return fmt.Errorf("a tensor of more than %d dimensions", maxRank)
		}
		o.Shape = append(o.Shape, int64(d))
	}
}

// contents appends a part of an InferTensorContents, whatever its field says, in
// the tensor's own type.
func (o *output) contents(m *wire.Message) error {
	le := binary.LittleEndian
	switch {
	case o.DType == tensor.Bytes && m.Type == protowire.BytesType:
		o.Data = append(le.AppendUint32(o.Data, uint32(len(m.Bytes))), m.Bytes...)
		return nil
	case o.DType == tensor.Float32, o.DType == tensor.Float64: // fixed size, as they are
		o.Data = append(o.Data, m.Bytes...)
		return nil
	}
	list, size := m.Varints(), o.DType.Size()
	for v, ok := list.Next(); ok; v, ok = list.Next() {
		switch size {
		case 1:
			o.Data = append(o.Data, byte(v))
		case 2:
			o.Data = le.AppendUint16(o.Data, uint16(v))
		case 4:
			o.Data = le.AppendUint32(o.Data, uint32(v))
		case 8:
			o.Data = le.AppendUint64(o.Data, v)
		}
	}
	if list.Bad() {
		return errMessage
	}
	return nil
}

// readInfer reads a ModelInferResponse: one tensor per output of infos, in their
// order, whose memory is the message's or new.
func readInfer(b []byte, infos []tensor.Info) ([]tensor.Tensor, error) {
	outputs, err := readOutputs(b)
	if err != nil {
		return nil, err
	}
	list := make([]tensor.Tensor, len(infos))
	for i := range infos {
		o := find(outputs, infos[i].Name)
		if o == nil {
			return nil, fmt.Errorf("no output %q", infos[i].Name)
		}
		if err := o.check(); err != nil {
			return nil, fmt.Errorf("output %q: %w", infos[i].Name, err)
		}
		list[i] = o.Tensor
	}
	return list, nil
}

// readOutputs reads the tensors of a ModelInferResponse. Where their data comes raw,
// it does for all of them, and their contents are absent, or empty as MLServer's.
func readOutputs(b []byte) (outputs []output, err error) {
	var raw [][]byte
	m := wire.Read(b)
	for err == nil && m.Next() {
		switch {
		case len(outputs) > maxTensors || len(raw) > maxTensors:
			err = errTensors
		case m.Num == fieldOutputs:
			outputs = append(outputs, output{})
			err = outputs[len(outputs)-1].read(m.Bytes)
		case m.Num == fieldRawOutputs:
			raw = append(raw, m.Bytes)
		}
	}
	if err = cmp.Or(err, ended(&m)); err != nil || len(raw) == 0 {
		return outputs, err
	}
	if len(raw) != len(outputs) {
		return nil, errRaw
	}
	for i := range outputs {
		if len(outputs[i].Data) > 0 {
			return nil, errRaw
		}
		outputs[i].Data = raw[i]
	}
	return outputs, nil
}

func find(outputs []output, name string) *output {
	for i := range outputs {
		if string(outputs[i].name) == name {
			return &outputs[i]
		}
	}
	return nil
}

// check holds the data against type and shape: whoever encodes it believes them.
func (o *output) check() error {
	n, ok := tensor.Elements(o.Shape)
	if !ok || o.DType == tensor.Invalid || n == 0 && !few(o.Shape) {
		return errors.New("no shape or datatype that can be")
	}
	if o.DType != tensor.Bytes {
		if size, ok := tensor.ByteSize(o.DType, o.Shape); !ok || size != int64(len(o.Data)) {
			return fmt.Errorf("%d bytes do not fit its shape", len(o.Data))
		}
		return nil
	}
	rest := o.Data
	for ; n > 0 && len(rest) >= 4; n-- {
		size := int64(binary.LittleEndian.Uint32(rest))
		if size > int64(len(rest))-4 {
			break
		}
		rest = rest[4+size:]
	}
	if n > 0 || len(rest) > 0 || len(o.Data) > math.MaxInt32 {
		return errors.New("its strings do not fit its shape")
	}
	return nil
}

// few reports whether a shape without elements nests few arrays: no data bounds
// them, and JSON has them all.
func few(shape []int64) bool {
	n, ok := tensor.Elements(shape[:slices.Index(shape, 0)])
	return ok && n <= maxEmpty
}
