package batch

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"sluice.dev/scorer"
)

// Requests that come by chance are as near to one another after all as they are, though
// the ends of runs cut most of the long intervals.
func TestIntervalsAreNotTakenForShorterWhereRunsEndInBetween(t *testing.T) {
	const gap, run = float64(time.Millisecond), 500 * time.Microsecond
	rng := rand.New(rand.NewPCG(1, 2))
	var a arrivals
	now, free := scorer.Instant(1), scorer.Instant(0)
	for range 100_000 {
		if next := now.Add(time.Duration(rng.ExpFloat64() * gap)); free > 0 && free < next {
			a.ran(free, 0)
			free, now = 0, next
		} else {
			now = next
		}
		if a.note(now, 1, 64); free == 0 {
			free = now.Add(run)
		}
	}
	chances := a.gap().chances()
	for i := binOf(gap / 16); i <= binOf(gap/2)-1; i++ {
		want := 1 - math.Exp(-endOf(i)/gap)
		if got := 1 - shorter(&chances, i).longer; math.Abs(got-want) > 0.25*want {
			t.Errorf("%.3f of the intervals end within %v; want %.3f", got, time.Duration(endOf(i)), want)
		}
	}
}

// What was never seen has no chance, and nothing is divided by nothing.
func TestChancesOfFewIntervals(t *testing.T) {
	var p intervals
	if c := p.chances(); c != [binCount]float64{} {
		t.Errorf("nothing seen: %v", c)
	}
	p.cut[3] = 1
	p.met[5] = 1
	c := p.chances()
	if c[3] != 0 || c[5] != 1 {
		t.Errorf("one cut, one met: %v", c)
	}
	all := shorter(&c, binCount-1)
	if all.longer != 0 || all.mean() != (beginOf(5)+endOf(5))/2 {
		t.Errorf("%v longer, mean %v", all.longer, all.mean())
	}
}
