//go:build !linux

package batch

func newAlarm(ring func()) alarm { return newCoarse(ring) }
