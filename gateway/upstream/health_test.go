package upstream

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// The script's commands are named after the events: good and bad probes, and lost.
func TestHealth(t *testing.T) {
	datadriven.RunTest(t, "testdata/health", func(t *testing.T, d *datadriven.TestData) string {
		h := newHealth(Health{Period: time.Second, Successes: 1, Failures: 3})
		for _, a := range d.CmdArgs {
			switch a.Key {
			case "successes":
				a.Scan(t, 0, &h.successes)
			case "failures":
				a.Scan(t, 0, &h.failures)
			}
		}
		var out strings.Builder
		for event := range strings.FieldsSeq(d.Input) {
			changed := false
			switch event {
			case "good", "bad":
				changed = h.probed(event == "good")
			case "lost":
				changed = h.lost()
			default:
				t.Fatalf("no event %s", event)
			}
			state := map[bool]string{true: "up", false: "down"}[h.up]
			if changed {
				state += ", changed"
			}
			fmt.Fprintf(&out, "%s: %s; next in %v\n", event, state, h.pause)
		}
		return out.String()
	})
}
