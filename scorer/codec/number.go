package codec

import (
	"math"
	"strconv"
)

// decimal is a number as it is written: m · 10^exp, of the digits in text.
type decimal struct {
	text     []byte
	m        uint64 // the first 19 significant digits
	exp      int
	negative bool
	whole    bool // written without fraction and exponent
	exact    bool // m holds all digits
}

// number reads a JSON number; NaN, Infinity and -Infinity are not numbers here.
func (s *scanner) number() (d decimal) {
	s.peek()
	b, i := s.b, s.i
	from := i
	if i < len(b) && b[i] == '-' {
		d.negative = true
		i++
	}
	digits := i
	d.exact, d.whole = true, true
	for ; i < len(b) && isDigit(b[i]); i++ {
		d.push(b[i])
	}
	n := i - digits
	if n == 0 || n > 1 && b[digits] == '0' {
		if d.negative && n == 0 && len(b)-i >= 8 && string(b[i:i+8]) == "Infinity" {
			s.i = i + 8
			d.text = b[from:s.i]
			return d
		}
		s.syntax("Invalid value.")
		return d
	}
	if i < len(b) && b[i] == '.' {
		i++
		fraction := i
		for ; i < len(b) && isDigit(b[i]); i++ {
			if d.exact {
				d.exp--
			}
			d.push(b[i])
		}
		if i == fraction {
			s.i = i
			s.syntax("Miss fraction part in number.")
			return d
		}
		d.whole = false
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i = s.exponent(i+1, &d)
	}
	if s.err == nil {
		s.i = i
		d.text = b[from:i]
	}
	return d
}

func isDigit(c byte) bool { return c-'0' <= 9 }

// push adds a digit to the mantissa.
func (d *decimal) push(c byte) {
	if d.m < (math.MaxUint64-9)/10 {
		d.m = d.m*10 + uint64(c-'0')
		return
	}
	d.exact = false
}

// exponent reads what follows the e at i, and returns where it ends.
func (s *scanner) exponent(i int, d *decimal) int {
	b := s.b
	negative := false
	if i < len(b) && (b[i] == '+' || b[i] == '-') {
		negative = b[i] == '-'
		i++
	}
	from, e := i, 0
	for ; i < len(b) && isDigit(b[i]); i++ {
		e = min(e*10+int(b[i]-'0'), 100_000)
	}
	if i == from {
		s.i = i
		s.syntax("Miss exponent in number.")
		return i
	}
	if negative {
		e = -e
	}
	d.exp += e
	d.whole = false
	return i
}

// pow10 are the powers of ten that a float64 holds exactly.
var pow10 = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// fast64 is the nearest float64 where one operation on exact operands gives it.
// Source: Clinger, How to read floating point numbers accurately, 1990.
func (d *decimal) fast64() (float64, bool) {
	if !d.exact || d.m > 1<<53 || d.exp < -22 || d.exp > 22 {
		return 0, false
	}
	f := float64(d.m)
	if d.exp < 0 {
		f /= pow10[-d.exp]
	} else {
		f *= pow10[d.exp]
	}
	if d.negative {
		f = -f
	}
	return f, true
}

// float64 is the nearest float64. False: it is out of range.
func (d *decimal) float64() (float64, bool) {
	if f, ok := d.fast64(); ok {
		return f, true
	}
	f, err := strconv.ParseFloat(string(d.text), 64)
	return f, err == nil
}

// float32 is the nearest float32. False: it is out of range.
//
// Rounding the nearest float64 again gives the nearest float32, unless the first
// rounding ended exactly half-way between two float32, or in the range where
// those have fewer digits.
func (d *decimal) float32() (float32, bool) {
	if f, ok := d.fast64(); ok {
		const low29, half = 1<<29 - 1, 1 << 28
		a := math.Abs(f)
		if a == 0 || a >= 0x1p-126 && a < 0x1p127 && math.Float64bits(f)&low29 != half {
			return float32(f), true
		}
	}
	f, err := strconv.ParseFloat(string(d.text), 32)
	return float32(f), err == nil
}

// integer is the number as an integer. False: it is not written as one, or does
// not fit 64 bits.
func (d *decimal) integer() (magnitude uint64, negative, ok bool) {
	if !d.whole {
		return 0, false, false
	}
	if d.exact {
		return d.m, d.negative, true
	}
	text := d.text
	if d.negative {
		text = text[1:]
	}
	m, err := strconv.ParseUint(string(text), 10, 64)
	return m, d.negative, err == nil
}

// natural reads a number that is written without sign, fraction and exponent. False:
// something else comes next, or it does not fit 64 bits.
func (s *scanner) natural() (uint64, bool) {
	if !isDigit(s.peek()) {
		return 0, false
	}
	d := s.number()
	n, _, ok := d.integer()
	return n, ok && len(d.text) > 0
}

// appendFloat writes the shortest decimal that reads back as f.
func appendFloat(dst []byte, f float64, bits int) []byte {
	switch {
	case f != f:
		return append(dst, "NaN"...)
	case f > math.MaxFloat64:
		return append(dst, "Infinity"...)
	case f < -math.MaxFloat64:
		return append(dst, "-Infinity"...)
	}
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		return strconv.AppendFloat(dst, f, 'e', -1, bits)
	}
	return strconv.AppendFloat(dst, f, 'f', -1, bits)
}
