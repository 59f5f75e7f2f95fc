// Package balance chooses among the replicas of a version.
package balance

// Load is what a choice is made on.
type Load struct {
	Window int // requests that the replica takes at a time; 0 if it is not ready
	Busy   int // requests that it has
}

// Free is how many more requests the replica takes.
func (l Load) Free() int { return l.Window - l.Busy }

// Pick is the index of the replica with the least share of its window in use,
// the first from turn on where several have; -1 where none takes a request.
func Pick(loads []Load, turn int) int {
	best := -1
	for k := range loads {
		i := (turn + k) % len(loads)
		l := loads[i]
		if l.Free() <= 0 {
			continue
		}
		if best < 0 || l.Busy*loads[best].Window < loads[best].Busy*l.Window {
			best = i
		}
	}
	return best
}
