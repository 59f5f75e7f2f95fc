package batch

import (
	"testing"
	"time"
)

func TestAlarmsRing(t *testing.T) {
	for _, open := range []func(func()) alarm{newAlarm, newCoarse} {
		for _, d := range []time.Duration{-1, 0, time.Millisecond} {
			rings := make(chan struct{}, 2)
			a := open(func() { rings <- struct{}{} })
			a.set(time.Hour)
			a.set(d) // instead
			<-rings
			a.stop()
		}
	}
}

// How long after it was set an alarm of 100 µs rings in a process that does nothing else.
func BenchmarkAlarm(b *testing.B) {
	for name, open := range map[string]func(func()) alarm{"exact": newAlarm, "coarse": newCoarse} {
		b.Run(name, func(b *testing.B) {
			rings := make(chan struct{}, 1)
			a := open(func() {
				select {
				case rings <- struct{}{}:
				default:
				}
			})
			defer a.stop()
			for b.Loop() {
				const after = 100 * time.Microsecond
				a.set(after)
				for at := time.Now(); time.Since(at) < after; { // it may ring for the last time once more
					<-rings
				}
			}
		})
	}
}
