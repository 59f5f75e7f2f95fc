//go:build !linux

package sim

import "time"

func sleep(d time.Duration) { time.Sleep(d) }
