package codec

import (
	"encoding/binary"
	"math"

	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
)

// nest follows the shape of nested arrays. Its zero value takes any nesting.
type nest struct {
	strict bool
	depth  int
	dims   [maxDepth]int64 // elements of the first array at each depth; -1 not yet known
}

// array appends the elements of a nested array to dst, in the raw form of t. It
// returns how many there are. The array's [ is next.
func (s *scanner) array(dst []byte, t tensor.DType, name []byte, n *nest, depth int) ([]byte, int64) {
	if depth >= maxDepth {
		s.fail("JSON nesting depth exceeds maximum allowed limit (%d)", maxDepth)
		return dst, 0
	}
	if !s.begin('[') {
		s.fail("Unable to parse 'data': attempt to access JSON non-array as array")
		return dst, 0
	}
	if depth >= n.depth {
		n.depth = depth + 1
		n.dims[depth] = -1
	}
	var total, here int64
	nested := false
	for more := s.element(true); more && s.err == nil; more = s.element(false) {
		deeper := s.peek() == '['
		if here > 0 && deeper != nested && n.strict {
			s.fail("the array of '%s' mixes values and arrays", name)
		}
		nested = deeper
		here++
		if nested {
			var k int64
			dst, k = s.array(dst, t, name, n, depth+1)
			total += k
			continue
		}
		if n.strict && n.depth > depth+1 {
			s.fail("the array of '%s' mixes values and arrays", name)
		}
		dst = s.value(dst, t, name)
		total++
	}
	if n.dims[depth] == -1 {
		n.dims[depth] = here
	} else if n.strict && n.dims[depth] != here && s.err == nil {
		s.fail("the array of '%s' is ragged: rows of %d and of %d elements", name, n.dims[depth], here)
	}
	return dst, total
}

// value appends one element in the raw form of t.
func (s *scanner) value(dst []byte, t tensor.DType, name []byte) []byte {
	switch t {
	case tensor.Float32, tensor.Float64:
		return s.float(dst, t, name)
	case tensor.Bool:
		v, ok := s.boolean()
		if !ok {
			s.fail("Unable to parse 'data': attempt to access JSON non-boolean as boolean")
		}
		return append(dst, b2u(v))
	case tensor.Bytes:
		return s.stringValue(dst)
	case tensor.Float16, tensor.BFloat16:
		s.fail("receiving %v data via JSON is not supported. Please use the binary data format for input %s", t, name)
		return dst
	}
	return s.integerValue(dst, t, name)
}

func b2u(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// short reads a whole number of up to 7 digits, which a float32 holds exactly, if
// that is what comes next. Pixels and counts are such, and they come in great
// numbers.
func (s *scanner) short() (f float32, ok bool) {
	s.peek()
	n, i := uint32(0), s.i
	for ; i < len(s.b) && i < s.i+7 && isDigit(s.b[i]); i++ {
		n = n*10 + uint32(s.b[i]-'0')
	}
	if i == s.i || i == len(s.b) || s.b[i] != ',' && s.b[i] != ']' || s.b[s.i] == '0' && i > s.i+1 {
		return 0, false
	}
	s.i = i
	return float32(n), true
}

func (s *scanner) float(dst []byte, t tensor.DType, name []byte) []byte {
	if f, ok := s.short(); ok {
		return appendBits(dst, t, float64(f))
	}
	if c := s.peek(); c == '"' || c == 't' || c == 'f' || c == 'n' || c == '{' {
		s.fail("Unable to parse 'data': attempt to access JSON non-number as number")
		return dst
	} else if c == 'N' && s.tryWord("NaN") {
		return appendBits(dst, t, math.NaN())
	} else if c == 'I' && s.tryWord("Infinity") {
		return appendBits(dst, t, math.Inf(1))
	}
	d := s.number()
	if s.err != nil {
		return dst
	}
	if len(d.text) > 1 && d.text[1] == 'I' {
		return appendBits(dst, t, math.Inf(-1))
	}
	if t == tensor.Float32 {
		f, ok := d.float32()
		if !ok {
			s.outOfRange(d, t, name)
		}
		return binary.LittleEndian.AppendUint32(dst, math.Float32bits(f))
	}
	f, ok := d.float64()
	if !ok {
		s.outOfRange(d, t, name)
	}
	return appendBits(dst, t, f)
}

func appendBits(dst []byte, t tensor.DType, f float64) []byte {
	if t == tensor.Float32 {
		return binary.LittleEndian.AppendUint32(dst, math.Float32bits(float32(f)))
	}
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(f))
}

func (s *scanner) outOfRange(d decimal, t tensor.DType, name []byte) {
	s.fail("Unable to parse 'data': %.32s is out of range for input '%s' of type %v", d.text, name, t)
}

// ranges are the bounds of the integer types.
var ranges = [...]struct {
	size     int
	negative uint64 // the largest magnitude below zero
	positive uint64
}{
	tensor.Uint8: {1, 0, math.MaxUint8}, tensor.Uint16: {2, 0, math.MaxUint16},
	tensor.Uint32: {4, 0, math.MaxUint32}, tensor.Uint64: {8, 0, math.MaxUint64},
	tensor.Int8: {1, 1 << 7, math.MaxInt8}, tensor.Int16: {2, 1 << 15, math.MaxInt16},
	tensor.Int32: {4, 1 << 31, math.MaxInt32}, tensor.Int64: {8, 1 << 63, math.MaxInt64},
}

func (s *scanner) integerValue(dst []byte, t tensor.DType, name []byte) []byte {
	if c := s.peek(); c != '-' && !isDigit(c) {
		s.fail("Unable to parse 'data': attempt to access JSON non-integer as integer")
		return dst
	}
	d := s.number()
	if s.err != nil {
		return dst
	}
	m, negative, ok := d.integer()
	if !d.whole {
		s.fail("Unable to parse 'data': attempt to access JSON non-integer as integer")
		return dst
	}
	r := &ranges[t]
	if !ok || negative && m > r.negative || !negative && m > r.positive {
		s.outOfRange(d, t, name)
		return dst
	}
	if negative {
		m = -m
	}
	return appendInteger(dst, r.size, m)
}

// appendInteger appends the low size bytes of m.
func appendInteger(dst []byte, size int, m uint64) []byte {
	switch size {
	case 1:
		return append(dst, byte(m))
	case 2:
		return binary.LittleEndian.AppendUint16(dst, uint16(m))
	case 4:
		return binary.LittleEndian.AppendUint32(dst, uint32(m))
	}
	return binary.LittleEndian.AppendUint64(dst, m)
}

// stringValue appends a BYTES element: its length and its bytes.
func (s *scanner) stringValue(dst []byte) []byte {
	if s.b64 && s.peek() == '{' {
		return s.base64Value(dst)
	}
	if s.peek() != '"' {
		s.fail("Unable to parse JSON bytes array: attempt to access JSON non-string as string")
		return dst
	}
	raw, escaped := s.raw()
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	if !escaped {
		dst = append(dst, raw...)
	} else {
		var ok bool
		if dst, ok = unescape(dst, raw); !ok {
			s.syntax("Invalid escape character in string.")
		}
	}
	binary.LittleEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst
}

// checkStrings makes sure that data is count BYTES elements.
func checkStrings(data []byte, count int64, model string, name string) error {
	var n int64
	for ; len(data) > 0; n++ {
		if len(data) < 4 {
			return scorer.Errorf(scorer.InvalidArgument, "incomplete string length indicator for inference input '%s' for model '%s', expecting 4 bytes but only %d bytes available", name, model, len(data))
		}
		size := uint64(binary.LittleEndian.Uint32(data))
		if data = data[4:]; size > uint64(len(data)) {
			return scorer.Errorf(scorer.InvalidArgument, "incomplete string data for inference input '%s' for model '%s', expecting string of length %d but only %d bytes available", name, model, size, len(data))
		}
		data = data[size:]
	}
	if n != count {
		return scorer.Errorf(scorer.InvalidArgument, "expected %d string elements for inference input '%s' for model '%s', got %d", count, name, model, n)
	}
	return nil
}
