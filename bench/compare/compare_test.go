package main

import (
	"bytes"
	"strings"
	"testing"

	"sluice.dev/bench/local"
)

// Here nothing can be started, since there are no binaries.
func TestOnlyWhatIsWantedIsStarted(t *testing.T) {
	f := func(want string, starts bool) {
		t.Helper()
		p := &local.Processes{Bin: t.TempDir()}
		list, missing, err := start(t.Context(), p, t.TempDir(), func(name string) bool { return name == want })
		if (err != nil) != starts || len(list)+len(missing) > 0 {
			t.Errorf("%q: started %d targets, missing %v, error %v", want, len(list), missing, err)
		}
	}
	f(wideName, false)
	f("haproxy", false)
	f("haproxy + echo, JSON", true)
	f("echo, binary", true)
	f("MLServer", true)
	f(amlName, true)
}

func TestFailedRequestsOfTheWideModelAreTold(t *testing.T) {
	var b bytes.Buffer
	reportWide(&b, []wideRound{{errors: 2}, {}, {errors: 3}})
	if !strings.Contains(b.String(), "5 requests failed") {
		t.Error(b.String())
	}
}
