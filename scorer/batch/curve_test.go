package batch

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// learn has a curve observe n runs of sizes up to most of a device with noise, and
// outliers of up to a hundred times the time.
func learn(c *Curve, seed uint64, n, most int, noise float64, device func(rows int) float64) {
	rng := rand.New(rand.NewPCG(seed, 9))
	for range n {
		rows := 1 + rng.IntN(most)
		took := device(rows) * (1 + noise*rng.ExpFloat64())
		if rng.IntN(50) == 0 {
			took *= 1 + 99*rng.Float64()
		}
		c.Observe(rows, time.Duration(took))
	}
}

// within fails unless the curve is within a part of the device at every size.
func within(t *testing.T, what string, c *Curve, most int, part float64, device func(rows int) float64) {
	t.Helper()
	for rows := 1; rows <= most; rows++ {
		if got, want := float64(c.At(rows)), device(rows); math.Abs(got-want) > part*want {
			t.Errorf("%s: %d rows take %v; want %v", what, rows, c.At(rows), time.Duration(want))
			return
		}
	}
}

func TestCurvesAreLearntThroughNoise(t *testing.T) {
	for what, device := range map[string]func(rows int) float64{
		"a fixed cost and one per row": func(n int) float64 { return 400e3 + 70e3*float64(n) },
		"rows cost what they cost":     func(n int) float64 { return 5e6 * float64(n) },
		"rows cost nothing":            func(int) float64 { return 2e6 },
		"rows get dearer":              func(n int) float64 { return 1e6 * float64(n) * (1 + float64(n)/40) },
		"a cache ends at twelve rows":  func(n int) float64 { return 1e6 * float64(n+3*max(n-12, 0)) },
	} {
		for seed := range uint64(3) {
			var c Curve
			learn(&c, seed, 3000, 64, 0.05, device)
			within(t, what, &c, 64, 0.15, device)
			if high := float64(c.High(8)); high < 1.05*device(8) || high > 2*device(8) {
				t.Errorf("%s: a run of 8 commonly takes %v at most; the mean is %v", what, c.High(8), c.At(8))
			}
		}
	}
}

// While others use the machine only one size runs, and takes half as long again.
func TestASlowMachineDoesNotMakeASizeBad(t *testing.T) {
	device := func(n int) float64 { return 1e6 + 1e5*float64(n) }
	slow := func(n int) float64 { return 1.6 * device(n) }
	var c Curve
	learn(&c, 1, 2000, 32, 0.03, device)
	best := c.Best()
	for range 100 {
		c.Observe(32, time.Duration(slow(32)))
	}
	within(t, "slow", &c, 32, 0.15, slow)
	if c.Best() != best {
		t.Errorf("the best size is %d; was %d before the machine was slow", c.Best(), best)
	}
	for range 100 {
		c.Observe(16, time.Duration(device(16)))
	}
	within(t, "as before", &c, 32, 0.15, device)
}

// Where most runs are disturbed, and some by a thousand times, what did not run
// meanwhile is still known.
func TestNoiseDoesNotCarryTheCurveAway(t *testing.T) {
	device := func(n int) float64 { return 4e3 + 2e2*float64(n) }
	for seed := range uint64(8) {
		var c Curve
		learn(&c, seed, 2000, 64, 0.03, device)
		rng := rand.New(rand.NewPCG(seed, 5))
		for run := range 1_000_000 {
			rows := 20 + rng.IntN(20)
			took := device(rows) * (1 + rng.ExpFloat64())
			if (run/200)%3 == 0 { // there are quiet times
				took = device(rows) * (1 + 0.05*rng.ExpFloat64())
			}
			if rng.IntN(30) == 0 {
				took += 4e6
			}
			c.Observe(rows, time.Duration(took))
			if got := float64(c.at(1)); got < device(1)/2.5 || got > 2.5*device(1) {
				t.Fatalf("after %d runs of others one row takes %v; want about %v", run, c.At(1), time.Duration(device(1)))
			}
		}
	}
}

func TestCurvesForget(t *testing.T) {
	before := func(n int) float64 { return 1e6 + 1e5*float64(n) }
	after := func(n int) float64 { return 2e6 + 3e5*float64(n) }
	var c Curve
	learn(&c, 1, 2000, 32, 0.03, before)
	learn(&c, 2, 5000, 32, 0.03, after)
	within(t, "after the change", &c, 32, 0.15, after)
}

func TestTheBestSizeIsTheSmallestOfTheFastest(t *testing.T) {
	f := func(what string, want int, device func(rows int) float64) {
		t.Helper()
		var c Curve
		for range 5 {
			for rows := 1; rows <= 64; rows *= 2 {
				c.Observe(rows, time.Duration(device(rows)))
			}
		}
		if c.Best() != want {
			t.Errorf("%s: %d; want %d", what, c.Best(), want)
		}
	}
	f("rows cost what they cost", 1, func(n int) float64 { return 1e6 * float64(n) })
	f("rows cost nothing", 64, func(int) float64 { return 1e6 })
	f("rows get dearer after four", 4, func(n int) float64 { return 1e6 * math.Max(1, float64(n)/4) * (1 + float64(n/8)) })
}

// What did not run is hoped to be a little better, so that it is tried, until it
// was.
func TestUnknownSizesAreTriedOneByOne(t *testing.T) {
	f := func(what string, want int, device func(rows int) float64) {
		t.Helper()
		var c Curve
		largest := 0
		for range 200 { // a full queue
			rows := min(max(c.try, 1), c.reach())
			largest = max(largest, rows)
			c.Observe(rows, time.Duration(device(rows)))
		}
		if largest > want || c.Best() > largest {
			t.Errorf("%s: tried up to %d, best %d; want %d at most", what, largest, c.Best(), want)
		}
	}
	f("rows get dearer", 3, func(n int) float64 { return 1e6 * float64(n) * (1 + float64(n)/8) })
	f("rows get dearer after eight", 24, func(n int) float64 { return 1e6 * float64(n+3*max(n-8, 0)) })
	var c Curve
	for range 400 {
		rows := min(max(c.try, 1), c.reach())
		c.Observe(rows, time.Millisecond)
	}
	if c.Best() < 1024 {
		t.Errorf("rows cost nothing: best %d", c.Best())
	}
}

// A size that was measured while the machine was busy is tried again, whether it was
// by a little or by a lot.
func TestABadStartIsForgiven(t *testing.T) {
	device := func(rows int) float64 { return 1e6 * (10 + float64(rows)) }
	var flat Curve
	flat.Restore([]Point{{8, time.Duration(device(8)), 0, 3}, {16, time.Duration(device(16)), 0, 3}, {32, time.Duration(1.25 * device(32)), 0, 3}})
	for range 1000 {
		flat.Observe(flat.try, time.Duration(device(flat.try)))
	}
	if flat.Best() < 32 {
		t.Errorf("the best size is taken to be %d; want 32 or more", flat.Best())
	}
	var c Curve
	for rows := 1; rows <= 32; rows *= 2 {
		slow := 1.0
		if rows == 16 {
			slow = 1.09
		}
		c.Observe(rows, time.Duration(slow*1e6*(10+float64(min(rows, 16)))))
	}
	for range 40_000 {
		rows := c.try
		c.Observe(rows, time.Duration(1e6*(10+float64(min(rows, 16))+3*float64(max(rows-16, 0)))))
	}
	if c.Best() != 16 {
		t.Errorf("the best size is taken to be %d; want 16", c.Best())
	}
}

func TestCurvesSurviveARestart(t *testing.T) {
	var c, again Curve
	device := func(n int) float64 { return 1e6 + 1e5*float64(n) }
	learn(&c, 1, 2000, 32, 0.03, device)
	data, err := json.Marshal(c.Points())
	if err != nil {
		t.Fatal(err)
	}
	var points []Point
	if err := json.Unmarshal(data, &points); err != nil {
		t.Fatal(err)
	}
	again.Restore(append(points, Point{Rows: 5, Time: 1}, Point{Rows: -1, Time: 1}, Point{Rows: 8}))
	within(t, "restored", &again, 32, 0.15, device)
	learn(&again, 2, 1000, 32, 0.03, func(n int) float64 { return 3 * device(n) })
	within(t, "on a slower machine", &again, 32, 0.2, func(n int) float64 { return 3 * device(n) })
}

func TestSizesAndCells(t *testing.T) {
	for i := range cells {
		if cellOf(sizeOf(i)) != i || i > 0 && sizeOf(i) <= sizeOf(i-1) {
			t.Errorf("cell %d has size %d, which has cell %d", i, sizeOf(i), cellOf(sizeOf(i)))
		}
	}
}

// A shape that never ran is expected to cost what the nearest does, by its size.
func TestNewShapesAreGuessed(t *testing.T) {
	f := NewFormer(sums(-1, -1), 8, nil)
	f.Restore([]ShapeCosts{{Dims: []int64{16}, Curve: curve("1:4,8:20")}, {Dims: []int64{64}, Curve: curve("1:20,8:160")}})
	j := newCaller(24, 1)
	f.Add(&j.job, 1)
	var p Plan
	f.Form(1, 0, true, &p)
	if p.Took != 6*time.Millisecond {
		t.Errorf("a row of 24 is expected to take %v; want 6ms", p.Took)
	}
}

// No run is so long that its time becomes negative.
func TestTimesDoNotOverflow(t *testing.T) {
	var c Curve
	c.Observe(1, time.Hour)
	if got := c.At(1 << 30); got < time.Hour {
		t.Error(got)
	}
}
