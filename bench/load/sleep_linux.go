package load

import (
	"context"
	"runtime"
	"syscall"
	"time"
)

// coarse is how exactly the runtime's timers wake: its poller counts in ms.
const coarse = 2 * time.Millisecond

// precise is a way to sleep that is exact to some µs, for the goroutine that asks for
// it, until done. It keeps an operating system's thread for itself, whose timer slack
// (50 µs unless told otherwise) is turned off. ctx cuts long sleeps short.
func precise(ctx context.Context) (sleep func(time.Duration), done func()) {
	runtime.LockOSThread()
	const setTimerSlack = 29 // PR_SET_TIMERSLACK
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setTimerSlack, 1, 0)
	restore := func() {
		_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setTimerSlack, 0, 0) // 0: the default
		runtime.UnlockOSThread()
	}
	return func(d time.Duration) {
		if end := time.Now().Add(d); d > coarse {
			if !pause(ctx, d-coarse) {
				return
			}
			d = time.Until(end)
		}
		if d > 0 {
			t := syscall.NsecToTimespec(int64(d))
			_ = syscall.Nanosleep(&t, nil) // a signal wakes it early: the request is a little early
		}
	}, restore
}
