package sim

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"sluice.dev/scorer/batch"
)

// Poisson is n requests of one row that come independently of each other.
func Poisson(perSecond float64, n int, seed uint64) []Arrival {
	rng := rand.New(rand.NewPCG(seed, 2))
	list := make([]Arrival, n)
	at := 0.0
	for i := range list {
		at += rng.ExpFloat64() / perSecond
		list[i] = Arrival{At: seconds(at), Rows: 1}
	}
	return list
}

// Bursts is n requests in bursts that come independently of each other, of size in the mean,
// most of them smaller. Within one they come a microsecond apart, or in a tenth of the time
// that they have at a steady rate; one that is due while another comes follows it.
func Bursts(perSecond float64, size, n int, seed uint64) []Arrival {
	rng := rand.New(rand.NewPCG(seed, 3))
	apart := min(time.Microsecond, seconds(0.1/perSecond))
	more := 1 / math.Log(float64(size)/float64(size-1)) // rounded down, an exponential time of this mean is size-1 in the mean
	list := make([]Arrival, 0, n)
	var due float64
	var at time.Duration
	for len(list) < n {
		due += rng.ExpFloat64() * float64(size) / perSecond
		at = max(at, seconds(due))
		for range min(1+int(rng.ExpFloat64()*more), n-len(list)) {
			list = append(list, Arrival{At: at, Rows: 1})
			at += apart
		}
	}
	return list
}

// Daily is n requests whose rate swings between a tenth and 1.9 times perSecond once in
// every period.
func Daily(perSecond float64, period time.Duration, n int, seed uint64) []Arrival {
	rng := rand.New(rand.NewPCG(seed, 4))
	list := make([]Arrival, n)
	at := 0.0
	for i := range list {
		phase := 2 * math.Pi * at / period.Seconds()
		at += rng.ExpFloat64() / (perSecond * (1 + 0.9*math.Sin(phase)))
		list[i] = Arrival{At: seconds(at), Rows: 1}
	}
	return list
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// Times is a function of run times that are known at some sizes, smallest first, linear between
// them. Of the time of the smallest, half is taken for fixed; a row beyond the largest costs
// what one of the largest does, since nothing says that more would gain.
func Times(rows []int, took []time.Duration) func(int) time.Duration {
	return func(n int) time.Duration {
		i, found := slices.BinarySearch(rows, n)
		switch {
		case found:
			return took[i]
		case i == 0:
			return part(took[0], 0.5+0.5*float64(n)/float64(rows[0]))
		case i == len(rows):
			return part(took[i-1], float64(n)/float64(rows[i-1]))
		}
		return took[i-1] + part(took[i]-took[i-1], float64(n-rows[i-1])/float64(rows[i]-rows[i-1]))
	}
}

// Measured are the Time and the Noise of a device whose runs were measured: the points are
// what they took in the mean, and how much that spread.
func Measured(points []batch.Point) (took func(int) time.Duration, noise float64) {
	var rows []int
	var times []time.Duration
	var spread, runs float64
	for _, p := range points {
		rows, times = append(rows, p.Rows), append(times, p.Time)
		spread += p.Runs * float64(p.Spread) / float64(p.Time)
		runs += p.Runs
	}
	if spread /= math.Max(runs, 1); spread > 0 {
		noise = spread / math.Max(deviation-spread, spread) // at most 1
	}
	for i := range times {
		times[i] = max(part(times[i], 1/(1+noise)), 1)
	}
	return Times(rows, times), noise
}

func part(d time.Duration, share float64) time.Duration { return time.Duration(float64(d) * share) }
