// Package mirror compares the answers of two versions to the same request.
package mirror

import (
	"errors"
	"math"

	"sluice.dev/scorer"
	"sluice.dev/scorer/codec"
)

// Reply is an encoded answer.
type Reply struct {
	HeadLength int // bytes of JSON before raw tensors; 0: all of it is JSON
	Body       []byte
}

// Difference is how far two answers are from each other.
type Difference struct {
	Absolute float64 // the largest |a-b|
	Relative float64 // the largest |a-b| / max(|a|, |b|)
	Rows     int     // of which the first choice was compared
	Flipped  int     // of those, where it differs
}

// ErrIncomparable means that the answers have not the same outputs in the same
// shapes.
var ErrIncomparable = errors.New("the answers have different outputs")

// Compare reads both answers to a request of one kind. The first choice of a row is
// the index of its largest value, where an output has a dimension besides the rows;
// where it has none, and whole numbers or texts, the value itself. Two NaN are
// equal; one alone is infinitely far.
func Compare(kind scorer.Kind, a, b Reply) (d Difference, err error) {
	x, err := codec.ReadAnswer(kind, a.HeadLength, a.Body)
	if err != nil {
		return d, err
	}
	y, err := codec.ReadAnswer(kind, b.HeadLength, b.Body)
	if err != nil {
		return d, err
	}
	if len(x) != len(y) {
		return d, ErrIncomparable
	}
	for i := range x {
		other := find(y, x[i].Name)
		if other == nil || len(x[i].Numbers) != len(other.Numbers) || len(x[i].Texts) != len(other.Texts) {
			return d, ErrIncomparable
		}
		d.add(&x[i], other)
	}
	return d, nil
}

func find(a codec.Answer, name string) *codec.Result {
	for i := range a {
		if a[i].Name == name {
			return &a[i]
		}
	}
	return nil
}

// add takes one output into account.
func (d *Difference) add(a, b *codec.Result) {
	for i, x := range a.Numbers {
		absolute, relative := distance(x, b.Numbers[i])
		d.Absolute, d.Relative = max(d.Absolute, absolute), max(d.Relative, relative)
	}
	d.Rows += len(a.Texts)
	for i, text := range a.Texts {
		if text != b.Texts[i] {
			d.Flipped++
		}
	}
	switch {
	case a.Dims >= 2 && a.Row >= 2:
		d.choices(a, b)
	case a.Dims <= 1 && whole(a.Numbers) && whole(b.Numbers):
		d.Rows += len(a.Numbers)
		for i, x := range a.Numbers {
			if x != b.Numbers[i] {
				d.Flipped++
			}
		}
	}
}

// choices compares the largest value of each row.
func (d *Difference) choices(a, b *codec.Result) {
	for from := 0; from+a.Row <= len(a.Numbers); from += a.Row {
		d.Rows++
		if largest(a.Numbers[from:from+a.Row]) != largest(b.Numbers[from:from+a.Row]) {
			d.Flipped++
		}
	}
}

func largest(row []float64) (at int) {
	for i, x := range row {
		if x > row[at] {
			at = i
		}
	}
	return at
}

func distance(a, b float64) (absolute, relative float64) {
	switch {
	case a == b, math.IsNaN(a) && math.IsNaN(b):
		return 0, 0
	case math.IsNaN(a) || math.IsNaN(b), math.IsInf(a, 0), math.IsInf(b, 0):
		return math.Inf(1), math.Inf(1)
	}
	absolute = math.Abs(a - b)
	return absolute, absolute / max(math.Abs(a), math.Abs(b))
}

func whole(list []float64) bool {
	for _, x := range list {
		if x != math.Trunc(x) {
			return false
		}
	}
	return true
}
