package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"sluice.dev/bench"
	"sluice.dev/bench/ask"
	"sluice.dev/bench/local"
	"sluice.dev/bench/stats"
	"sluice.dev/bench/wide"
)

// overload asks for more than a version can do: one request at a time on the only slot
// of a model on the CPU, as many as batch well on a device of its own, and the same
// on the CPU, where what refuses, what asks and what computes share the cores.
func overload(s *stage) error {
	wideModel, device := filepath.Join(s.dir, "wide.onnx"), filepath.Join(s.dir, "device.json")
	if err := wide.Write(wideModel); err != nil {
		return err
	}
	// Far less than the cores can pass on: 3,200 rows per second.
	if err := os.WriteFile(device, []byte(`{"times": {"1": "8ms", "32": "10ms"}}`), 0o600); err != nil {
		return err
	}
	row := ask.Row{Endpoint: "batched", Input: "x", Width: wide.Inputs, Key: local.Key}
	serial := row
	serial.Endpoint = "serial"
	for _, k := range []struct {
		name, model, more string
		item              bench.Item
	}{
		{"serial", wideModel, ", maxConcurrentRequestsPerContainer: 1, maxQueueWaitMs: 500", serial.Raw()},
		{"device", device, ", accelerator: sim, maxBatchSize: 32, maxQueueWaitMs: 500", null("device", 0)},
		{"batched", wideModel, ", maxQueueWaitMs: 500", row.Raw()},
	} {
		if err := s.overload(k.name, k.model, k.more, k.item); err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
	}
	return nil
}

func (s *stage) overload(name, model, more string, item bench.Item) error {
	file, err := local.WriteEndpoint(s.dir, name, model, more)
	if err != nil {
		return err
	}
	server, err := s.Sluice(s.dir, file, "--cpu-slots", "1")
	if err != nil {
		return err
	}
	defer server.Process.Kill()
	pid := server.Process.PID()
	one, err := s.closed(server.Address, 1, pid, item)
	if err != nil {
		return err
	}
	before, err := s.closed(server.Address, 128, pid, item)
	if err != nil {
		return err
	}
	s.note("%s: capacity %.0f per second", name, before.Rate)
	overloaded, err := s.open(server.Address, *over*before.Rate, 12_000, 4*length(), pid, item)
	if err != nil {
		return err
	}
	after, err := s.closed(server.Address, 128, pid, item)
	if err != nil {
		return err
	}
	s.judge(name, one, before, overloaded, after)
	return nil
}

// judge compares an overload with the capacity before and after it: the machine's
// pace drifts.
func (s *stage) judge(name string, one, before, over, after *bench.Result) {
	capacity := (before.Rate + after.Rate) / 2
	s.tell(name+": capacity before, after", "%.0f, %.0f per second", before.Rate, after.Rate)
	s.tell(name+": offered for "+(4*length()).String(), "%.0f per second; %s of %d", over.Offered, failures(over), over.Requests)
	goodput := over.Rate / capacity
	s.hold(name+": goodput", "95% of capacity", goodput >= 0.95, "%.0f per second, %.1f%%", over.Rate, 100*goodput)
	// An admitted request waits for 500 ms at most; then it is served together with
	// what is under way, which takes as long as a request takes at capacity.
	service := max(one.Latency.At(99), before.Latency.At(99))
	limit := 500*time.Millisecond + service
	p99 := over.Latency.At(99)
	s.hold(name+": p99 of the admitted", fmt.Sprintf("%.0f ms: 500 and the service time", stats.Millis(limit)), p99 <= limit, "%.0f ms, p50 %.0f ms", stats.Millis(p99), stats.Millis(over.Latency.At(50)))
	refused := over.Failing
	s.hold(name+": refused in", "1 ms at the median", refused.Count() > 0 && refused.At(50) <= time.Millisecond,
		"%.2f ms, p99 %.1f ms", stats.Millis(refused.At(50)), stats.Millis(refused.At(99)))
	only := over.Errors() == over.Failed["status 503"]
	s.note("%s: %s", name, over.Said["status 503"])
	s.hold(name+": nothing but 503", "all refusals", only, "%s", failures(over))
	s.tell(name+": the generator was late", "%.2f%% of the requests by more than %v, p99 %.1f ms; it used %.0f%% of the cores", 100*over.Client.Late, bench.LateAfter, stats.Millis(over.Client.Lag.At(99)), 100*over.Client.Share)
	// Where the server got less of the cores than at capacity, others had them.
	s.tell(name+": the server's share of the cores", "%.0f%% at capacity, %.0f%% overloaded", cores(before, before.Rate), cores(over, over.Offered))
}

// cores is the percentage of the machine's cores that the server used.
func cores(r *bench.Result, answers float64) float64 {
	return 100 * r.ServerCPU * answers / 1e6 / float64(runtime.NumCPU())
}
