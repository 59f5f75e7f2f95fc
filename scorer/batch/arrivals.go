package batch

import (
	"math"
	"math/bits"
	"time"

	"sluice.dev/scorer"
)

// arrivals is what is known of when requests come: how many per second of late,
// and how soon after a request, and after a run's end, the next one comes. So a
// burst, of which the next is microseconds away, is told from a trickle of the same
// rate, and callers who ask again once they are answered are known.
type arrivals struct {
	last  scorer.Instant
	ended scorer.Instant // the last run
	since scorer.Instant // when the window that counts began
	count float64        // rows since then
	usual float64        // nanoseconds between requests, on average over the last few
	// The window before.
	before float64 // rows
	lasted float64 // nanoseconds

	// How often it took how long until the next request came, by power of two; all
	// halved now and then.
	gaps   bins // since the last request, where no run ended in between
	echoes bins // since the last run's end, of the first request after it
	total  int
	alone  int // requests in a row that each came after the run of the one before it
}

type bins [binCount]uint16

const (
	binCount = 26  // below 256 ns, 512 ns, … 8.6 s and above
	binShift = 8   // of the first bin
	maxGaps  = 512 // counted, before all are halved
	minGaps  = 8   // before they are believed

	// A window ends after so many rows, a few batches of the usual size, and so many
	// runs of the largest; or after so long.
	window    = 128
	runs      = 2
	maxWindow = 500 * time.Millisecond

	// A pause counts for up to so many usual ones, and up to maxWindow in any case.
	pauses   = 8
	averaged = 16
)

// note counts a request of rows that came at now; limit is the most rows of a run.
func (a *arrivals) note(now scorer.Instant, rows, limit int) {
	if a.last == 0 {
		a.last, a.since = now, now
	}
	if a.ended > a.last {
		a.echoes[binOf(float64(now.Sub(a.ended)))]++
		a.alone++
	} else {
		a.alone = 0
		a.gaps[binOf(float64(now.Sub(a.last)))]++
	}
	if a.total++; a.total >= maxGaps {
		a.halve()
	}
	idle := a.pause(now)
	if elapsed := now.Sub(a.since); a.count >= float64(max(window, runs*limit)) || elapsed >= maxWindow {
		a.before, a.lasted = a.count, float64(elapsed)-idle
		a.since, a.count = now, 0
	}
	a.last = now
	a.count += float64(rows)
}

// pause is how many nanoseconds of the pause that ends now are not counted: it says
// that there was no load, not how much there is now. What passes while a run goes on
// is none.
func (a *arrivals) pause(now scorer.Instant) float64 {
	pause := float64(now.Sub(max(a.last, a.ended)))
	counted := min(pause, max(float64(maxWindow), pauses*a.usual))
	a.usual += (counted - a.usual) / averaged
	return pause - counted
}

func (a *arrivals) halve() {
	a.total = 0
	for i := range binCount {
		a.gaps[i] /= 2
		a.echoes[i] /= 2
		a.total += int(a.gaps[i]) + int(a.echoes[i])
	}
}

// lonely reports whether so many requests in a row met nobody that what there was
// before them does not count: the crowd has left.
func (a *arrivals) lonely() bool { return a.alone >= minGaps }

// rate is rows per nanosecond, of this window and the one before. A few rows prove
// nothing: those that are missing to a window are taken to need as long as one may
// last.
func (a *arrivals) rate(now scorer.Instant) float64 {
	rows := a.before + a.count
	missing := math.Max(0, 1-rows/window)
	return rows / (a.lasted + float64(now.Sub(a.since)) + missing*float64(maxWindow) + 1)
}

// binOf is the bin of a time in nanoseconds.
func binOf(gap float64) int {
	return min(max(bits.Len64(uint64(max(gap, 0)))-binShift, 0), binCount-1)
}

// endOf is where a bin ends, in nanoseconds.
func endOf(i int) float64 { return float64(uint64(1) << (i + binShift)) }

// above is how many are in bins from each one on.
func (b *bins) above() (sum [binCount + 1]float64) {
	for i := binCount - 1; i >= 0; i-- {
		sum[i] = sum[i+1] + float64(b[i])
	}
	return sum
}

// wait is how long to wait for further requests, 0 for not at all: until there is a
// pause after which, of those that there were, the next request is not worth it. It
// is the pause with the largest expected gain. most is how many rows have room.
//
// The times that are longer than the pause now tell how likely the next request is
// within each time: after a pause that is longer than those within bursts, the
// burst is over.
func (a *arrivals) wait(now scorer.Instant, p *prospect, most float64) time.Duration {
	if a.total < minGaps || a.lonely() {
		return 0
	}
	gaps, echoes := a.gaps.above(), a.echoes.above()
	next, total, pause := &a.gaps, &gaps, float64(now.Sub(a.last))
	if a.ended > a.last {
		next, total, pause = &a.echoes, &echoes, float64(now.Sub(a.ended))
	}
	from, run := binOf(pause), binOf(p.time(p.n))
	if total[from] == 0 {
		return 0
	}
	short := 0.0 // sum of the gaps up to a bin
	for i := range from {
		short += float64(a.gaps[i]) * 0.75 * endOf(i)
	}
	var best, wait, came, spent float64
	for i, begin := from, pause; i < binCount-1; i++ {
		end := endOf(i)
		share := float64(next[i]) / total[from]
		// Those that come within this bin come halfway; the others wait through it.
		spent += share*(end-begin)/2 + (1-came-share)*(end-begin)
		came += share
		short += float64(a.gaps[i]) * 0.75 * end
		begin = end
		if came == 0 {
			continue
		}
		// Each that comes brings further ones, as long as gaps are this short.
		near := gaps[0] - gaps[i+1]
		more := came * math.Min(gaps[0]/math.Max(gaps[i+1], gaps[0]/most), most)
		if near == 0 {
			more = came
		}
		took := spent + (more-came)*short/math.Max(near, 1)
		// Of the pauses that are longer, some end while the run goes on.
		during := 0.0
		if run > i {
			during = (gaps[i+1] - gaps[run+1]) / math.Max(gaps[i+1]+echoes[0], 1)
		}
		if gain := p.gain(more, took, 1-during); gain > best {
			best, wait = gain, end-pause
		}
	}
	return time.Duration(wait)
}
