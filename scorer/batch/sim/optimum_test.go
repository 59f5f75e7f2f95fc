package sim

import (
	"math/rand/v2"
	"testing"
	"time"

	"sluice.dev/scorer/batch"
)

// rates is a device whose rows per second are known at doubling sizes.
func rates(perSecond ...float64) func(int) time.Duration {
	var sizes []int
	var took []time.Duration
	for i, r := range perSecond {
		sizes = append(sizes, 1<<i)
		took = append(took, seconds(float64(int(1)<<i)/r))
	}
	return Times(sizes, took)
}

// models are measured ones, in rows per second on one core.
var models = []struct {
	name     string
	time     func(int) time.Duration
	capacity float64
}{
	{"wide perceptron", rates(2065, 3627, 6513, 7924, 9560, 12104, 12800), 12800},
	{"text direction", rates(1770, 1909, 1559, 1547, 1578, 1480, 1480), 1909},
	{"sentence encoder", rates(233, 340, 434, 463, 454, 454, 454), 463},
	{"file type", rates(228, 242, 241, 220, 196, 182, 182), 242},
	{"text recogniser", rates(77, 77, 77, 60, 43, 38, 38), 77},
}

// few are requests that come at once, or within a while of a few runs; tight ones
// have deadlines of their own.
func few(rng *rand.Rand, n int, run time.Duration, atOnce, tight bool) []Arrival {
	list := make([]Arrival, n)
	var at time.Duration
	for i := range list {
		if !atOnce {
			at += time.Duration(float64(rng.IntN(3)) / 2 * rng.Float64() * 1.5 * float64(run))
		}
		list[i] = Arrival{At: at, Rows: 1}
		if tight {
			list[i].Deadline = time.Duration((1.1 + 6*rng.Float64()) * float64(run))
		}
	}
	return list
}

// sums adds up how cases went.
type sums struct {
	latency        time.Duration
	served, missed int
}

func (s *sums) add(latency time.Duration, served, missed int) {
	s.latency, s.served, s.missed = s.latency+latency, s.served+served, s.missed+missed
}

func (s *sums) mean() float64 { return float64(s.latency) / float64(max(s.served, 1)) }

// The mean latency and the part that is missed are within a twentieth of the
// optimum's, though where requests come over time it knows when, which no rule can.
func TestFewRequestsAreServedNearlyAsWellAsCanBe(t *testing.T) {
	const cases, n = 100, 6
	for _, atOnce := range []bool{true, false} {
		for _, tight := range []bool{false, true} {
			var ours, greedy, best sums
			ratio := 0.0
			for k, m := range models {
				rng := rand.New(rand.NewPCG(11, uint64(k)))
				var own, least sums
				d := Device{Slots: 1, Time: m.time, Limit: 64, Learn: true}
				for i := range cases {
					list := few(rng, 2+rng.IntN(n-1), m.time(1), atOnce, tight)
					r := Play(d, Ours(d, nil), Load{Arrivals: list}, uint64(i))
					own.add(r.Sum(), len(r.Latencies), r.Missed)
					o := Optimum(d, list)
					least.add(o.Sum(), len(o.Latencies), o.Missed)
					g := Play(d, Ours(d, &batch.Policy{Fixed: true}), Load{Arrivals: list}, uint64(i))
					greedy.add(g.Sum(), len(g.Latencies), g.Missed)
				}
				t.Logf("%-16s at once %-5v deadlines %-5v: mean %.3f of the optimum's; missed %d, optimum %d, of %d",
					m.name, atOnce, tight, own.mean()/least.mean(), own.missed, least.missed, own.served+own.missed)
				ratio += own.mean() / least.mean() / float64(len(models))
				ours.add(own.latency, own.served, own.missed)
				best.add(least.latency, least.served, least.missed)
			}
			all := ours.served + ours.missed
			late, least, most := float64(ours.missed)/float64(all), float64(best.missed)/float64(all), float64(greedy.missed)/float64(all)
			t.Logf("at once %v, deadlines %v: mean %.3f of the optimum's; missed %.3f, optimum %.3f, taking all that waits %.3f", atOnce, tight, ratio, late, least, most)
			if ratio > 1.05 || late > least+0.05 || late > most {
				t.Error("farther from the optimum than a twentieth, or worse than taking all")
			}
		}
	}
}

// No rule does better than the optimum, on devices of any slots and limits.
func TestNothingIsBetterThanTheOptimum(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 5))
	for i := range 60 {
		m := models[rng.IntN(len(models))]
		d := Device{Slots: 1 + rng.IntN(3), Time: m.time, Limit: 1 << rng.IntN(4), Learn: true}
		list := few(rng, 2+rng.IntN(5), m.time(1), i%2 == 0, i%3 == 0)
		best := Optimum(d, list)
		for _, rule := range Contenders(0) {
			r := Play(d, rule.New(d), Load{Arrivals: list}, 1)
			if r.Missed < best.Missed || r.Missed == best.Missed && r.Sum() < best.Sum() {
				t.Errorf("%s, %d slots, limit %d, %v: %s misses %d and takes %v; the optimum %d and %v", m.name, d.Slots, d.Limit, list, rule.Name, r.Missed, r.Sum(), best.Missed, best.Sum())
			}
		}
	}
	d := Device{Slots: 2, Time: func(int) time.Duration { return time.Second }, Limit: 2}
	if r := Optimum(d, make([]Arrival, 5)); r.Sum() != 6*time.Second || r.Runs != 3 || r.P99 != 2*time.Second {
		t.Errorf("five at once on two slots of two: %+v", r)
	}
}
