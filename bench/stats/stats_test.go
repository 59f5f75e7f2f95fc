package stats

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A histogram's percentiles are those of the sorted list, to its precision.
func TestPercentiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	fine, coarse, half := Fine(), Coarse(), Fine()
	var list []time.Duration
	for i := range 20_000 {
		d := time.Duration(math.Exp(rng.NormFloat64()*1.5) * 1e6)
		list = append(list, d)
		coarse.Record(d)
		if i%2 == 0 {
			fine.Record(d)
		} else {
			half.Record(d)
		}
	}
	fine.Add(half)
	fine.Add(nil)
	slices.Sort(list)
	for _, percent := range []float64{1, 50, 90, 99, 99.9, 100} {
		want := float64(list[int(math.Ceil(float64(len(list))*percent/100))-1])
		if got := float64(fine.At(percent)); math.Abs(got/want-1) > 0.001 {
			t.Errorf("p%v is %v, want %v within 0.1%%", percent, got, want)
		}
		if got := float64(coarse.At(percent)); math.Abs(got/want-1) > 0.01 {
			t.Errorf("coarse p%v is %v, want %v within 1%%", percent, got, want)
		}
	}
	if fine.Count() != 20_000 {
		t.Errorf("%d counted", fine.Count())
	}
}

func TestEmptyAndExtremeHistograms(t *testing.T) {
	var none *Histogram
	for _, h := range []*Histogram{none, {}, Fine()} {
		if h.Count() != 0 || h.At(99) != 0 || h.Mean() != 0 || h.Max() != 0 {
			t.Errorf("an empty histogram has values")
		}
	}
	h := Fine()
	h.Record(-time.Second)
	h.Record(1000 * time.Hour)
	if h.Count() != 2 || h.At(50) != 0 || math.Abs(float64(h.Max()-time.Hour)) > float64(4*time.Second) {
		t.Errorf("%d, %v, %v", h.Count(), h.At(50), h.Max())
	}
	data, err := json.Marshal(map[string]*Histogram{"a": h, "b": none})
	if err != nil || len(data) < 50 {
		t.Errorf("%s, %v", data, err)
	}
}

func TestRecordingAllocatesNothing(t *testing.T) {
	h := Fine()
	if n := testing.AllocsPerRun(1000, func() { h.Record(123456) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// An interval of 95% holds the truth in about 95 of 100 experiments.
func TestIntervalsCover(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, n := range []int{2, 5, 40} {
		means, ratios := 0, 0
		const experiments = 4000
		for range experiments {
			a, b := make([]float64, n), make([]float64, n)
			for i := range n {
				pace := math.Exp(rng.NormFloat64()) // the machine drifts much more than the targets differ
				a[i] = 1.2 * pace * math.Exp(0.05*rng.NormFloat64())
				b[i] = pace * math.Exp(0.05*rng.NormFloat64())
			}
			x := make([]float64, n)
			for i := range x {
				x[i] = 10 + rng.NormFloat64()
			}
			if m := Mean(x); m.Low <= 10 && 10 <= m.High {
				means++
			}
			if r := Ratio(a, b); r.Low <= 1.2 && 1.2 <= r.High {
				ratios++
			}
		}
		for what, hits := range map[string]int{"mean": means, "ratio": ratios} {
			if share := float64(hits) / experiments; share < 0.935 || share > 0.965 {
				t.Errorf("%d repeats: %s intervals cover %.3f", n, what, share)
			}
		}
	}
}

// So does the interval of a median, where the mean of what was measured says little.
func TestIntervalsOfMediansCover(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for _, n := range []int{6, 9, 15, 25, 50} {
		hits := 0
		const experiments = 4000
		for range experiments {
			x := make([]float64, n)
			for i := range x {
				x[i] = math.Exp(3 * rng.NormFloat64()) // its median is 1
			}
			if m := Middle(x); m.Low <= 1 && 1 <= m.High && m.Low <= m.Mid && m.Mid <= m.High {
				hits++
			}
		}
		if share := float64(hits) / experiments; share < 0.935 {
			t.Errorf("%d repeats: the intervals cover %.3f", n, share)
		}
	}
}

func TestIntervalsOfFew(t *testing.T) {
	if m := Mean([]float64{3}); m != (Interval{3, 3, 3, 1}) {
		t.Errorf("%+v", m)
	}
	if m := Mean(nil); m != (Interval{}) {
		t.Errorf("%+v", m)
	}
	if r := Ratio([]float64{0, 4}, []float64{1, 2}); r.Repeats != 1 || math.Abs(r.Mid-2) > 1e-12 {
		t.Errorf("%+v", r)
	}
	if m := Middle([]float64{3}); m != (Interval{3, 3, 3, 1}) {
		t.Errorf("%+v", m)
	}
	if m := Middle(nil); m != (Interval{}) {
		t.Errorf("%+v", m)
	}
	if m := Median([]float64{9, 1, 2, 8}); m != 5 {
		t.Errorf("median %v", m)
	}
	if m := Median([]float64{9, 1, 2}); m != 2 {
		t.Errorf("median %v", m)
	}
}

func BenchmarkRecord(b *testing.B) {
	h := Fine()
	for i := 0; b.Loop(); i++ {
		h.Record(time.Duration(i%1000) * 1000)
	}
}
