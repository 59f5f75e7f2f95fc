package codec

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"sluice.dev/accel/tensor"
	"sluice.dev/scorer/codec/wire"
)

// tfTypes are TF's data types by ours: the number of the enumeration, the field of
// TensorProto with typed values, and the name in messages.
var tfTypes = [...]struct {
	number uint64
	field  protowire.Number
	name   string
}{
	tensor.Bool: {10, 11, "bool"}, tensor.Bytes: {7, 8, "string"},
	tensor.Uint8: {4, 7, "uint8"}, tensor.Uint16: {17, 7, "uint16"}, tensor.Uint32: {22, 16, "uint32"}, tensor.Uint64: {23, 17, "uint64"},
	tensor.Int8: {6, 7, "int8"}, tensor.Int16: {5, 7, "int16"}, tensor.Int32: {3, 7, "int32"}, tensor.Int64: {9, 10, "int64"},
	tensor.Float16: {19, 13, "half"}, tensor.BFloat16: {14, 13, "bfloat16"}, tensor.Float32: {1, 5, "float"}, tensor.Float64: {2, 6, "double"},
}

// TFType is the number of a type in TF's enumeration of data types.
func TFType(t tensor.DType) int32 { return int32(tfTypes[t].number) }

// TFSignature is the name of the only signature that a model has.
const TFSignature = "serving_default"

// maxFilled bounds the bytes of a tensor that is stated by its shape and its first
// values alone, of which the last stands for all that are missing.
const maxFilled = 1 << 20

// decodeTF reads a PredictRequest; the numbers of its fields are in
// gateway/grpcapi/tfservingpb.
func (r *Infer) decodeTF(sig *tensor.Signature, model string, body []byte) error {
	m := wire.Read(body)
	for m.Next() {
		var err error
		switch {
		case m.Is(1):
			err = tfSignature(m.Bytes)
		case m.Is(2):
			err = r.tfInput(sig, m.Bytes)
		case m.Is(3):
			err = r.tfOutput(sig, m.Bytes)
		}
		if err != nil {
			return err
		}
	}
	if m.Bad() {
		return ErrCut
	}
	for i := range r.given {
		if err := r.tfRead(sig, &r.given[i]); err != nil {
			return err
		}
	}
	if len(r.given) != len(sig.Inputs) {
		return r.tfMissing(sig)
	}
	return r.assemble(sig, model)
}

// tfSignature checks the signature that a ModelSpec names.
func tfSignature(spec []byte) error {
	m := wire.Read(spec)
	for m.Next() {
		if m.Is(3) && len(m.Bytes) > 0 && string(m.Bytes) != TFSignature {
			return bad("Serving signature key \"%.64s\" not found.", m.Bytes)
		}
	}
	if m.Bad() {
		return ErrCut
	}
	return nil
}

// tfMissing says which inputs are.
func (r *Infer) tfMissing(sig *tensor.Signature) error {
	var got, want, lack []string
	for i := range sig.Inputs {
		name := sig.Inputs[i].Name
		want = append(want, name)
		if r.input(i) != nil {
			got = append(got, name)
		} else {
			lack = append(lack, name)
		}
	}
	set := func(names []string) string {
		slices.Sort(names)
		return "{" + strings.Join(names, ",") + "}"
	}
	return bad("input size does not match signature: %d!=%d len(%s) != len(%s). Sent extra: {}. Missing but required: %s.",
		len(got), len(want), set(got), set(want), set(lack))
}

// tfTensor reads an entry of a map of tensors, but for the data: its name, and the
// number of its type.
func (r *Infer) tfTensor(entry []byte) (in input, name []byte, dtype uint64, err error) {
	in.count = -1
	in.shape[0], in.memory[0], in.memory[1] = len(r.shapes), len(r.memory), len(r.memory)
	m := wire.Read(entry)
	for m.Next() {
		switch {
		case m.Is(1):
			name = m.Bytes
		case m.Is(2):
			t := wire.Read(m.Bytes)
			for t.Next() {
				switch {
				case t.IsVarint(1):
					dtype = t.Varint
				case t.Is(2):
					if err := r.tfShape(t.Bytes, in.shape[0]); err != nil {
						return in, name, dtype, err
					}
				}
			}
			if t.Bad() {
				return in, name, dtype, ErrCut
			}
		}
	}
	if m.Bad() {
		err = ErrCut
	}
	in.shape[1] = len(r.shapes)
	return in, name, dtype, err
}

// tfInput notes an entry of the map of inputs. Of two with a name the later one is
// meant: none is read before all are there, since a few bytes may state a large tensor.
func (r *Infer) tfInput(sig *tensor.Signature, entry []byte) error {
	var name []byte
	m := wire.Read(entry)
	for m.Next() {
		if m.Is(1) {
			name = m.Bytes
		}
	}
	if m.Bad() {
		return ErrCut
	}
	in := input{index: index(sig.Inputs, name), data: entry}
	if in.index < 0 {
		return bad("input tensor alias not found in signature: %.64s. Inputs expected to be in the set {%s}.", name, nameSet(sig.Inputs))
	}
	if earlier := r.input(in.index); earlier != nil {
		*earlier = in
		return nil
	}
	r.given = append(r.given, in)
	return nil
}

// tfRead reads the entry that was noted of an input.
func (r *Infer) tfRead(sig *tensor.Signature, noted *input) error {
	entry := noted.data
	in, name, dtype, err := r.tfTensor(entry)
	if err != nil {
		return err
	}
	in.index = noted.index
	in.dtype = sig.Inputs[in.index].DType
	if dtype != tfTypes[in.dtype].number {
		return bad("Expects arg[%d] to be %s but %s is provided", in.index, tfTypes[in.dtype].name, tfName(dtype))
	}
	if err := r.tfData(entry, &in, name); err != nil {
		return err
	}
	*noted = in
	return nil
}

// nameSet are the names of tensors, in order.
func nameSet(list []tensor.Info) string {
	var names []string
	for i := range list {
		names = append(names, list[i].Name)
	}
	slices.Sort(names)
	return strings.Join(names, ",")
}

func tfName(number uint64) string {
	for i := range tfTypes {
		if tfTypes[i].number == number && number > 0 {
			return tfTypes[i].name
		}
	}
	return "DataType(" + strconv.FormatUint(number, 10) + ")"
}

// tfShape reads a TensorShapeProto.
func (r *Infer) tfShape(shape []byte, from int) error {
	m := wire.Read(shape)
	for m.Next() {
		switch {
		case m.Is(2):
			size := uint64(0)
			d := wire.Read(m.Bytes)
			for d.Next() {
				if d.IsVarint(1) {
					size = d.Varint
				}
			}
			if d.Bad() {
				return ErrCut
			}
			if len(r.shapes)-from == maxDims {
				return bad("a shape has at most %d dimensions", maxDims)
			}
			r.shapes = append(r.shapes, int64(size))
		case m.IsVarint(3) && m.Varint != 0:
			return bad("a tensor of unknown rank cannot be an input")
		}
	}
	if m.Bad() {
		return ErrCut
	}
	return nil
}

// tfData reads the data of a TensorProto that may leave out values.
func (r *Infer) tfData(entry []byte, in *input, name []byte) error {
	content, err := r.tfValues(entry, in, name)
	if err != nil || content {
		return err
	}
	return r.fill(in, name)
}

// tfValues reads the values of a TensorProto, or, true, its content as it is.
func (r *Infer) tfValues(entry []byte, in *input, name []byte) (bool, error) {
	var content []byte
	for m := wire.Read(entry); m.Next(); {
		if !m.Is(2) {
			continue
		}
		for t := wire.Read(m.Bytes); t.Next(); {
			if t.Is(4) {
				content = t.Bytes
			} else if t.Num == tfTypes[in.dtype].field {
				if err := r.tfElements(&t, in, name); err != nil {
					return false, err
				}
			}
		}
	}
	if len(content) > 0 && in.dtype == tensor.Bytes {
		return false, bad("tensor parsing error: %.64s; send strings in string_val", name)
	}
	if len(content) > 0 {
		in.data = content
	}
	return len(content) > 0, nil
}

// tfElements reads a field that has elements of in.
func (r *Infer) tfElements(t *wire.Message, in *input, name []byte) error {
	if in.dtype != tensor.Float16 && in.dtype != tensor.BFloat16 {
		return r.elements(t, in, name)
	}
	v := t.Varints()
	for x, ok := v.Next(); ok; x, ok = v.Next() {
		r.memory = append(r.memory, byte(x), byte(x>>8))
	}
	if v.Bad() {
		return ErrCut
	}
	in.memory[1], in.found = len(r.memory), true
	return nil
}

// fill completes the values of in: the last one stands for those that are missing,
// zero where there is none.
func (r *Infer) fill(in *input, name []byte) error {
	n, ok := tensor.Elements(r.shapes[in.shape[0]:in.shape[1]])
	if !ok {
		return nil // the check of the shape says so
	}
	data := r.memory[in.memory[0]:in.memory[1]]
	if in.data != nil {
		data = in.data
	}
	count, last := elementsOf(data, in.dtype)
	if count >= n {
		return nil
	}
	if n-count > maxFilled/int64(max(len(last), 1)) {
		return bad("tensor parsing error: %.64s has %d of %d values; send them all", name, count, n)
	}
	if in.data != nil {
		r.memory = append(r.memory, in.data...)
		in.data = nil
	}
	last = append(make([]byte, 0, 8), last...) // memory may move
	for ; count < n; count++ {
		r.memory = append(r.memory, last...)
	}
	in.memory[1] = len(r.memory)
	return nil
}

// elementsOf is how many elements data has, and the last one, or a zero.
func elementsOf(data []byte, t tensor.DType) (n int64, last []byte) {
	var zero [8]byte
	if t != tensor.Bytes {
		size := t.Size()
		if len(data) < size {
			return 0, zero[:size]
		}
		return int64(len(data) / size), data[len(data)-size:]
	}
	last = zero[:4]
	for ; len(data) >= 4; n++ {
		end := 4 + int(binary.LittleEndian.Uint32(data))
		last, data = data[:end], data[end:]
	}
	return n, last
}

// tfOutput reads an entry of output_filter.
func (r *Infer) tfOutput(sig *tensor.Signature, name []byte) error {
	i := index(sig.Outputs, name)
	if i < 0 {
		return bad("output tensor alias not found in signature: %.64s Outputs expected to be in the set {%s}.", name, nameSet(sig.Outputs))
	}
	if r.wants(i) {
		return bad("duplicate output tensor alias: %s", name)
	}
	r.wanted = append(r.wanted, output{index: i})
	return nil
}

// appendTF writes a PredictResponse with typed values, as TF Serving does: clients
// in C++ read those lists themselves.
func (r *Infer) appendTF(dst []byte, sig *tensor.Signature, model, version string, out []tensor.Tensor) []byte {
	for _, w := range r.wanted {
		name, t := sig.Outputs[w.index].Name, &out[w.index]
		size := tfTensorSize(t)
		dst = wire.AppendLength(dst, 1, wire.SizeBytes(1, len(name))+wire.SizeBytes(2, size))
		dst = wire.AppendBytes(dst, 1, name)
		dst = appendTFTensor(wire.AppendLength(dst, 2, size), t)
	}
	var spec [256]byte // more than names usually take
	return wire.AppendBytes(dst, 2, AppendModelSpec(spec[:0], model, version))
}

// AppendModelSpec writes the ModelSpec of an answer. A version whose name is a number
// is one, another is a label.
func AppendModelSpec(dst []byte, model, version string) []byte {
	dst = wire.AppendBytes(dst, 1, model)
	if n, ok := TFVersion(version); ok {
		value := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(n))
		dst = wire.AppendBytes(dst, 2, value)
	} else {
		dst = wire.AppendBytes(dst, 4, version)
	}
	return wire.AppendBytes(dst, 3, TFSignature)
}

// TFVersion is the number that a version's name is; false if it is none.
func TFVersion(name string) (int64, bool) {
	n, err := strconv.ParseInt(name, 10, 64)
	return n, err == nil && n > 0 && name == strconv.FormatInt(n, 10)
}

// dimSize is the length of a dimension's TensorShapeProto.Dim.
func dimSize(d int64) int { return 1 + protowire.SizeVarint(uint64(d)) }

// shapeSize is the length of a TensorShapeProto.
func shapeSize(shape []int64) (n int) {
	for _, d := range shape {
		n += wire.SizeBytes(2, dimSize(d))
	}
	return n
}

func tfTensorSize(t *tensor.Tensor) int {
	return 1 + protowire.SizeVarint(tfTypes[t.DType].number) + wire.SizeBytes(2, shapeSize(t.Shape)) + valuesSize(t)
}

func appendTFTensor(dst []byte, t *tensor.Tensor) []byte {
	dst = protowire.AppendTag(dst, 1, protowire.VarintType)
	dst = protowire.AppendVarint(dst, tfTypes[t.DType].number)
	dst = wire.AppendLength(dst, 2, shapeSize(t.Shape))
	for _, d := range t.Shape {
		dst = wire.AppendLength(dst, 2, dimSize(d))
		dst = protowire.AppendTag(dst, 1, protowire.VarintType)
		dst = protowire.AppendVarint(dst, uint64(d))
	}
	return appendTFValues(dst, t)
}

// valuesSize is the length of what appendTFValues writes.
func valuesSize(t *tensor.Tensor) int {
	field := tfTypes[t.DType].field
	switch t.DType {
	case tensor.Float32, tensor.Float64:
		return wire.SizeBytes(field, len(t.Data))
	case tensor.Bytes:
		n := 0
		for data := t.Data; len(data) >= 4; {
			size := int(binary.LittleEndian.Uint32(data))
			n, data = n+wire.SizeBytes(field, size), data[4+size:]
		}
		return n
	}
	return wire.SizeBytes(field, varintsSize(t))
}

func varintsSize(t *tensor.Tensor) int {
	n := 0
	for data := t.Data; len(data) > 0; data = data[t.DType.Size():] {
		n += protowire.SizeVarint(varintOf(data, t.DType))
	}
	return n
}

// appendTFValues writes a tensor's values into the field of their type.
func appendTFValues(dst []byte, t *tensor.Tensor) []byte {
	field := tfTypes[t.DType].field
	switch t.DType {
	case tensor.Float32, tensor.Float64: // packed, they are as they are
		return wire.AppendBytes(dst, field, t.Data)
	case tensor.Bytes:
		for data := t.Data; len(data) >= 4; {
			end := 4 + int(binary.LittleEndian.Uint32(data))
			dst, data = wire.AppendBytes(dst, field, data[4:end]), data[end:]
		}
		return dst
	}
	dst = wire.AppendLength(dst, field, varintsSize(t))
	for data := t.Data; len(data) > 0; data = data[t.DType.Size():] {
		dst = protowire.AppendVarint(dst, varintOf(data, t.DType))
	}
	return dst
}

// varintOf is the first element of data as protobuf's varint.
func varintOf(data []byte, t tensor.DType) uint64 {
	_, i, u := element(t, data)
	return uint64(i) | u // one of them is 0
}
