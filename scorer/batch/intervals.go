package batch

import "math/bits"

// intervals is how long it took until the next request came, counted by powers of two.
// Where something else ended a pause first, how long it would have been is not known,
// but that it was not shorter.
//
// E. Kaplan, P. Meier, Nonparametric estimation from incomplete observations, 1958.
type intervals struct{ met, cut bins }

type bins [binCount]uint16

const (
	binCount = 26 // below 256 ns, 512 ns, … 8.6 s and above
	binShift = 8  // of the first bin
)

// binOf is the bin of a time in nanoseconds.
func binOf(pause float64) int {
	return min(max(bits.Len64(uint64(max(pause, 0)))-binShift, 0), binCount-1)
}

// beginOf and endOf are where a bin begins and ends, in nanoseconds.
func beginOf(i int) float64 {
	if i == 0 {
		return 0
	}
	return endOf(i - 1)
}

func endOf(i int) float64 { return float64(uint64(1) << (i + binShift)) }

// halve forgets half, and returns how many are left.
func (p *intervals) halve() (left int) {
	for i := range binCount {
		p.met[i] /= 2
		p.cut[i] /= 2
		left += int(p.met[i]) + int(p.cut[i])
	}
	return left
}

// chances are, by bin, how likely a pause that reached it ends within it. Those that
// were cut there saw half of it.
func (p *intervals) chances() (list [binCount]float64) {
	reached := 0.0
	for i := binCount - 1; i >= 0; i-- {
		reached += float64(p.met[i]) + float64(p.cut[i])
		if p.met[i] > 0 {
			list[i] = float64(p.met[i]) / (reached - float64(p.cut[i])/2)
		}
	}
	return list
}

// short is the intervals up to some length, of those of which chances are given.
type short struct {
	longer float64 // chance of a longer one
	sum    float64 // nanoseconds: the mean of the others, by their chance
}

const never = 1e-9 // a chance

// shorter are the intervals up to the end of a bin; -1 is none.
func shorter(chances *[binCount]float64, bin int) short {
	s := short{longer: 1}
	for i := range bin + 1 {
		s.add(i, chances[i])
	}
	return s
}

// add goes on to the end of bin i.
func (s *short) add(i int, chance float64) {
	s.sum += s.longer * chance * (beginOf(i) + endOf(i)) / 2
	s.longer *= 1 - chance
}

// mean is the mean of the intervals that are not longer, in nanoseconds.
func (s *short) mean() float64 { return s.sum / max(1-s.longer, never) }
