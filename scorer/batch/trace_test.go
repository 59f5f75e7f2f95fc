package batch

import (
	"testing"
	"time"

	"sluice.dev/scorer"
)

// last is the newest decision.
func last(t *testing.T, f *Former) Decision {
	t.Helper()
	e := f.Explain(1)
	if len(e.Last) == 0 {
		t.Fatal("no decision is remembered")
	}
	return e.Last[len(e.Last)-1]
}

// A decision tells what bound it, and of how many rows that could have run with it.
func TestDecisionsAreExplained(t *testing.T) {
	f := func(why string, limit int, learnt string, want Decision, widths ...int) {
		t.Helper()
		former := NewFormer(sums(-1, -1), limit, nil)
		if learnt != "" {
			former.Restore([]ShapeCosts{{Dims: []int64{4}, Curve: curve(learnt)}})
		}
		for _, width := range widths {
			j := newCaller(width, 1)
			j.job.Deadline = 1e15
			former.Add(&j.job, 1)
		}
		var p Plan
		former.Form(1, 0, true, &p)
		if got := last(t, former); got.Waiting != want.Waiting || got.Rows != want.Rows || got.Reason != want.Reason {
			t.Errorf("%s: %+v; want %+v", why, got, want)
		}
	}
	f("other shapes wait", 8, "1:1,8:1", Decision{Waiting: 2, Rows: 2, Reason: All}, 4, 7, 4, 9)
	f("the run is full", 2, "1:1,2:1", Decision{Waiting: 3, Rows: 2, Reason: Limit}, 4, 4, 4)
	f("nothing ran", 8, "", Decision{Waiting: 6, Rows: 4, Reason: Untried}, 4, 4, 4, 4, 4, 4)
	f("together takes longer", 8, "1:1,2:4,4:9", Decision{Waiting: 2, Rows: 1, Reason: Best}, 4, 4)
}

func TestRefusalsAreExplained(t *testing.T) {
	f := func(why string, p *Policy, j Job, now scorer.Instant) {
		t.Helper()
		former := NewFormer(sums(-1, 4), 8, p)
		former.Restore([]ShapeCosts{{Curve: curve("1:10,8:10")}})
		j.Rows = 3
		former.Add(&j, 1)
		var plan Plan
		former.Form(now, 0, true, &plan)
		if got := last(t, former); got.Waiting != 3 || got.Rows != 0 || got.Late != 1 || got.Reason != Deadline || got.At != now {
			t.Errorf("%s: %+v", why, got)
		}
	}
	f("a deadline", nil, Job{Deadline: 5 * ms}, 2)
	f("a policy's timeout", &Policy{Delay: time.Second, Timeout: ms.Sub(0)}, Job{Deadline: 1e15}, 2*ms)
}

// A wait counts once, however often the rule is asked meanwhile, and a delay that is set does not.
func TestWaitsAreCounted(t *testing.T) {
	f := NewFormer(sums(-1, 4), 64, nil)
	f.Restore([]ShapeCosts{{Curve: curve("1:10,2:10,64:11")}})
	var p Plan
	now := scorer.Instant(1)
	add := func() *Job {
		j := &Job{Rows: 1, Deadline: 1e15}
		f.Add(j, now)
		return j
	}
	form := func(waits bool) {
		t.Helper()
		if f.Form(now, 0, false, &p); (p.Wait != 0) != waits {
			t.Fatalf("waits until %v with %d rows; want a wait: %v", p.Wait, p.rows, waits)
		}
	}
	run := func() {
		f.Form(now, 0, true, &p)
		now += 10 * ms
		f.Ran(&p, p.rows, 10*time.Millisecond, now)
		now += 50 * ms
	}
	pair := func() { // whose second one comes within a millisecond
		add()
		now += ms
		add()
		run()
	}
	for range 8 {
		pair()
	}
	counted := func(want uint64) {
		t.Helper()
		if got := f.Explain(now).Waits; got != want {
			t.Errorf("%d waits are counted; want %d", got, want)
		}
	}
	j := add()
	form(true)
	now += ms / 4
	form(true)
	counted(1)
	f.Remove(j)
	pair()
	add()
	form(true)
	counted(2)
	add()
	run()
	add()
	form(true)
	counted(3)

	fixed := NewFormer(sums(-1, 4), 64, &Policy{Delay: time.Second})
	fixed.Add(&Job{Rows: 1, Deadline: 1e15}, 1)
	fixed.Form(1, 0, false, &p)
	if p.Wait == 0 || fixed.Explain(1).Waits != 0 {
		t.Errorf("a delay that is set: a wait until %v, and %d that paid", p.Wait, fixed.Explain(1).Waits)
	}
}

// Where there are several shapes it is known which of them ran most.
func TestRunsOfShapesAreCounted(t *testing.T) {
	f := NewFormer(sums(-1, -1), 8, nil)
	var p Plan
	for width, runs := range map[int]int{4: 100, 5: 3} {
		for range runs {
			f.Add(&newCaller(width, 1).job, 1)
			f.Form(1, 0, true, &p)
			f.Ran(&p, 1, time.Millisecond, 2)
		}
	}
	for _, s := range f.Explain(1).Shapes {
		if want := map[int64]uint64{4: 100, 5: 3}[s.Dims[0]]; s.Runs != want {
			t.Errorf("%d runs of width %d; want %d", s.Runs, s.Dims[0], want)
		}
	}
}
