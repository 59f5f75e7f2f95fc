package sim

import (
	"math"
	"math/rand/v2"
	"time"
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

// Bursts is n requests in bursts of about size, within which they come a
// microsecond apart.
func Bursts(perSecond float64, size, n int, seed uint64) []Arrival {
	rng := rand.New(rand.NewPCG(seed, 3))
	var list []Arrival
	for at := 0.0; len(list) < n; {
		at += rng.ExpFloat64() * float64(size) / perSecond
		for k := range min(1+int(rng.ExpFloat64()*float64(size)), n-len(list)) {
			list = append(list, Arrival{At: seconds(at) + time.Duration(k)*time.Microsecond, Rows: 1})
		}
		at = max(at, list[len(list)-1].At.Seconds())
	}
	return list
}

// Daily is n requests whose rate swings between a tenth and the double of
// perSecond once in every period.
func Daily(perSecond float64, period time.Duration, n int, seed uint64) []Arrival {
	rng := rand.New(rand.NewPCG(seed, 4))
	list := make([]Arrival, n)
	at := 0.0
	for i := range list {
		phase := 2 * math.Pi * at / period.Seconds()
		at += rng.ExpFloat64() / (perSecond * (1.05 + 0.95*math.Sin(phase)))
		list[i] = Arrival{At: seconds(at), Rows: 1}
	}
	return list
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// Times is a function of run times that are known at some sizes, linear between
// them and beyond the last two.
func Times(rows []int, took []time.Duration) func(int) time.Duration {
	return func(n int) time.Duration {
		i := 0
		for i < len(rows)-2 && rows[i+1] < n {
			i++
		}
		if len(rows) == 1 {
			return took[0] * time.Duration(n) / time.Duration(rows[0])
		}
		slope := float64(took[i+1]-took[i]) / float64(rows[i+1]-rows[i])
		return max(took[i]+time.Duration(slope*float64(n-rows[i])), 1)
	}
}
