package admit

import (
	"time"

	"sluice.dev/scorer"
)

// drain measures how fast a queue moves while there is one and there are slots: the
// time and the grants of the last while. Slots come back in bursts, so the time
// between two grants says little, and so does a single stop.
type drain struct {
	spent  time.Duration  // with a queue, up to since
	grants int            // meanwhile
	since  scorer.Instant // of the last grant, or beginning; 0 while nobody waits
}

// What is measured over: the older half of more than that is forgotten.
const (
	longest = time.Second
	most    = 1024 // grants
	least   = 20 * time.Millisecond
)

// begin tells that somebody waits.
func (d *drain) begin(now scorer.Instant) {
	if d.since == 0 {
		d.since = now
	}
}

// end tells that nobody does.
func (d *drain) end() { d.since = 0 }

// grant tells that the queue moved on by one.
func (d *drain) grant(now scorer.Instant) {
	if d.since != 0 {
		d.spent += now.Sub(d.since)
		d.since = now
	}
	if d.grants++; d.spent > longest || d.grants > most {
		d.spent, d.grants = d.spent/2, d.grants/2
	}
}

// estimate is the time between two grants, 0 while little is known. A stop that
// lasts says that the queue has become slower.
func (d *drain) estimate(now scorer.Instant) time.Duration {
	spent := d.spent
	if d.since != 0 {
		spent += now.Sub(d.since)
	}
	if d.grants == 0 || spent < least {
		return 0
	}
	return spent / time.Duration(d.grants)
}
