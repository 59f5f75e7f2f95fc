package upstream

import "time"

// health decides whether a server gets requests, by how its probes end. It has no
// clock, lock or goroutine; one caller at a time.
type health struct {
	period    time.Duration // between two probes of a server that answers
	successes int           // in a row that make it good
	failures  int           // in a row that make it bad
	up        bool
	streak    int           // probes in a row that disagree with up
	pause     time.Duration // to the next probe
}

// firstPause is how soon a server that gets no requests is probed again; that
// doubles up to the period.
const firstPause = 100 * time.Millisecond

// newHealth is that of a server of which nothing is known: it gets no requests.
func newHealth(c Health) health {
	return health{period: c.Period, successes: c.Successes, failures: c.Failures}
}

// probed tells how a probe ended, and reports whether that changed up.
func (h *health) probed(good bool) (changed bool) {
	limit := h.successes
	if h.up {
		limit = h.failures
	}
	h.streak++
	if good == h.up {
		h.streak = 0
	}
	if h.streak >= limit {
		h.up, h.streak, changed = good, 0, true
	}
	switch {
	case h.up:
		h.pause = h.period
	case changed:
		h.pause = firstPause
	default:
		h.pause = min(max(2*h.pause, firstPause), h.period)
	}
	return changed
}

// lost tells that a request met nobody, which is worth more than probes: the server
// gets no requests until it has proved to be there. It is to be probed at once.
func (h *health) lost() (changed bool) {
	changed = h.up
	h.up, h.streak, h.pause = false, 0, 0
	return changed
}
