package sim

import (
	"syscall"
	"time"
)

// sleep is exact to some 60 µs. In an idle process the runtime's own sleeps for whole
// milliseconds.
func sleep(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil) // a signal ends it early, which the caller notices
}
