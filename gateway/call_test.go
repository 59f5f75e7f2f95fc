package gateway_test

import (
	"testing"
	"testing/synctest"
	"time"

	"sluice.dev/gateway"
)

func TestTimesAreMillisecondsWithThreeDecimals(t *testing.T) {
	times := gateway.Times{Queue: 1234567 * time.Nanosecond, Device: time.Second, Total: 999 * time.Nanosecond}
	if got := string(times.Append([]byte("> "))); got != "> queue;dur=1.235, batch;dur=0.000, device;dur=1000.000, total;dur=0.001" {
		t.Error(got)
	}
}

// Calls that were needed in a burst only keep little of their answers; those that go on
// being needed keep what they have, and in the end none does.
func TestIdleCallsKeepLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := gateway.NewPath(gateway.Config{})
		defer p.Close()
		const burst, size, little = 8, 1 << 20, 64 << 10
		take := func() (list []*gateway.Call, kept int) {
			for range burst {
				c := p.Call()
				list, kept = append(list, c), kept+cap(c.Response.Body)
			}
			return list, kept
		}
		give := func(list []*gateway.Call) {
			for _, c := range list {
				p.Done(c)
			}
		}
		grow := func() {
			list, _ := take()
			for _, c := range list {
				c.Response.Body = make([]byte, size)
			}
			give(list)
		}
		grow()
		list, kept := take()
		if give(list); kept != burst*size {
			t.Errorf("at once: %d bytes are kept; want %d", kept, burst*size)
		}
		for range 30 {
			c := p.Call()
			time.Sleep(100 * time.Millisecond)
			if cap(c.Response.Body) != size {
				t.Fatalf("a call that is needed keeps %d bytes; want %d", cap(c.Response.Body), size)
			}
			p.Done(c)
		}
		list, kept = take()
		if give(list); kept > size+(burst-1)*little {
			t.Errorf("beside one that is needed: %d bytes are kept", kept)
		}
		grow()
		time.Sleep(10 * time.Second) // the watcher sleeps
		if list, kept = take(); kept > burst*little {
			t.Errorf("of idle ones: %d bytes are kept", kept)
		}
		give(list)
	})
}
