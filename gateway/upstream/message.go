package upstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"sluice.dev/accel/tensor"
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
	dst = appendText(dst, fieldModel, model)
	if version != "" {
		dst = appendText(dst, fieldVersion, version)
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
		one = appendText(one[:0], fieldName, infos[i].Name)
		one = appendText(one, fieldType, in[i].DType.String())
		one = protowire.AppendTag(one, fieldShape, protowire.BytesType)
		size := 0
		for _, d := range in[i].Shape {
			size += protowire.SizeVarint(uint64(d))
		}
		one = protowire.AppendVarint(one, uint64(size))
		for _, d := range in[i].Shape {
			one = protowire.AppendVarint(one, uint64(d))
		}
		dst = protowire.AppendBytes(protowire.AppendTag(dst, fieldInputs, protowire.BytesType), one)
	}
	for i := range in {
		dst = protowire.AppendBytes(protowire.AppendTag(dst, fieldRawInputs, protowire.BytesType), in[i].Data)
	}
	return dst
}

func appendText(dst []byte, num protowire.Number, text string) []byte {
	return protowire.AppendString(protowire.AppendTag(dst, num, protowire.BytesType), text)
}

var (
	errMessage = errors.New("a message that is not one")
	errTensors = fmt.Errorf("more than %d tensors", maxTensors)
	errRaw     = errors.New("its raw contents are not one for each output")
)

// field is one field of a message. Its value is n or b, by its type; a fixed one's
// is its bytes.
type field struct {
	num protowire.Number
	typ protowire.Type
	n   uint64
	b   []byte
}

// fields calls do for every field of a message.
func fields(b []byte, do func(f field) error) error {
	for len(b) > 0 {
		f := field{}
		var n int
		if f.num, f.typ, n = protowire.ConsumeTag(b); n < 0 {
			return errMessage
		}
		b = b[n:]
		switch f.typ {
		case protowire.VarintType:
			f.n, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.b, n = protowire.ConsumeBytes(b)
		default:
			if n = protowire.ConsumeFieldValue(f.num, f.typ, b); n >= 0 {
				f.b = b[:n]
			}
		}
		if n < 0 {
			return errMessage
		}
		b = b[n:]
		if err := do(f); err != nil {
			return err
		}
	}
	return nil
}

// varints calls do for the numbers of a field that repeats them, packed or not.
func (f *field) varints(do func(uint64)) error {
	if f.typ == protowire.VarintType {
		do(f.n)
		return nil
	}
	for b := f.b; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return errMessage
		}
		do(v)
		b = b[n:]
	}
	return nil
}

// readReady reads a ModelReadyResponse.
func readReady(b []byte) (ready bool, err error) {
	err = fields(b, func(f field) error {
		ready = ready || f.num == 1 && f.n == 1
		return nil
	})
	return ready, err
}

// readMetadata reads a ModelMetadataResponse.
func readMetadata(b []byte) (platform string, sig tensor.Signature, err error) {
	err = fields(b, func(f field) error {
		switch f.num {
		case fieldPlatform:
			platform = string(f.b)
		case fieldMetaInputs:
			return readInfo(&sig.Inputs, f.b)
		case fieldMetaOutputs:
			return readInfo(&sig.Outputs, f.b)
		}
		return nil
	})
	return platform, sig, err
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
	err := fields(b, func(f field) (err error) {
		switch f.num {
		case fieldName:
			o.name = f.b
		case fieldType:
			o.DType, _ = tensor.ParseDType(f.b)
		case fieldShape:
			err = f.varints(func(v uint64) {
				if len(o.Shape) <= maxRank {
					o.Shape = append(o.Shape, int64(v))
				}
			})
		case fieldContents:
			contents = f.b
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case len(o.Shape) > maxRank:
		return fmt.Errorf("a tensor of more than %d dimensions", maxRank)
	}
	return fields(contents, o.contents)
}

// contents appends a part of an InferTensorContents, whatever its field says, in
// the tensor's own type.
func (o *output) contents(f field) (err error) {
	le := binary.LittleEndian
	switch {
	case o.DType == tensor.Bytes && f.typ == protowire.BytesType:
		o.Data = append(le.AppendUint32(o.Data, uint32(len(f.b))), f.b...)
	case o.DType == tensor.Float32, o.DType == tensor.Float64: // fixed size, as they are
		o.Data = append(o.Data, f.b...)
	default:
		size := o.DType.Size()
		err = f.varints(func(v uint64) {
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
		})
	}
	return err
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
	err = fields(b, func(f field) error {
		switch {
		case len(outputs) > maxTensors || len(raw) > maxTensors:
			return errTensors
		case f.num == fieldOutputs:
			outputs = append(outputs, output{})
			return outputs[len(outputs)-1].read(f.b)
		case f.num == fieldRawOutputs:
			raw = append(raw, f.b)
		}
		return nil
	})
	if err != nil || len(raw) == 0 {
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
