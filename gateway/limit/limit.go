// Package limit bounds what each caller of an endpoint takes per second.
//
// The algorithm is GCRA, a leaky bucket that is one number: when the caller's debt
// will be paid. Source: ITU-T I.371, annex A. What a request takes is known before
// it (requests, bytes) or only after it (rows, device time); the latter is charged
// then, and holds up the next one.
package limit

import (
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/scorer"
)

// Kind is what is limited.
type Kind uint8

// The kinds.
const (
	Requests Kind = iota
	Bytes         // of requests' bodies
	Rows
	Device // nanoseconds of a device
	Kinds  // count
)

// String names the kind for people.
func (k Kind) String() string {
	return [...]string{"requests", "bytes", "rows", "device time"}[k]
}

// Rates are what a caller may take. Immutable.
type Rates struct {
	PerSecond [Kinds]float64 // 0 does not limit
	Burst     time.Duration  // how long a caller may have saved up
}

// Meter is what one caller has taken. Safe for concurrent use.
type Meter struct {
	paid [Kinds]atomic.Int64 // scorer.Instant at which the debt is paid
}

// Admit takes a request of so many bytes, if the caller has paid for what it took.
// Else it takes nothing, and says what was exceeded and how long to wait. Requests
// that are admitted at the same instant may exceed a rate by one each.
func (m *Meter) Admit(r *Rates, bytes int, now scorer.Instant) (exceeded Kind, wait time.Duration) {
	for k := range Kinds {
		if r.PerSecond[k] <= 0 {
			continue
		}
		// A first request always fits, however large: it is in debt after it.
		if over := m.debt(k, now) - r.Burst; over > 0 {
			return k, over
		}
	}
	m.charge(r, Requests, 1, now)
	m.charge(r, Bytes, float64(bytes), now)
	return 0, 0
}

// Settle charges what a request turned out to take.
func (m *Meter) Settle(r *Rates, rows int, device time.Duration, now scorer.Instant) {
	m.charge(r, Rows, float64(rows), now)
	m.charge(r, Device, float64(device), now)
}

// debt is how long it takes to pay what was taken.
func (m *Meter) debt(k Kind, now scorer.Instant) time.Duration {
	return scorer.Instant(m.paid[k].Load()).Sub(now)
}

func (m *Meter) charge(r *Rates, k Kind, n float64, now scorer.Instant) {
	if r.PerSecond[k] <= 0 {
		return
	}
	cost := time.Duration(n / r.PerSecond[k] * float64(time.Second))
	for {
		old := m.paid[k].Load()
		if m.paid[k].CompareAndSwap(old, int64(max(scorer.Instant(old), now).Add(cost))) {
			return
		}
	}
}

// idle reports whether the caller is in no debt, so that a new meter is as good.
func (m *Meter) idle(now scorer.Instant) bool {
	for k := range Kinds {
		if m.debt(k, now) > 0 {
			return false
		}
	}
	return true
}

// Meters are those of an endpoint's callers, by name. They outlive snapshots. Safe
// for concurrent use.
type Meters struct {
	mu   sync.RWMutex
	each map[string]*Meter
}

// most is how many callers are kept; beyond it, idle ones are forgotten, else any.
const most = 1 << 16

// NewMeters makes an empty set.
func NewMeters() *Meters { return &Meters{each: map[string]*Meter{}} }

// Of is the meter of a caller.
func (s *Meters) Of(caller string, now scorer.Instant) *Meter {
	s.mu.RLock()
	m := s.each[caller]
	s.mu.RUnlock()
	if m != nil {
		return m
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m = s.each[caller]; m == nil {
		if len(s.each) >= most {
			s.shrink(now)
		}
		m = &Meter{}
		s.each[caller] = m
	}
	return m
}

// shrink forgets one caller at least, of those that it meets first. Holding mu.
func (s *Meters) shrink(now scorer.Instant) {
	const looksAt = 64
	looked, forgotten := 0, 0
	for name, m := range s.each {
		if m.idle(now) {
			delete(s.each, name)
			forgotten++
		}
		if looked++; looked == looksAt {
			break
		}
	}
	for name := range s.each {
		if forgotten > 0 {
			return
		}
		delete(s.each, name)
		forgotten++
	}
}
