package batch

import (
	"math"
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

	// Since the last request, or until a run ends: where all who were answered last have
	// asked again, and where some have not.
	gaps   [2]intervals
	echoes intervals // since the last run's end, of the first request after it
	total  int       // of all of them
	owed   int       // of those whom the last run answered, how many have not asked again, if each asks again
	alone  int       // requests in a row that each came after the run of the one before it
}

const (
	maxGaps = 1024 // counted, before all are halved
	minGaps = 8    // before they are believed

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
	switch {
	case a.last == 0:
		a.last, a.since = now, now
	case a.ended > a.last:
		a.echoes.met[binOf(float64(now.Sub(a.ended)))]++
		a.alone++
	default:
		a.alone = 0
		a.gap().met[binOf(float64(now.Sub(a.last)))]++
	}
	a.owed = max(a.owed-1, 0)
	if a.total++; a.total >= maxGaps {
		a.total = a.gaps[0].halve() + a.gaps[1].halve() + a.echoes.halve()
	}
	idle := a.pause(now)
	if elapsed := now.Sub(a.since); a.count >= float64(max(window, runs*limit)) || elapsed >= maxWindow {
		a.before, a.lasted = a.count, float64(elapsed)-idle
		a.since, a.count = now, 0
	}
	a.last = now
	a.count += float64(rows)
}

// gap is the kind of pause that the next request, or a run's end, ends.
func (a *arrivals) gap() *intervals { return &a.gaps[min(a.owed, 1)] }

// pause is how many nanoseconds of the pause that ends now are not counted: it says
// that there was no load, not how much there is now. What passes while a run goes on
// is none.
func (a *arrivals) pause(now scorer.Instant) float64 {
	pause := float64(now.Sub(max(a.last, a.ended)))
	counted := min(pause, max(float64(maxWindow), pauses*a.usual))
	a.usual += (counted - a.usual) / averaged
	return pause - counted
}

// ran notes that a run ended at now, which answered so many requests.
func (a *arrivals) ran(now scorer.Instant, answered int) {
	pauses, from := a.gap(), a.last
	if a.ended > a.last {
		pauses, from = &a.echoes, a.ended
	}
	pauses.cut[binOf(float64(now.Sub(from)))]++
	a.total++
	a.ended, a.owed = now, answered
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

// wait is how long to wait for further requests, 0 for not at all: until there is a
// pause after which, of those that there were, the next request is not worth it. It
// is the pause with the largest expected gain, and not longer than a run of what waits.
// most is how many rows have room. Where some are owed, further ones are not expected.
//
// The times that are longer than the pause now tell how likely the next request is
// within each time: after a pause that is longer than those within bursts, the
// burst is over.
func (a *arrivals) wait(now scorer.Instant, p *prospect, most float64) time.Duration {
	if a.total < minGaps || a.lonely() {
		return 0
	}
	gaps := a.gap().chances()
	next, pause := gaps, float64(now.Sub(a.last))
	if a.ended > a.last {
		next, pause = a.echoes.chances(), float64(now.Sub(a.ended))
	}
	if a.owed > 0 {
		most = math.Min(most, float64(a.owed+1))
	}
	alone := p.time(p.n)
	until := pause + alone
	run := shorter(&gaps, binOf(alone))
	near := shorter(&gaps, binOf(pause)-1)
	var best, wait, spent float64
	quiet := 1.0 // chance that nobody came
	for i, begin := binOf(pause), pause; begin < until && i < binCount-1; i++ {
		end := min(endOf(i), until)
		came := quiet * next[i] * (end - begin) / (endOf(i) - beginOf(i))
		// Those that come within this bin come halfway; the others wait through it.
		spent += (quiet - came/2) * (end - begin)
		quiet -= came
		near.add(i, gaps[i])
		begin = end
		if came == 0 {
			continue
		}
		// Each that comes brings further ones, as long as gaps are this short.
		first := 1 - quiet
		more := first / max(near.longer, 1/most)
		took := spent + (more-first)*near.mean()
		// Of the pauses that are longer, some end while the run goes on.
		still := min(run.longer/max(near.longer, never), 1)
		if gain := p.gain(more, took, still); gain > best {
			best, wait = gain, end-pause
		}
	}
	return time.Duration(wait)
}
