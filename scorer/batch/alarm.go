package batch

import (
	"math"
	"time"
)

// alarm calls a function some time after it was set, once or twice. For one goroutine
// at a time.
type alarm interface {
	set(d time.Duration) // instead of what was set before
	stop()
}

// coarse is an alarm of the runtime.
type coarse struct{ timer *time.Timer }

func newCoarse(ring func()) alarm { return coarse{time.AfterFunc(math.MaxInt64, ring)} }

func (a coarse) set(d time.Duration) { a.timer.Reset(d) }
func (a coarse) stop()               { a.timer.Stop() }
