package pace

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func all(next func() (time.Duration, bool)) (list []time.Duration) {
	for {
		at, ok := next()
		if !ok {
			return list
		}
		list = append(list, at)
	}
}

func TestEvenArrivals(t *testing.T) {
	got := all(Even(Flat(4, time.Second)).Next)
	want := []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, 750 * time.Millisecond}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// How many arrivals fall into each part of a profile is what its rates say.
func TestArrivalsFollowTheProfile(t *testing.T) {
	const d = 100 * time.Second
	f := func(name string, profile []Segment, quarters [4]float64) {
		t.Helper()
		for kind, a := range map[string]*Arrivals{"even": Even(profile), "Poisson": Poisson(profile, 7)} {
			var got [4]float64
			last := time.Duration(0)
			for _, at := range all(a.Next) {
				if at < last || at >= d {
					t.Fatalf("%s, %s: %v after %v", name, kind, at, last)
				}
				last = at
				got[at/(d/4)]++
			}
			for i, want := range quarters {
				spread := 2.0
				if kind == "Poisson" {
					spread = 5 * math.Sqrt(want+1)
				}
				if math.Abs(got[i]-want) > spread {
					t.Errorf("%s, %s: quarter %d has %v arrivals, want %v", name, kind, i, got[i], want)
				}
			}
		}
	}
	f("flat", Flat(100, d), [4]float64{2500, 2500, 2500, 2500})
	f("steps", Steps([]float64{10, 100, 0.4, 200}, d), [4]float64{250, 2500, 10, 5000})
	f("up", Ramp(0, 200, d), [4]float64{625, 1875, 3125, 4375})
	f("down", Ramp(200, 0, d), [4]float64{4375, 3125, 1875, 625})
}

// Poisson gaps have the mean and the deviation of an exponential distribution, and
// are the same for the same seed.
func TestPoissonGaps(t *testing.T) {
	list := all(Poisson(Flat(1000, 100*time.Second), 3).Next)
	var sum, squares float64
	for i := 1; i < len(list); i++ {
		gap := (list[i] - list[i-1]).Seconds() * 1000
		sum += gap
		squares += gap * gap
	}
	n := float64(len(list) - 1)
	mean := sum / n
	if deviation := math.Sqrt(squares/n - mean*mean); math.Abs(mean-1) > 0.02 || math.Abs(deviation-1) > 0.02 {
		t.Errorf("gaps have mean %v and deviation %v, want 1 and 1", mean, deviation)
	}
	if !slices.Equal(list, all(Poisson(Flat(1000, 100*time.Second), 3).Next)) {
		t.Error("the same seed gives another schedule")
	}
	if slices.Equal(list, all(Poisson(Flat(1000, 100*time.Second), 4).Next)) {
		t.Error("another seed gives the same schedule")
	}
}

func TestBadProfilesAreRefused(t *testing.T) {
	for _, p := range [][]Segment{nil, Flat(0, time.Second), Flat(-1, time.Second), Flat(1, 0), Ramp(math.Inf(1), 1, time.Second), Flat(math.NaN(), time.Second)} {
		if Validate(p) == nil {
			t.Errorf("%v is taken", p)
		}
	}
	if err := Validate(Ramp(0, 1, time.Second)); err != nil {
		t.Error(err)
	}
}

func TestTraces(t *testing.T) {
	f := func(text string, want ...time.Duration) {
		t.Helper()
		tr, err := ReadTrace(strings.NewReader(text))
		if want == nil {
			if err == nil {
				t.Errorf("%q is taken", text)
			}
			return
		}
		if err != nil {
			t.Errorf("%q: %v", text, err)
			return
		}
		for range 2 {
			if got := all(tr.Again().Next); !slices.Equal(got, want) {
				t.Errorf("%q: got %v, want %v", text, got, want)
			}
		}
	}
	ms := time.Millisecond
	f("10\n10.5\n10.25\n", 0, 250*ms, 500*ms)
	f("# a comment\n\n3 x\n4\ty\n", 0, time.Second)
	f("timestamp,tokens\n1,7\n1.5,9\n", 0, 500*ms)
	f(`{"time":"2026-01-02T03:04:05.25Z","path":"/x"}`+"\n"+`{"time":"2026-01-02T03:04:05Z"}`, 0, 250*ms)
	f(`{"time":5}`, 0)
	f("")
	f("heading only\n")
	f("1\nx\n")
	f("-1\n-2\n")
	f(`{"when":5}`)
	f("{broken\n")
	f("1e300\n1e301\n")
}

func FuzzReadTrace(f *testing.F) {
	for _, s := range []string{"1\n2\n", "a,b\n1,2", `{"time":"2026-01-02T03:04:05Z"}`, `{"time":1e9}`, "NaN\n1", "+Inf\n+Inf"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tr, err := ReadTrace(strings.NewReader(text))
		if err != nil {
			return
		}
		span, n := tr.Span()
		if list := all(tr.Next); len(list) != n || !slices.IsSorted(list) || list[0] != 0 || list[n-1] != span {
			t.Errorf("%v", list)
		}
	})
}

func BenchmarkPoisson(b *testing.B) {
	a := Poisson(Flat(1, time.Duration(math.MaxInt64)), 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := a.Next(); !ok {
			b.Fatal("it ended")
		}
	}
}
