package batch

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// newAlarm makes an alarm of the system's clock and one of the runtime, of which the
// first counts. On the runtime's timers an idle process sleeps for whole milliseconds;
// descriptors are looked at every 10 ms only by one whose processors are all busy.
func newAlarm(ring func()) alarm {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return newCoarse(ring)
	}
	a := &exact{alarm: newCoarse(ring), file: os.NewFile(uintptr(fd), "timer"), done: make(chan struct{})}
	if a.raw, err = a.file.SyscallConn(); err != nil {
		_ = a.file.Close()
		return a.alarm
	}
	a.arm = func(fd uintptr) {
		// Fails for no time that there is.
		_ = unix.TimerfdSettime(int(fd), 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(a.after))}, nil)
	}
	go a.wait(ring)
	return a
}

// exact is an alarm with a descriptor that the runtime's poller watches, beside a
// coarse one.
type exact struct {
	alarm
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
	a.alarm.set(d)
	a.after = max(d, 1)      // nothing would be never
	_ = a.raw.Control(a.arm) // an error is that it was stopped
}

func (a *exact) stop() {
	a.alarm.stop()
	_ = a.file.Close()
	<-a.done
}
