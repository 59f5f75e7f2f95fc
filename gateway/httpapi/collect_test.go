package httpapi

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// Every limit that a client meets is counted under its name.
func TestLimitsAreCounted(t *testing.T) {
	address, server := serve(t, Config{MaxBody: 10, MaxFields: 3, MaxHeader: 1 << 10, MaxConnections: 30, ReadTimeout: 50 * time.Millisecond, IdleTimeout: 50 * time.Millisecond})
	want := map[string]int{}
	f := func(reason string, status int, sent string) {
		t.Helper()
		if statuses, _, _ := talk(t, address, sent, 1, forever); len(statuses) != 1 || statuses[0] != status {
			t.Errorf("%s: answered %v; want %d", reason, statuses, status)
		}
		want[reason]++
	}
	f("frame", 400, "nonsense\r\n\r\n")
	f("frame", 417, score+"Expect: x\r\n\r\n")
	f("head_size", 431, score+"A: b\r\nA: b\r\nA: b\r\n\r\n")
	f("head_size", 431, score+"A: "+strings.Repeat("b", 2<<10)+"\r\n\r\n")
	f("body_size", 413, score+"Content-Length: 11\r\n\r\n")
	f("body_size", 413, chunked+"b\r\n01234567890\r\n")
	for reason, n := range want {
		for w, name := range whyNames {
			if name == reason && server.watch.refused[w].Load() != uint64(n) {
				t.Errorf("%s was counted %d times; want %d", reason, server.watch.refused[w].Load(), n)
			}
		}
	}
	talk(t, address, score, 1, forever) // and nothing more
	talk(t, address, "", 0, forever)
	until(t, "empty", func() bool {
		return server.watch.count()["idle"]+server.watch.count()["late"]+server.watch.count()["lingering"] == 0
	})
	const metrics = `
		# HELP sluice_http_connections_limit Connections that there may be at a time.
		# TYPE sluice_http_connections_limit gauge
		sluice_http_connections_limit 30
		# HELP sluice_http_timeouts_total Connections that were ended because they waited for too long, by what for.
		# TYPE sluice_http_timeouts_total counter
		sluice_http_timeouts_total{state="handshake"} 0
		sluice_http_timeouts_total{state="idle"} 1
		sluice_http_timeouts_total{state="lingering"} 0
		sluice_http_timeouts_total{state="reading"} 1
		sluice_http_timeouts_total{state="writing"} 0
	`
	if err := testutil.CollectAndCompare(server, strings.NewReader(metrics), "sluice_http_connections_limit", "sluice_http_timeouts_total"); err != nil {
		t.Error(err)
	}
	if lint, err := testutil.CollectAndLint(server); err != nil || len(lint) > 0 {
		t.Error(lint, err)
	}
}
