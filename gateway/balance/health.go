package balance

import (
	"math/rand/v2"
	"time"

	"sluice.dev/scorer"
)

// Health is what a replica's answers tell of it. A replica that fails while the
// others do not is left out for a time that doubles with each failure after it;
// then it gets one request, and if that succeeds more and more of them. The zero
// value is well. It has no clock or lock; one caller at a time.
type Health struct {
	state   state
	row     int     // failures without a success between them
	rate    float64 // share of failures lately, 0 to 1
	seen    int     // answers, up to enough
	ejected int     // times without recovering
	until   scorer.Instant
	since   scorer.Instant // when it began to recover
}

type state uint8

const (
	well       state = iota
	ejected          // until a time
	probing          // by one request at a time
	recovering       // with a part of its window
)

// How a replica is judged.
const (
	tooMany   = 5   // failures in a row
	tooOften  = 0.5 // of the answers
	enough    = 20  // answers to judge by how often
	weight    = 1.0 / 16
	forgotten = 1e-4 // a rate that counts as none

	firstEjection = time.Second
	lastEjection  = 30 * time.Second
	recovery      = 10 * time.Second
	leastShare    = 0.1 // of the window, at the beginning of the recovery
)

// Verdict is what an answer changes.
type Verdict uint8

// The verdicts.
const (
	Steady  Verdict = iota
	Back            // an ejected replica answers again: to Recover
	Failing         // it fails often enough to Eject it, if the others do not
)

// Record takes an answer into account.
func (h *Health) Record(ok bool) Verdict {
	h.seen = min(h.seen+1, enough)
	if ok {
		if h.row, h.rate = 0, h.rate*(1-weight); h.rate < forgotten {
			h.rate = 0
		}
		if h.state == probing {
			return Back
		}
		return Steady
	}
	h.row++
	h.rate += (1 - h.rate) * weight
	if h.state == probing || h.row >= tooMany || h.seen == enough && h.rate >= tooOften {
		return Failing
	}
	return Steady
}

// Spotless reports whether Record(true) would change nothing.
func (h *Health) Spotless() bool { return h.state == well && h.rate == 0 && h.seen == enough }

// Rate is the share of the replica's answers that were failures lately.
func (h *Health) Rate() float64 { return h.rate }

// Eject leaves the replica out for a while.
func (h *Health) Eject(now scorer.Instant) {
	pause := min(firstEjection<<min(h.ejected, 10), lastEjection)
	h.ejected++
	h.state, h.until = ejected, now.Add(pause/2+rand.N(pause))
	h.row, h.rate, h.seen = 0, 0, 0
}

// Recover lets the replica take more and more.
func (h *Health) Recover(now scorer.Instant) { h.state, h.since = recovering, now }

// Settle moves on with time, and reports whether it will again.
func (h *Health) Settle(now scorer.Instant) bool {
	switch {
	case h.state == ejected && now >= h.until:
		h.state = probing
	case h.state == recovering && now.Sub(h.since) >= recovery:
		h.state, h.ejected = well, 0
	}
	return h.state == ejected || h.state == recovering
}

// Phase is what operators are told of a replica.
type Phase uint8

// The phases.
const (
	In         Phase = iota // takes its part
	Out                     // left out, or on probation with one request
	Recovering              // takes more and more
)

// String is the phase's name in metrics.
func (p Phase) String() string { return [...]string{"in", "out", "recovering"}[p] }

// Phase is what the replica is in.
func (h *Health) Phase() Phase {
	switch h.state {
	case ejected, probing:
		return Out
	case recovering:
		return Recovering
	}
	return In
}

// Out reports whether the replica is left out, or on probation.
func (h *Health) Out() bool { return h.Phase() == Out }

// Window is how much of its window the replica should be given at now.
func (h *Health) Window(window int, now scorer.Instant) int {
	switch h.state {
	case ejected:
		return 0
	case probing:
		return min(window, 1)
	case recovering:
		share := max(float64(now.Sub(h.since))/float64(recovery), leastShare)
		return max(min(int(share*float64(window)), window), min(window, 1))
	}
	return window
}

// Outlier reports whether a replica with the failure rate one is worse than the
// others: where all fail, it is not the replica.
func Outlier(one, others float64) bool { return others < one/2 }

// Floor is how many of n replicas may be left out at a time.
func Floor(n int) int { return n / 2 }

// Budget bounds how often work is sent again: to a part of what is sent, and a
// burst. The zero value has nothing to spend.
type Budget struct {
	tokens float64
	burst  float64
}

// retried is the part of the requests that may be sent again.
const retried = 0.2

// NewBudget makes a budget that is full.
func NewBudget(burst int) Budget { return Budget{float64(burst), float64(burst)} }

// Burst sets how much may be saved up.
func (b *Budget) Burst(n int) {
	b.burst = float64(n)
	b.tokens = min(b.tokens, b.burst)
}

// Earn is for a request that was answered.
func (b *Budget) Earn() { b.tokens = min(b.tokens+retried, b.burst) }

// Spend is for one that is to be sent again. False: it must not.
func (b *Budget) Spend() bool {
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
