package batch

import (
	"testing"
	"time"
)

func TestAlarmsRing(t *testing.T) {
	for name, open := range map[string]func(func()) alarm{"exact": newAlarm, "coarse": newCoarse} {
		rings := make(chan struct{}, 1)
		a := open(func() { rings <- struct{}{} })
		a.set(time.Hour)
		a.set(time.Millisecond) // instead
		<-rings
		a.set(-1)
		<-rings
		a.set(time.Hour)
		a.stop()
		select {
		case <-rings:
			t.Errorf("%s: it rings once more than it was set", name)
		default:
		}
	}
}

// How long after it was set an alarm of 100 µs rings in a process that does nothing else.
func BenchmarkAlarm(b *testing.B) {
	for name, open := range map[string]func(func()) alarm{"exact": newAlarm, "coarse": newCoarse} {
		b.Run(name, func(b *testing.B) {
			rings := make(chan struct{}, 1)
			a := open(func() { rings <- struct{}{} })
			defer a.stop()
			for b.Loop() {
				a.set(100 * time.Microsecond)
				<-rings
			}
		})
	}
}
