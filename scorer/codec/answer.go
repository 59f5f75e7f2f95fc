package codec

import (
	"encoding/binary"
	"math"
	"slices"

	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
)

// Answer is what an encoded answer says, read back for comparison.
type Answer []Result

// Result is one output of an answer. It has numbers (0 and 1 for booleans), or
// texts, in row-major order.
type Result struct {
	Name    string
	Dims    int // dimensions
	Row     int // elements of the last one
	Numbers []float64
	Texts   []string
}

// ReadAnswer reads the body of an answer to a request of the given kind, whose
// JSON has headLength bytes, or is all of it where that is 0. It allocates: it is
// not for the path of requests. Errors are *scorer.Error.
func ReadAnswer(kind scorer.Kind, headLength int, body []byte) (Answer, error) {
	head, tail := body, []byte(nil)
	if headLength > 0 && headLength <= len(body) {
		head, tail = body[:headLength], body[headLength:]
	}
	r := answerReader{scanner: scanner{b: head}, tail: tail}
	switch kind {
	case scorer.OIP, scorer.Raw:
		r.object(func(name []byte) {
			if string(name) == "outputs" {
				r.outputs()
				return
			}
			r.skip(2)
		})
	case scorer.AML:
		r.aml()
	case scorer.GRPC:
		return readGRPC(body)
	case scorer.TFServing:
		return readTF(body)
	default:
		return nil, scorer.Errorf(scorer.Unsupported, "answers of this kind cannot be read")
	}
	r.end()
	return r.answer, r.err
}

type answerReader struct {
	scanner
	tail   []byte
	answer Answer
}

// object calls member for each member of an object, to read its value.
func (r *answerReader) object(member func(name []byte)) {
	if !r.want('{', "Invalid value.") {
		return
	}
	for name, more := r.key(true); more && r.err == nil; name, more = r.key(false) {
		member(name)
	}
}

func (r *answerReader) outputs() {
	if !r.want('[', "Invalid value.") {
		return
	}
	for more := r.element(true); more && r.err == nil; more = r.element(false) {
		r.output()
	}
}

// output reads one of the Open Inference Protocol's outputs.
func (r *answerReader) output() {
	var o Result
	dtype, raw := tensor.Invalid, -1
	r.object(func(name []byte) {
		switch string(name) {
		case "name":
			o.Name = string(readText(&r.scanner, "name"))
		case "datatype":
			dtype, _ = tensor.ParseDType(readText(&r.scanner, "datatype"))
		case "shape":
			var shape Result
			r.value(&shape, 0)
			if o.Dims = len(shape.Numbers); o.Dims > 0 {
				o.Row = int(shape.Numbers[o.Dims-1])
			}
		case "parameters":
			r.object(func(name []byte) {
				if string(name) == "binary_data_size" {
					raw = int(readNatural(&r.scanner, "binary_data_size", "a number of bytes", math.MaxInt32))
					return
				}
				r.skip(4)
			})
		case "data":
			var data Result
			r.value(&data, 0)
			o.Numbers, o.Texts = data.Numbers, data.Texts
		default:
			r.skip(4)
		}
	})
	if raw >= 0 && r.err == nil {
		if raw > len(r.tail) {
			r.fail("unexpected size for output '%s'", o.Name)
			return
		}
		o.decode(dtype, r.tail[:raw])
		r.tail = r.tail[raw:]
	}
	r.answer = append(r.answer, o)
}

// aml reads an object of outputs, perhaps within "Results", or a value alone.
func (r *answerReader) aml() {
	if r.peek() != '{' {
		r.answer = append(r.answer, r.nested(""))
		return
	}
	r.object(func(name []byte) {
		if string(name) == "Results" && r.peek() == '{' {
			r.aml()
			return
		}
		r.answer = append(r.answer, r.nested(string(name)))
	})
}

func (r *answerReader) nested(name string) Result {
	o := Result{Name: name}
	r.value(&o, 0)
	return o
}

// value reads nested arrays of numbers, booleans or texts into o.
func (r *answerReader) value(o *Result, depth int) {
	switch c := r.peek(); {
	case depth > maxDepth:
		r.fail("JSON nesting depth exceeds maximum allowed limit (%d)", maxDepth)
	case c == '[':
		r.i++
		n := 0
		for more := r.element(true); more && r.err == nil; more = r.element(false) {
			r.value(o, depth+1)
			n++
		}
		if o.Dims <= depth {
			o.Dims, o.Row = depth+1, n // of the first that is deepest
		}
	case c == '"':
		o.Texts = append(o.Texts, string(r.text()))
	case c == 't' || c == 'f':
		v, ok := r.boolean()
		if !ok {
			r.syntax("Invalid value.")
		}
		o.Numbers = append(o.Numbers, float64(b2u(v)))
	default:
		var bits [8]byte
		if number := r.float(bits[:0], tensor.Float64, nil); len(number) == len(bits) {
			o.Numbers = append(o.Numbers, math.Float64frombits(binary.LittleEndian.Uint64(number)))
		}
	}
}

// decode reads raw data.
func (o *Result) decode(t tensor.DType, data []byte) {
	if t == tensor.Bytes {
		for len(data) >= 4 {
			n := min(uint64(binary.LittleEndian.Uint32(data)), uint64(len(data)-4))
			o.Texts = append(o.Texts, string(data[4:4+n]))
			data = data[4+n:]
		}
		return
	}
	size := t.Size()
	if size == 0 {
		return
	}
	o.Numbers = slices.Grow(o.Numbers, len(data)/size)
	for ; len(data) >= size; data = data[size:] {
		o.Numbers = append(o.Numbers, number(t, data))
	}
}

// number is the first element of raw data, as near as a float64 comes to it.
func number(t tensor.DType, data []byte) float64 {
	f, i, u := element(t, data)
	switch t {
	case tensor.Float32, tensor.Float64:
		return f
	case tensor.Float16:
		return half(uint16(u))
	case tensor.BFloat16:
		return float64(math.Float32frombits(uint32(u) << 16))
	case tensor.Int8, tensor.Int16, tensor.Int32, tensor.Int64:
		return float64(i)
	}
	return float64(u)
}

// half is an IEEE 754 binary16.
func half(bits uint16) float64 {
	sign, exponent, fraction := 1.0, int(bits>>10&31), float64(bits&1023)
	if bits>>15 == 1 {
		sign = -1
	}
	switch exponent {
	case 0:
		return sign * math.Ldexp(fraction, -24)
	case 31:
		if fraction != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	}
	return sign * math.Ldexp(1024+fraction, exponent-25)
}
