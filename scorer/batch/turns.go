package batch

import "sluice.dev/scorer"

// turns puts jobs into rounds of a run's rows: start-time fair queueing over flows,
// by rows. A flow with more than a run's rows waiting goes on in later rounds, and
// whoever comes new begins in the current one. A lower class begins later, and so
// waits until each flow of a higher one has had so many runs more, not for ever.
//
// P. Goyal et al., Start-time fair queueing, 1996.
type turns struct {
	virtual  uint64 // rows that a flow that always had work has been granted
	accounts [sets][ways]account
}

// account is up to which row the work of one flow in one class is due. One that is not
// beyond virtual is as good as none.
type account struct {
	id    uint64
	until uint64
}

const (
	sets, ways = 16, 4 // accounts; where more flows of a set wait, some share one
	overtaking = 64    // rounds by which a class goes before the next lower one
)

// round is the round of a new job.
func (t *turns) round(j *Job, limit int) uint64 {
	start := t.virtual
	if j.Flow != 0 {
		a := t.account(j)
		start = max(start, a.until)
		a.until = start + uint64(j.Rows)
	}
	return start/uint64(limit) + j.behind()
}

// account finds that of j's flow, or takes one that nobody needs.
func (t *turns) account(j *Job) *account {
	id := uint64(j.Flow)<<8 | j.behind()/overtaking
	set := &t.accounts[j.Flow%sets]
	least := &set[0]
	for i := range set {
		a := &set[i]
		if a.id == id {
			return a
		}
		if a.until < least.until {
			least = a
		}
	}
	if least.until <= t.virtual {
		*least = account{id: id}
	}
	return least
}

// ran notes that j's turn has come.
func (t *turns) ran(j *Job, limit int) {
	t.virtual = max(t.virtual, (j.node.round-j.behind())*uint64(limit))
}

// refund gives back what a job that does not run had been granted.
func (t *turns) refund(j *Job) {
	if j.Flow == 0 {
		return
	}
	if a := t.account(j); a.until >= t.virtual+uint64(j.Rows) {
		a.until -= uint64(j.Rows)
	}
}

// behind is by how many rounds j's class is later than the highest.
func (j *Job) behind() uint64 {
	c := min(max(j.Class, scorer.LowestClass), scorer.HighestClass)
	return uint64(scorer.HighestClass-c) * overtaking
}
