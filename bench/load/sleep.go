package load

import (
	"context"
	"time"
)

// pause waits for d, or until ctx is done, which it tells.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
