package router

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func versions(points ...int) []Version {
	list := make([]Version, len(points))
	for i, p := range points {
		list[i] = Version{Name: fmt.Sprintf("v%d", i), BasisPoints: p, Default: i == 0}
	}
	return list
}

// The worked examples of Azure ML's documents: the rest goes to the default.
func TestSharesGiveTheRestToTheDefault(t *testing.T) {
	f := func(def int, points, want []int) {
		t.Helper()
		list := versions(points...)
		list[0].Default = false
		list[def].Default = true
		got, err := Shares(list)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("Shares(%v, default %d) = %v, %v; want %v", points, def, got, err, want)
		}
	}
	f(2, []int{1000, 3000, 0}, []int{1000, 3000, 6000})
	f(0, []int{2000}, []int{10000})
	f(0, []int{2000, 1000}, []int{9000, 1000})
	f(1, []int{2000, 4000}, []int{2000, 8000})
	f(0, []int{4000, 4000}, []int{6000, 4000})
	f(0, []int{0, 10000}, []int{0, 10000})
	f(5, []int{1, 2, 3, 4, 5, 6}, []int{1, 2, 3, 4, 5, 9985})
}

func TestSharesRefuse(t *testing.T) {
	f := func(list []Version) {
		t.Helper()
		if s, err := Shares(list); err == nil {
			t.Errorf("Shares(%v) = %v; want an error", list, s)
		}
	}
	f(nil)
	f(versions(1, 1, 1, 1, 1, 1, 1))
	f(versions(6000, 4001))
	f(versions(-1, 0))
	f(versions(10001))
	f([]Version{{Name: "a"}, {Name: "b"}})
	f([]Version{{Name: "a", Default: true}, {Name: "b", Default: true}})
}

// Every version is within 4 of its share in every window, whatever the weights.
func TestEveryWindowKeepsTheShares(t *testing.T) {
	const requests, allowed = 100_000, 4.0
	rng := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		list := versions(weights(rng)...)
		e, err := New("e", list, NewSequenceAt(rng.Uint64()))
		if err != nil {
			t.Fatal(err)
		}
		shares, _ := Shares(list)
		// A window's deviation is the difference of two prefixes' deviations.
		low, high := make([]float64, len(list)), make([]float64, len(list))
		count := make([]int, len(list))
		for n := 1; n <= requests; n++ {
			count[e.Next()]++
			for i := range list {
				d := float64(count[i]) - float64(n)*float64(shares[i])/whole
				low[i], high[i] = min(low[i], d), max(high[i], d)
			}
		}
		for i := range list {
			if high[i]-low[i] > allowed {
				t.Errorf("shares %v: version %d is off by %.2f in some window", shares, i, high[i]-low[i])
			}
		}
	}
}

// weights draws up to six percentiles in basis points, with a sum of at most 100%.
func weights(rng *rand.Rand) []int {
	w, left := make([]int, 1+rng.IntN(MaxVersions)), whole
	for i := range w {
		w[i] = rng.IntN(left + 1)
		if rng.IntN(4) == 0 {
			w[i] = min(w[i], rng.IntN(20)) // small shares matter most
		}
		left -= w[i]
	}
	return w
}

// A client whose every m-th request is special meets the versions by their share.
func TestNoRhythmIsFavoured(t *testing.T) {
	for _, m := range []int{2, 3, 4, 5, 8, 10, 16, 20, 64} {
		e, _ := New("e", versions(9000, 1000), NewSequenceAt(12345))
		const rounds = 20_000
		hit := 0
		for n := range rounds * m {
			if v := e.Next(); n%m == 0 {
				hit += v
			}
		}
		if share := float64(hit) / rounds; share < 0.09 || share > 0.11 {
			t.Errorf("every %dth request meets the 10%% version in %.1f%% of cases", m, 100*share)
		}
	}
}

// A reload that leaves the shares alone goes on with the same split; a version
// that got a share starts with a clean slate.
func TestAReloadKeepsTheSplit(t *testing.T) {
	s, plain := NewSequenceAt(7), NewSequenceAt(7)
	a, _ := New("e", versions(9000, 1000), s)
	b, _ := New("e", versions(9000, 1000), s)
	want, _ := New("e", versions(9000, 1000), plain)
	for n := range 1000 {
		e := a
		if n%3 == 0 {
			e = b
		}
		if e.Next() != want.Next() {
			t.Fatalf("request %d was assigned differently after a reload", n)
		}
	}
	c, _ := New("e", versions(0, 10000), s)
	for range 100 {
		if c.Next() != 1 {
			t.Fatal("a version without a share was assigned to make up for the past")
		}
	}
}

func TestAVersionWithoutAShareIsNeverAssigned(t *testing.T) {
	e, _ := New("e", []Version{{Name: "a", BasisPoints: 5000}, {Name: "b", Default: true, BasisPoints: 5000}, {Name: "c"}}, NewSequenceAt(0))
	for _, x := range []uint64{0, 1, 1 << 63, 1<<64 - 1} {
		if v := e.at(x); v == 2 {
			t.Errorf("position %#x went to the version without a share", x)
		}
	}
}

func TestFindIsByWholeName(t *testing.T) {
	e, _ := New("e", versions(0, 0), NewSequence())
	if e.Find([]byte("v1")) != 1 || e.Find([]byte("v")) != -1 || e.Find(nil) != -1 {
		t.Error("Find does not match whole names")
	}
}

func TestNextDoesNotAllocate(t *testing.T) {
	e, _ := New("e", versions(9000, 1000), NewSequence())
	if n := testing.AllocsPerRun(1000, func() { e.Next() }); n != 0 {
		t.Errorf("%v allocations per request", n)
	}
}

func BenchmarkNext(b *testing.B) {
	e, _ := New("e", versions(5000, 2000, 1000, 1000, 500, 500), NewSequence())
	for b.Loop() {
		e.Next()
	}
}

func ExampleEndpoint_Next() {
	e, _ := New("digits", []Version{
		{Name: "linear", Variant: Control, Default: true},
		{Name: "mlp", Variant: Treatment, BasisPoints: 1000},
	}, NewSequenceAt(0))
	served := map[string]int{}
	for range 1000 {
		served[e.Versions[e.Next()].Name]++
	}
	fmt.Println(served)
	// Output: map[linear:900 mlp:100]
}
