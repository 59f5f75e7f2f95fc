package sim

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"testing"
	"time"

	"sluice.dev/scorer/batch"
)

func near(t *testing.T, what string, got, want, part float64) {
	t.Helper()
	if math.Abs(got-want) > part*want {
		t.Errorf("%s is %.4g; want %.4g", what, got, want)
	}
}

// One by one, a device with constant times is a queue whose mean is known (M/D/1).
func TestTheSimulationAgreesWithQueueingTheory(t *testing.T) {
	const run = time.Millisecond
	d := Device{Slots: 1, Time: func(n int) time.Duration { return run * time.Duration(n) }, Limit: 1, Learn: true}
	for _, load := range []float64{0.3, 0.6, 0.8} {
		r := Play(d, Contenders(0)[1].New(d), Load{Arrivals: Poisson(load*1000, 200_000, 5)}, 1)
		near(t, fmt.Sprint("the mean at load ", load), r.Mean.Seconds(), run.Seconds()*(1+load/(2*(1-load))), 0.05)
		near(t, "the rate", r.Rate, load*1000, 0.02)
	}
}

func TestCallersAskAgainWhenTheyAreAnswered(t *testing.T) {
	d := Device{Slots: 2, Time: func(int) time.Duration { return time.Millisecond }, Limit: 64, Learn: true}
	r := Play(d, Ours(d, nil), Load{Callers: 2, Requests: 1000}, 1)
	if r.Requests != 1000 || r.Missed != 0 {
		t.Fatalf("%d of 1000 requests, %d missed", r.Requests, r.Missed)
	}
	near(t, "the rate of two callers on two slots", r.Rate, 2000, 0.01)
}

// Nobody who is told nothing does better on every model than the rule that learns:
// near capacity it is within a tenth of the best of the others by mean and tail, on
// devices that it has not seen before.
func TestTheRuleLearns(t *testing.T) {
	for _, m := range models {
		d := Device{Slots: 1, Time: m.time, Noise: 0.03, Limit: 64}
		c := Compare(m.name, d, Contenders(0), ByChance(d, []float64{0.3, 0.7}, 20_000))
		for k := range c.Cases {
			load := c.Cases[k].At
			mean, p99 := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
			for _, row := range c.Cells[1:] {
				mean, p99 = min(mean, row[k].Mean), min(p99, row[k].P99)
			}
			own := c.Cells[0][k]
			t.Logf("%s at %.1f: mean %.3f, p99 %.3f of the best other", m.name, load, float64(own.Mean)/float64(mean), float64(own.P99)/float64(p99))
			if float64(own.Mean) > 1.1*float64(mean) || float64(own.P99) > 1.1*float64(p99) {
				t.Errorf("%s at %.1f: %v and %v; the best others %v and %v", m.name, load, own.Mean, own.P99, mean, p99)
			}
		}
	}
}

// Who comes by chance is not waited for where that does not pay: a device that gains by
// larger batches is not left idle at any load.
func TestNobodyWaitsForChance(t *testing.T) {
	d := Device{Slots: 1, Time: models[0].time, Noise: 0.03, Limit: 64}
	c := Compare(models[0].name, d, []Contender{Contenders(0)[0], Contenders(0)[2]}, ByChance(d, []float64{0.02, 0.1, 0.2, 0.3, 0.5}, 40_000))
	for k := range c.Cases {
		if own, all := c.Cells[0][k], c.Cells[1][k]; float64(own.Mean) > 1.02*float64(all.Mean) {
			t.Errorf("%s: mean %v; who takes what waits has %v", c.Cases[k].Name, own.Mean, all.Mean)
		}
	}
}

// Callers whose number is a batch run together, though nothing tells them to wait.
func TestCallersRunTogether(t *testing.T) {
	for _, m := range models {
		for _, callers := range []int{2, 8, 64} {
			d := Device{Slots: 1, Time: m.time, Noise: 0.03, Limit: 64, Learn: true}
			r := Play(d, Ours(d, nil), Load{Callers: callers, Think: 20 * time.Microsecond, Requests: 20_000, Skip: 2000}, 1)
			best := 0.0
			for n := 1; n <= callers; n *= 2 {
				best = math.Max(best, float64(n)/(m.time(n).Seconds()*1.03+20e-6))
			}
			if r.Rate < 0.93*best {
				t.Errorf("%s, %d callers: %.0f rows per second of %.0f", m.name, callers, r.Rate, best)
			}
		}
	}
}

// Callers who come back together use all slots.
func TestCallersUseAllSlots(t *testing.T) {
	for _, m := range models {
		for _, slots := range []int{2, 4} {
			d := Device{Slots: slots, Time: m.time, Noise: 0.05, Limit: 64, Learn: true}
			var cases []Case
			for _, callers := range []int{2, 3, 4, 6, 8, 16, 64} {
				cases = append(cases, Case{Name: fmt.Sprintf("%d callers", callers), Load: Load{Callers: callers, Requests: 10_000, Skip: 1000}})
			}
			for k, c := 0, Compare(m.name, d, Contenders(0), cases); k < len(cases); k++ {
				best := c.Cells[1][k].Mean
				for _, other := range c.Cells[2:] {
					best = min(best, other[k].Mean)
				}
				if own := c.Cells[0][k].Mean; float64(own) > 1.08*float64(best) {
					t.Errorf("%s, %d slots, %s: mean %v; another rule has %v", m.name, slots, cases[k].Name, own, best)
				}
			}
		}
	}
}

// Near its capacity a device runs what is done soonest, not what is nearly as good.
func TestNearCapacityEveryRowPerSecondCounts(t *testing.T) {
	d := Device{Slots: 2, Time: models[2].time, Noise: 0.05, Limit: 64, Learn: true}
	c := Compare(models[2].name, d, Contenders(0), ByChance(d, []float64{0.9}, 200_000))
	for i, other := range c.Cells[1:] {
		if own := c.Cells[0][0]; float64(own.P99) > 1.05*float64(other[0].P99) {
			t.Errorf("p99 %v; %s has %v", own.P99, Contenders(0)[i+1].Name, other[0].P99)
		}
	}
}

func TestAPlanHasEnoughReplicasAndNotMore(t *testing.T) {
	d := Device{Slots: 1, Time: rates(1000, 1900), Noise: 0.05, Limit: 2, Learn: true}
	k, tried := Plan(d, 8000, 5*time.Millisecond, 100)
	if k < 5 || k > 12 || tried[len(tried)-1].P99 > 5*time.Millisecond {
		t.Errorf("%d replicas, the last of %d tries has p99 %v", k, len(tried), tried[len(tried)-1].P99)
	}
	if k, _ := Plan(d, 8000, 500*time.Microsecond, 20); k != 0 {
		t.Errorf("%d replicas are said to answer faster than a run takes", k)
	}
}

// What is refused before a plan takes it: replicas whose queue grows slowly enough for p99.
func TestAPlanHasCapacityToSpare(t *testing.T) {
	d := Device{Slots: 1, Time: Times([]int{1, 64}, []time.Duration{20 * time.Microsecond, 640 * time.Microsecond}), Noise: 0.05, Limit: 64, Learn: true}
	k, tried := Plan(d, 110_000, 50*time.Millisecond, 100)
	if k < 2 || tried[0].Load > Busy || tried[0].Replicas < 2 {
		t.Errorf("%d replicas at load %.2f, the first try with %d", k, tried[0].Load, tried[0].Replicas)
	}
}

func TestTablesAndPlots(t *testing.T) {
	d := Device{Slots: 1, Time: models[0].time, Limit: 64, Learn: true}
	cases := ByChance(d, []float64{0.05, 1.2}, 10_000)
	f := func(cases []Case, lines int, drawn string, words ...string) {
		t.Helper()
		c := Compare("R&D", d, Contenders(0)[:2], cases)
		var table, plot bytes.Buffer
		if err := errors.Join(c.Write(&table), c.Plot(&plot)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(plot.Bytes(), []byte(drawn)) {
			t.Errorf("no %q in %s", drawn, &plot)
		}
		for _, w := range words {
			if !bytes.Contains(table.Bytes(), []byte(w)) {
				t.Errorf("no %q in\n%s", w, &table)
			}
		}
		if n := bytes.Count(table.Bytes(), []byte("\n")); n != lines {
			t.Errorf("the table has %d lines, want %d:\n%s", n, lines, &table)
		}
		x := xml.NewDecoder(&plot)
		for {
			if _, err := x.Token(); errors.Is(err, io.EOF) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	f(cases, 3, "l8 8m0 -8l-8 8", "load 1.20", "overloaded")
	f(cases[1:], 3, "stroke-dasharray", "rows per run", "one by one (overloaded)")
	f([]Case{{Name: "few", Load: Load{Arrivals: Poisson(1000, Few, 1)}}}, 4, ">90%<", "optimum")
	late := []Arrival{{Rows: 1, Deadline: 1}, {Rows: 1, Deadline: 1}}
	f([]Case{{Name: "a", Load: Load{Arrivals: late}}}, 4, "R&amp;D", "–")
	f([]Case{{Name: "a", Load: Load{Arrivals: late}}, {Name: "b", Load: Load{Arrivals: late}}}, 4, "R&amp;D", "all missed")
}

// A rule is overloaded where its queue grows, not where a crowd waits for a while.
func TestOverloadIsTold(t *testing.T) {
	d := Device{Slots: 2, Time: models[0].time, Noise: 0.03, Limit: 64, Learn: true}
	c := d.Capacity()
	f := func(what string, want bool, rule Rule, list []Arrival) {
		t.Helper()
		if r := Play(d, rule, Load{Arrivals: list}, 1); r.Overloaded != want {
			t.Errorf("%s: overloaded is %v; want %v; p99 %v", what, r.Overloaded, want, r.P99)
		}
	}
	ours := func() Rule { return Ours(d, nil) }
	f("load 0.95", false, ours(), Poisson(0.95*c, 20_000, 1))
	f("load 1.05", true, ours(), Poisson(1.05*c, 20_000, 1))
	f("load 0.5, one by one", true, Contenders(0)[1].New(d), Poisson(0.5*c, 20_000, 1))
	f("load 0.7 in bursts", false, ours(), Bursts(0.7*c, 500, 20_000, 1))
	f("load 0.7 by day", false, ours(), Daily(0.7*c, seconds(5000/c), 20_000, 1))
	f("a thousand at once", false, ours(), make([]Arrival, 1000))
}

func TestLoads(t *testing.T) {
	for name, list := range map[string][]Arrival{
		"poisson": Poisson(1000, 100_000, 1), "bursts of one": Bursts(1000, 1, 100_000, 1), "bursts": Bursts(1000, 20, 200_000, 1),
		"dense bursts": Bursts(100_000, 100, 500_000, 1), "daily": Daily(1000, time.Second, 100_000, 1),
	} {
		rate := 1000.0
		if name == "dense bursts" {
			rate = 100_000
		}
		for i := range list[1:] {
			if list[i+1].At < list[i].At {
				t.Fatalf("%s: request %d comes before the one before", name, i+1)
			}
		}
		near(t, "the rate of "+name, float64(len(list))/list[len(list)-1].At.Seconds(), rate, 0.03)
	}
	list, bursts := Bursts(10, 20, 100_000, 1), 1.0
	for i := range list[1:] {
		if list[i+1].At-list[i].At > time.Microsecond {
			bursts++
		}
	}
	near(t, "the mean burst", float64(len(list))/bursts, 20, 0.03)
}

func TestTimesBetweenMeasuredSizes(t *testing.T) {
	ms := func(n float64) time.Duration { return time.Duration(n * float64(time.Millisecond)) }
	f := func(rows []int, took []time.Duration, n int, want time.Duration) {
		t.Helper()
		if got := Times(rows, took)(n); got != want {
			t.Errorf("%d rows, of %v in %v: %v; want %v", n, rows, took, got, want)
		}
	}
	f([]int{1, 9}, []time.Duration{ms(2), ms(10)}, 4, ms(5))
	f([]int{1, 9}, []time.Duration{ms(2), ms(10)}, 9, ms(10))
	f([]int{1, 10}, []time.Duration{ms(2), ms(10)}, 20, ms(20)) // no cheaper per row than the largest
	f([]int{1, 8}, []time.Duration{ms(10), ms(5)}, 64, ms(40))
	f([]int{8}, []time.Duration{ms(16)}, 16, ms(32))
	f([]int{8}, []time.Duration{ms(16)}, 4, ms(12))
}

// A device is as its runs were: played anew, they take as long and spread as much.
func TestMeasuredTimes(t *testing.T) {
	points := []batch.Point{{Rows: 1, Time: 1e6, Spread: 1e5, Runs: 32}, {Rows: 8, Time: 2e6, Spread: 2e5, Runs: 32}}
	d := Device{Limit: 8}
	d.Time, d.Noise = Measured(points)
	for i, p := range d.points() {
		if k := i / 3; i%3 == 0 {
			near(t, "the time", float64(p.Time), float64(points[k].Time), 0.001)
			near(t, "the spread", float64(p.Spread), float64(points[k].Spread), 0.001)
		}
	}
	if _, noise := Measured([]batch.Point{{Rows: 1, Time: 1e6, Spread: 5e6, Runs: 1}}); noise != 1 {
		t.Errorf("a wild device has noise %v; want 1", noise)
	}
	if _, noise := Measured([]batch.Point{{Rows: 1, Time: 1e6}}); noise != 0 {
		t.Errorf("a steady device has noise %v", noise)
	}
}

func TestClippersBatchesAreWithinTheLimit(t *testing.T) {
	d := Device{Slots: 1, Time: func(int) time.Duration { return time.Millisecond }, Limit: 4}
	rules := Contenders(time.Second)
	r := Play(d, rules[len(rules)-1].New(d), Load{Callers: 64, Requests: 10_000, Skip: 1000}, 1)
	near(t, "the rows per run", r.RowsPerRun(), 4, 0.02)
	near(t, "the rate", r.Rate, 4000, 0.02)
}

func ExamplePlan() {
	d := Device{Slots: 2, Time: Times([]int{1, 8}, []time.Duration{4 * time.Millisecond, 17 * time.Millisecond}), Limit: 16, Learn: true}
	replicas, _ := Plan(d, 3000, 50*time.Millisecond, 100)
	fmt.Println(replicas, "replicas")
	// Output:
	// 4 replicas
}
