package batch

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// newAlarm makes an alarm of the system's clock, which rings within some 30 µs of its
// time. On the runtime's timers an idle process sleeps for whole milliseconds; they
// are for a system that has no descriptor left to give.
func newAlarm(ring func()) alarm {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return newCoarse(ring)
	}
	a := &exact{file: os.NewFile(uintptr(fd), "timer"), done: make(chan struct{})}
	if a.raw, err = a.file.SyscallConn(); err != nil {
		_ = a.file.Close()
		return newCoarse(ring)
	}
	a.arm = func(fd uintptr) {
		// Fails for no time that there is.
		_ = unix.TimerfdSettime(int(fd), 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(a.after))}, nil)
	}
	go a.wait(ring)
	return a
}

// exact is an alarm whose descriptor the runtime's poller watches.
type exact struct {
	file  *os.File
	raw   syscall.RawConn
	arm   func(fd uintptr)
	after time.Duration // that it is armed with
	done  chan struct{}
}

func (a *exact) wait(ring func()) {
	defer close(a.done)
	var times [8]byte // how often it ended since the last time
	for {
		if _, err := a.file.Read(times[:]); err != nil {
			return // stopped
		}
		ring()
	}
}

func (a *exact) set(d time.Duration) {
	a.after = max(d, 1)      // nothing would be never
	_ = a.raw.Control(a.arm) // an error is that it was stopped
}

func (a *exact) stop() {
	_ = a.file.Close()
	<-a.done
}
