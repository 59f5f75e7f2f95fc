package limit

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice.dev/scorer"
)

const second = scorer.Instant(time.Second)

// take asks n times at a moment and returns how often it was let in.
func take(m *Meter, r *Rates, n, bytes int, now scorer.Instant) (in int) {
	for range n {
		if _, wait := m.Admit(r, bytes, now); wait == 0 {
			in++
		}
	}
	return in
}

func TestAnHourOfGreedGetsTheRate(t *testing.T) {
	r := &Rates{PerSecond: [Kinds]float64{Requests: 10}, Burst: time.Second}
	var m Meter
	in := 0
	for ms := range 3_600_000 / 20 {
		in += take(&m, r, 3, 0, second+scorer.Instant(ms)*second/50)
	}
	if in < 36_000 || in > 36_012 { // the rate, and one burst of it
		t.Errorf("%d let in; want 36000 and at most 11 more", in)
	}
}

func TestABurstIsWhatWasSaved(t *testing.T) {
	r := &Rates{PerSecond: [Kinds]float64{Requests: 10}, Burst: 2 * time.Second}
	var m Meter
	for _, step := range []struct {
		at   scorer.Instant
		want int
	}{{second, 21}, {second, 0}, {2 * second, 10}, {100 * second, 21}} {
		if got := take(&m, r, 100, 0, step.at); got != step.want {
			t.Errorf("at %v: %d let in; want %d", time.Duration(step.at), got, step.want)
		}
	}
}

func TestEachKindCountsAndIsNamed(t *testing.T) {
	for k, use := range map[Kind]func(m *Meter, r *Rates){
		Requests: func(m *Meter, r *Rates) { m.Admit(r, 0, second) },
		Bytes:    func(m *Meter, r *Rates) { m.Admit(r, 5000, second) },
		Rows:     func(m *Meter, r *Rates) { m.Settle(r, 5000, 0, second) },
		Device:   func(m *Meter, r *Rates) { m.Settle(r, 0, 5*time.Microsecond, second) },
	} {
		r := &Rates{Burst: time.Second}
		r.PerSecond[k] = 1000
		if k == Requests {
			r.PerSecond[k] = 0.2
		}
		var m Meter
		if _, wait := m.Admit(r, 0, second); k != Requests && wait != 0 {
			t.Errorf("%v: a first request waits %v", k, wait)
		}
		use(&m, r) // worth 5 seconds
		got, wait := m.Admit(r, 0, second)
		if got != k || wait != 4*time.Second {
			t.Errorf("%v: exceeded %v, wait %v; want 4s", k, got, wait)
		}
		if _, again := m.Admit(r, 0, second); again != wait {
			t.Errorf("%v: a refused request was charged: wait %v, then %v", k, wait, again)
		}
		if _, wait = m.Admit(r, 0, second+4*second); wait != 0 {
			t.Errorf("%v: after the wait: %v more", k, wait)
		}
	}
}

func TestManyCallersAtOnceAreCountedExactly(t *testing.T) {
	r := &Rates{PerSecond: [Kinds]float64{Bytes: 1}, Burst: time.Hour}
	s := NewMeters()
	var in atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				s.Of("one", second).charge(r, Bytes, 1, second)
				in.Add(1)
			}
		})
	}
	wg.Wait()
	if got := s.Of("one", second).debt(Bytes, second); got != time.Duration(in.Load())*time.Second {
		t.Errorf("debt %v after %d seconds' worth", got, in.Load())
	}
}

func TestCallersAreBounded(t *testing.T) {
	r := &Rates{PerSecond: [Kinds]float64{Requests: 1}, Burst: time.Second}
	s := NewMeters()
	for i := range most + 5000 {
		s.Of(fmt.Sprint(i), second).Admit(r, 0, second)
	}
	if n := len(s.each); n > most {
		t.Errorf("%d callers are kept; want at most %d", n, most)
	}
}

func BenchmarkAdmit(b *testing.B) {
	r := &Rates{PerSecond: [Kinds]float64{1e12, 1e12, 1e12, 1e12}, Burst: time.Second}
	s := NewMeters()
	now := scorer.Now()
	b.ReportAllocs()
	for b.Loop() {
		m := s.Of("primary", now)
		m.Admit(r, 100, now)
		m.Settle(r, 1, time.Microsecond, now)
	}
}
