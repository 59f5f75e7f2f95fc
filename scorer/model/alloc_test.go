//go:build !race

// Under the race detector pools drop some of what they are given.

package model

import (
	"testing"
	"time"

	"sluice.dev/scorer"
)

// silent is a request beyond a wire whose answer nobody reads.
type silent chan struct{}

func (silent) Begin(interface{ Withdraw() bool }) {}
func (silent) Canceled() bool                     { return false }
func (s silent) Reply(*scorer.Response)           { s <- struct{}{} }

func TestARequestAllocatesNothing(t *testing.T) {
	s, v := single(t, &device{}, 1)
	req := request(time.Hour)
	req.Class, req.Flow, req.ID = 1, 7, []byte("17")
	var resp scorer.Response
	far := make(silent, 1)
	for what, ask := range map[string]func(){
		"in this process": func() { v.Score(req, &resp) },
		"beyond a wire":   func() { v.Put(*req, far); s.Start(); <-far },
	} {
		for range 100 {
			ask()
		}
		if n := testing.AllocsPerRun(1000, ask); n >= 1 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
}
