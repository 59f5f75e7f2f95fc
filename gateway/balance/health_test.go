package balance

import (
	"testing"
	"time"

	"sluice.dev/scorer"
)

// record plays answers, + for a good one, and returns the last verdict.
func record(h *Health, answers string) (v Verdict) {
	for _, a := range answers {
		v = h.Record(a == '+')
	}
	return v
}

func TestAReplicaFailsWhenItDoesSoInARowOrOften(t *testing.T) {
	f := func(answers string, want Verdict) {
		t.Helper()
		if got := record(&Health{}, answers); got != want {
			t.Errorf("after %s the verdict is %v; want %v", answers, got, want)
		}
	}
	f("----", Steady)
	f("-----", Failing)
	f("----+----", Steady)
	f("--+--+--+--+--+-+--+-", Steady)
	f("---+---+---+---+---+---+---+---+---", Failing)
	f("+++++++++++++++++++++++++-", Steady)
}

func TestAnEjectedReplicaComesBackByAProbeAndSlowly(t *testing.T) {
	var h Health
	now := scorer.Instant(1)
	window := func() int { h.Settle(now); return h.Window(40, now) }
	if got := window(); got != 40 {
		t.Fatalf("a new replica gets %d of 40", got)
	}
	h.Eject(now)
	if got := window(); got != 0 || !h.Out() {
		t.Errorf("an ejected replica gets %d", got)
	}
	now = now.Add(firstEjection / 2)
	if got := window(); got != 0 {
		t.Errorf("before half of the pause it gets %d", got)
	}
	now = now.Add(firstEjection)
	if got := window(); got != 1 {
		t.Errorf("after the pause it gets %d; want one probe", got)
	}
	if v := record(&h, "+"); v != Back {
		t.Fatalf("a probe that succeeds: %v", v)
	}
	h.Recover(now)
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{0, 4}, {recovery / 2, 20}, {recovery * 3 / 4, 30}, {recovery, 40}} {
		at := now.Add(step.after)
		if h.Settle(at); h.Window(40, at) != step.want {
			t.Errorf("%v into the recovery it gets %d; want %d", step.after, h.Window(40, at), step.want)
		}
	}
	if h.Phase() != In {
		t.Errorf("it has recovered, and is %v", h.Phase())
	}
}

func TestPausesGrowWithEachFailure(t *testing.T) {
	var h Health
	now := scorer.Instant(1)
	for i, most := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		most *= time.Second
		h.Eject(now)
		if at := now.Add(most / 2).Add(-1); h.Settle(at) && h.Window(1, at) != 0 {
			t.Errorf("ejection %d ends within half of %v", i+1, most)
		}
		now = now.Add(most * 3 / 2)
		if h.Settle(now); h.Window(9, now) != 1 {
			t.Errorf("ejection %d does not end within one and a half of %v", i+1, most)
		}
		if v := record(&h, "-"); v != Failing {
			t.Errorf("a probe that fails: %v", v)
		}
	}
}

func TestOutlier(t *testing.T) {
	f := func(one, others float64, want bool) {
		t.Helper()
		if got := Outlier(one, others); got != want {
			t.Errorf("Outlier(%v, %v) = %v", one, others, got)
		}
	}
	f(0.3, 0, true)
	f(0.3, 0.2, false) // all of them fail
	f(1, 0.4, true)
}

func TestTheBudgetIsAFifthOfWhatIsSentAndABurst(t *testing.T) {
	b := NewBudget(10)
	spent := 0
	for b.Spend() {
		spent++
	}
	for range 1000 {
		b.Earn()
		b.Burst(1000)
		if b.Spend() {
			spent++
		}
	}
	if spent < 205 || spent > 211 {
		t.Errorf("%d retries in 1000 requests; want the burst of 10 and a fifth", spent)
	}
}
