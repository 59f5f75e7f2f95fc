package codec

import (
	"encoding/binary"
	"math"
	"slices"
	"strconv"

	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
)

// Reach is what requests may refer to that is not in their bodies. Nil things are
// not there.
type Reach struct {
	// Regions is shared memory that clients have registered.
	Regions Regions
	// Labels are the classes of an output, by index; nil where they are not known.
	Labels func(output string) []string
}

// Regions is shared memory, by names that clients have given. Safe for concurrent
// use; errors are *scorer.Error.
type Regions interface {
	// Append adds to dst size bytes at offset of a region, as they are now.
	Append(dst []byte, region string, offset, size uint64) ([]byte, error)
	// Write puts data at offset of a region.
	Write(region string, offset uint64, data []byte) error
}

var errShared = scorer.Errorf(scorer.InvalidArgument, "shared memory of clients is not allowed here; send the tensor with the request, or start the server with --allow-client-shm")

// place is where in shared memory a tensor is, or goes. The zero place is nowhere.
type place struct {
	region       string
	offset, size uint64 // bytes
}

// The parameters that say a place.
const (
	regionName   = "shared_memory_region"
	regionOffset = "shared_memory_offset"
	regionSize   = "shared_memory_byte_size"
)

// read reads the value of the JSON parameter called name, if it is one of a place.
func (p *place) read(s *scanner, name []byte) bool {
	switch string(name) {
	case regionName:
		p.region = string(readText(s, regionName))
	case regionOffset:
		p.offset = readNatural(s, regionOffset, "a number of bytes", math.MaxInt64)
	case regionSize:
		p.size = readNatural(s, regionSize, "a number of bytes", math.MaxInt64)
	default:
		return false
	}
	return true
}

// fetch copies an input from shared memory.
func (r *Infer) fetch(in *input) ([]byte, error) {
	if r.Reach == nil || r.Reach.Regions == nil {
		return nil, errShared
	}
	n := len(r.memory)
	var err error
	r.memory, err = r.Reach.Regions.Append(r.memory, in.at.region, in.at.offset, in.at.size)
	return r.memory[n:len(r.memory):len(r.memory)], err
}

// check says what does not go together in what is asked of an output.
func (o *output) check() error {
	switch {
	case o.at.region != "" && o.classes > 0:
		return bad("Output can't set both 'shared_memory_region' and 'classification'")
	case o.at.region != "" && o.binary:
		return bad("Output can't set both 'shared_memory_region' and 'binary_data'")
	}
	return nil
}

// conclude makes of outputs what the request asks for beyond their data: classes
// instead of numbers, and data in shared memory. Most requests ask for neither.
func (r *Infer) conclude(sig *tensor.Signature, out []tensor.Tensor) error {
	r.concluded = r.concluded[:0]
	if !slices.ContainsFunc(r.wanted, func(o output) bool { return o.classes > 0 || o.at.region != "" }) {
		return nil
	}
	for _, w := range r.wanted {
		t, name := out[w.index], sig.Outputs[w.index].Name
		var err error
		switch {
		case w.classes > 0:
			t, err = r.classify(&t, name, w.classes, sig.Batchable())
		case w.at.region != "":
			err = r.store(w.at, name, t.Data)
		}
		if err != nil {
			return err
		}
		r.concluded = append(r.concluded, t)
	}
	return nil
}

// result is what answers output k of those that are wanted.
func (r *Infer) result(k int, out []tensor.Tensor) *tensor.Tensor {
	if len(r.concluded) > 0 {
		return &r.concluded[k]
	}
	return &out[r.wanted[k].index]
}

// store puts an output into shared memory.
func (r *Infer) store(at place, name string, data []byte) error {
	if r.Reach == nil || r.Reach.Regions == nil {
		return errShared
	}
	if uint64(len(data)) > at.size {
		return bad("shared memory size specified with the request for output '%s' (%d bytes) should be at least %d bytes to hold the results", name, at.size, len(data))
	}
	return r.Reach.Regions.Write(at.region, at.offset, data)
}

// classify is the k classes of each row with the largest values, largest first, each
// as VALUE:INDEX, with :LABEL where it has one. Of equals the lower index is first.
func (r *Infer) classify(t *tensor.Tensor, name string, k int, batched bool) (tensor.Tensor, error) {
	size := t.DType.Size()
	if size == 0 || t.DType == tensor.Bool || t.DType == tensor.Float16 || t.DType == tensor.BFloat16 {
		return *t, bad("class result not available for output '%s' due to unsupported type '%v'", name, t.DType)
	}
	var labels []string
	if r.Reach != nil && r.Reach.Labels != nil {
		labels = r.Reach.Labels(name)
	}
	rows, n := 1, len(t.Data)/size
	if batched && len(t.Shape) > 0 {
		rows = int(t.Shape[0])
		n /= max(rows, 1)
	}
	k = min(k, n)
	var data, text []byte
	order := make([]int, n)
	for row := range rows {
		values := t.Data[row*n*size : (row+1)*n*size]
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int { return compare(t.DType, values[b*size:], values[a*size:]) })
		for _, i := range order[:k] {
			text = strconv.AppendInt(append(appendClass(text[:0], t.DType, values[i*size:]), ':'), int64(i), 10)
			if i < len(labels) {
				text = append(append(text, ':'), labels[i]...)
			}
			data = appendElement(data, text)
		}
	}
	shape := []int64{int64(k)}
	if batched {
		shape = []int64{int64(rows), int64(k)}
	}
	return tensor.Tensor{DType: tensor.Bytes, Shape: shape, Data: data}, nil
}

// element is the first element of raw data as a float64, or as a 64-bit integer where
// it is one; the bits of a 16-bit float.
func element(t tensor.DType, b []byte) (f float64, i int64, u uint64) {
	le := binary.LittleEndian
	switch t {
	case tensor.Float32:
		return float64(math.Float32frombits(le.Uint32(b))), 0, 0
	case tensor.Float64:
		return math.Float64frombits(le.Uint64(b)), 0, 0
	case tensor.Int8:
		return 0, int64(int8(b[0])), 0
	case tensor.Int16:
		return 0, int64(int16(le.Uint16(b))), 0
	case tensor.Int32:
		return 0, int64(int32(le.Uint32(b))), 0
	case tensor.Int64:
		return 0, int64(le.Uint64(b)), 0
	case tensor.Uint8, tensor.Bool:
		return 0, 0, uint64(b[0])
	case tensor.Uint16, tensor.Float16, tensor.BFloat16:
		return 0, 0, uint64(le.Uint16(b))
	case tensor.Uint32:
		return 0, 0, uint64(le.Uint32(b))
	}
	return 0, 0, le.Uint64(b)
}

// compare orders two elements; what is not a number is less than all.
func compare(t tensor.DType, a, b []byte) int {
	f, i, u := element(t, a)
	g, j, v := element(t, b)
	switch {
	case f < g || f != f && g == g || i < j || u < v:
		return -1
	case f > g || f == f && g != g || i > j || u > v:
		return 1
	}
	return 0
}

// appendClass writes the value of a class: a float with six decimals.
func appendClass(dst []byte, t tensor.DType, b []byte) []byte {
	f, i, u := element(t, b)
	switch {
	case t == tensor.Float32 || t == tensor.Float64:
		return strconv.AppendFloat(dst, f, 'f', 6, 64)
	case t >= tensor.Int8 && t <= tensor.Int64:
		return strconv.AppendInt(dst, i, 10)
	}
	return strconv.AppendUint(dst, u, 10)
}
