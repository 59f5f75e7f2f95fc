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
		r := Play(d, Contenders()[1].New(d), Load{Arrivals: Poisson(load*1000, 200_000, 5)}, 1)
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
		c := Compare(m.name, d, Contenders(), []float64{0.3, 0.7}, 20_000)
		for k, load := range c.Loads {
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
	c := Compare(models[0].name, d, []Contender{Contenders()[0], Contenders()[2]}, []float64{0.02, 0.1, 0.2, 0.3, 0.5}, 40_000)
	for k, load := range c.Loads {
		if own, all := c.Cells[0][k], c.Cells[1][k]; float64(own.Mean) > 1.02*float64(all.Mean) {
			t.Errorf("load %.2f: mean %v; who takes what waits has %v", load, own.Mean, all.Mean)
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

func TestTablesAndPlots(t *testing.T) {
	d := Device{Slots: 1, Time: models[1].time, Limit: 64, Learn: true}
	c := Compare("text direction", d, Contenders()[:2], []float64{0.2, 0.5}, 500)
	var table, plot bytes.Buffer
	if err := errors.Join(c.Write(&table), c.Plot(&plot)); err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(table.Bytes(), []byte("\n")); n != 3 {
		t.Errorf("the table has %d lines:\n%s", n, table.String())
	}
	x := xml.NewDecoder(&plot)
	for {
		if _, err := x.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestLoads(t *testing.T) {
	for name, list := range map[string][]Arrival{
		"poisson": Poisson(1000, 20_000, 1), "bursts": Bursts(1000, 20, 20_000, 1), "daily": Daily(1000, time.Second, 20_000, 1),
	} {
		for i := range list[1:] {
			if list[i+1].At < list[i].At {
				t.Fatalf("%s: request %d comes before the one before", name, i+1)
			}
		}
		near(t, "the rate of "+name, float64(len(list))/list[len(list)-1].At.Seconds(), 1000, 0.15)
	}
}

func ExamplePlan() {
	d := Device{Slots: 2, Time: Times([]int{1, 8}, []time.Duration{4 * time.Millisecond, 17 * time.Millisecond}), Limit: 16, Learn: true}
	replicas, _ := Plan(d, 3000, 50*time.Millisecond, 100)
	fmt.Println(replicas, "replicas")
	// Output:
	// 4 replicas
}
