package gateway_test

import (
	"testing"
	"time"

	"sluice.dev/gateway"
)

func TestTimesAreMillisecondsWithThreeDecimals(t *testing.T) {
	times := gateway.Times{Queue: 1234567 * time.Nanosecond, Device: time.Second, Total: 999 * time.Nanosecond}
	if got := string(times.Append([]byte("> "))); got != "> queue;dur=1.235, batch;dur=0.000, device;dur=1000.000, total;dur=0.001" {
		t.Error(got)
	}
}
