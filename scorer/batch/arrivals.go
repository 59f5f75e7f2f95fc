package batch

import (
	"math"
	"math/bits"
	"time"

	"sluice.dev/scorer"
)

// arrivals is what is known of when requests come: how many per second of late,
// and how the gaps between them are spread, so that a burst, of which the next is
// microseconds away, is told from a trickle of the same rate.
type arrivals struct {
	last   scorer.Instant
	since  scorer.Instant  // when the window that counts began
	count  float64         // rows since then
	recent float64         // rows before, each weighing less the longer ago it came
	gaps   [gapBins]uint16 // by power of two; halved now and then
	total  uint32
}

const (
	gapBins  = 26                              // gaps below 256 ns, 512 ns, … 8.6 s and above
	gapShift = 8                               // of the first bin
	maxGaps  = 512                             // counted, before all are halved
	minGaps  = 8                               // before the gaps are believed
	memory   = float64(500 * time.Millisecond) // of recent
	window   = 20 * time.Millisecond           // that is counted before it is added to recent
)

// note counts a request of rows that came at now.
func (a *arrivals) note(now scorer.Instant, rows int) {
	if a.last == 0 {
		a.last, a.since = now, now
	}
	gap := now.Sub(a.last)
	a.last = now
	if elapsed := now.Sub(a.since); elapsed >= window {
		a.recent = (a.recent + a.count) * math.Exp(-float64(elapsed)/memory)
		a.since, a.count = now, 0
	}
	a.count += float64(rows)
	a.gaps[binOf(gap)]++
	if a.total++; a.total >= maxGaps {
		a.total = 0
		for i := range a.gaps {
			a.gaps[i] /= 2
			a.total += uint32(a.gaps[i])
		}
	}
}

func binOf(gap time.Duration) int {
	return min(max(bits.Len64(uint64(max(gap, 0)))-gapShift, 0), gapBins-1)
}

// rate is rows per nanosecond.
func (a *arrivals) rate(now scorer.Instant) float64 {
	elapsed := float64(now.Sub(a.since))
	if elapsed < float64(window) {
		return (a.recent + a.count) / memory
	}
	return (a.recent + a.count) * math.Exp(-elapsed/memory) / memory
}

// worth is how long to wait for the next request, given that it saves saving where
// it comes in time and costs each of waiting rows the wait and, where it comes,
// longer: the wait with the largest expected gain, 0 if none gains. All in
// nanoseconds.
//
// The gaps that are longer than the time since the last request tell how likely
// the next one is within each time from now: after a pause that is longer than
// those within bursts, the burst is over.
func (a *arrivals) worth(now scorer.Instant, waiting, saving, longer float64) time.Duration {
	since := now.Sub(a.last)
	from := binOf(since)
	total := 0.0
	for _, n := range a.gaps[from:] {
		total += float64(n)
	}
	if a.total < minGaps || total == 0 {
		return 0
	}
	// The bin at hand is partly over.
	var best, wait, came, spent float64
	begin := float64(since)
	for i := from; i < gapBins-1; i++ {
		end := float64(uint64(1) << (i + gapShift))
		share := float64(a.gaps[i]) / total
		// Those that come within this bin, halfway; the others wait through it.
		spent += share*(end-begin)/2 + (1-came-share)*(end-begin)
		came += share
		if gain := came*(saving-waiting*longer) - spent*(waiting+came); gain > best {
			best, wait = gain, end-float64(since)
		}
		begin = end
	}
	return time.Duration(wait)
}
