package batch

import (
	"math/rand/v2"
	"testing"
	"time"

	"sluice.dev/scorer"
)

// perSecond is the rate that a knows at now, in rows.
func perSecond(a *arrivals, now scorer.Instant) float64 { return a.rate(now) * float64(time.Second) }

// Callers who come back in bursts as large as a run have the rate of their cycles, not
// that within a burst, however large a run is.
func TestTheRateIsOfCyclesNotOfBursts(t *testing.T) {
	for _, limit := range []int{16, 64, 256, 1024} {
		f := NewFormer(sums(-1, 4), limit, nil)
		now, cycle := scorer.Instant(1), 50*time.Millisecond
		truth := float64(limit) / cycle.Seconds()
		for round := range 10 {
			for i := range limit {
				f.Add(&Job{Rows: 1, Deadline: 1e18}, now.Add(time.Duration(i)*time.Microsecond))
				if got := perSecond(&f.arrivals, now.Add(time.Duration(i)*time.Microsecond)); round > 4 && (got < truth/2 || got > 3*truth) {
					t.Fatalf("limit %d, row %d of a burst: %.0f rows per second; want %.0f", limit, i, got, truth)
				}
			}
			now = now.Add(cycle)
			f.arrivals.ran(now-1, limit)
		}
	}
}

// After a pause the rate is soon that of what comes, not that of the pause.
func TestAPauseIsForgotten(t *testing.T) {
	var a arrivals
	now := scorer.Instant(1)
	come := func(n int) {
		for range n {
			now = now.Add(time.Millisecond)
			a.note(now, 1, 1)
		}
	}
	for _, before := range []int{1, 100, 1000} {
		come(before)
		now = now.Add(time.Hour)
		come(64)
		if got := perSecond(&a, now); got < 50 {
			t.Errorf("64 rows after a pause that came after %d: %.1f rows per second; want about 1000", before, got)
		}
		come(200)
		if got := perSecond(&a, now); got < 500 || got > 1500 {
			t.Errorf("264 rows after the pause: %.1f rows per second; want 1000", got)
		}
	}
}

// Where every gap is long, gaps are no pauses.
func TestSlowTrafficIsNotTakenForFaster(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, gap := range []time.Duration{time.Second, 10 * time.Second, time.Minute} {
		var a arrivals
		now, sum := scorer.Instant(1), 0.0
		const n = 2000
		for range n {
			now = now.Add(time.Duration(rng.ExpFloat64() * float64(gap)))
			a.note(now, 1, 1)
			sum += 1 / a.rate(now)
		}
		if mean := time.Duration(sum / n); mean < gap*4/10 {
			t.Errorf("a row every %v is taken for one every %v", gap, mean)
		}
	}
}

// Callers who come back one after the other are waited for until all are there.
func TestWhoIsOwedIsWaitedFor(t *testing.T) {
	f := NewFormer(sums(-1, 4), 64, nil)
	f.Restore([]ShapeCosts{{Curve: curve("1:10,2:10,64:11")}})
	var p Plan
	now := scorer.Instant(1)
	for round := range 60 {
		for caller := range 4 {
			now += ms
			f.Add(&Job{Rows: 1, Deadline: 1e15}, now)
			if round < 50 && caller < 3 {
				continue // it is learnt that they come
			}
			f.Form(now, 0, round < 50, &p)
			if waits := p.Wait != 0; waits != (caller < 3) {
				t.Fatalf("round %d, caller %d: waits %v", round, caller, waits)
			}
		}
		now += 10 * ms
		f.Ran(&p, p.rows, 10*time.Millisecond, now)
	}
}
