//go:build !linux

package load

import (
	"context"
	"time"
)

// precise is a way to sleep, as exact as the runtime's timers are.
func precise(ctx context.Context) (sleep func(time.Duration), done func()) {
	return func(d time.Duration) { pause(ctx, d) }, func() {}
}
