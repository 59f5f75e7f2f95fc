//go:build !race

// Under the race detector pools drop some of what they are given.

package lane

import (
	"testing"

	"sluice.dev/scorer"
)

func TestScoreDoesNotAllocate(t *testing.T) {
	r := connect(t, "unix").remote()
	a, body := newAsker(), make([]byte, 500)
	a.req.Trace, a.req.Flow, a.req.ID, a.req.State = scorer.Trace{Flags: 1}, 7, []byte("0123456789abcdef0123456789abcdef0123"), []byte("vendor=x")
	for range 100 {
		a.ask(r, scorer.OIP, body)
	}
	if n := testing.AllocsPerRun(1000, func() { a.ask(r, scorer.OIP, body) }); n >= 1 {
		t.Errorf("%v allocations per request, both sides together", n)
	}
}
