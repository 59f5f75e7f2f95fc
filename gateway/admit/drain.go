package admit

import (
	"time"

	"sluice.dev/scorer"
)

// drain measures how fast a queue moves while there is one, in slices of time:
// slots come back in bursts, so the time between two of them says little.
type drain struct {
	gap    time.Duration  // between two grants, lately; 0 is not known
	since  scorer.Instant // when the slice began; 0 while nobody waits
	grants int            // in the slice
}

const slice = 50 * time.Millisecond // at least

// begin tells that somebody waits.
func (d *drain) begin(now scorer.Instant) {
	if d.since == 0 {
		d.since, d.grants = now, 0
	}
}

// end tells that nobody does.
func (d *drain) end() { d.since = 0 }

// grant tells that the queue moved on by one.
func (d *drain) grant(now scorer.Instant) {
	d.grants++
	took := now.Sub(d.since)
	if took < slice {
		return
	}
	gap := took / time.Duration(d.grants)
	if d.gap != 0 {
		gap = (gap + d.gap) / 2
	}
	d.gap, d.since, d.grants = gap, now, 0
}

// estimate is the time between two grants. A slice that lasts says that the queue
// has become slower.
func (d *drain) estimate(now scorer.Instant) time.Duration {
	if d.gap == 0 || d.since == 0 {
		return d.gap
	}
	if took := now.Sub(d.since); took > slice {
		return max(d.gap, took/time.Duration(d.grants+1))
	}
	return d.gap
}
