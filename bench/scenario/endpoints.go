package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sluice.dev/bench"
	"sluice.dev/bench/ask"
	"sluice.dev/bench/local"
	"sluice.dev/bench/proc"
	"sluice.dev/bench/stats"
)

// endpoints serves many endpoints of six versions, beside a server of one.
func endpoints(s *stage) error {
	small, err := s.house("one", 1)
	if err != nil {
		return err
	}
	large, err := s.house("many", *many)
	if err != nil {
		return err
	}
	all := make([]bench.Item, *many)
	for i := range all {
		all[i] = null(fmt.Sprintf("e%d", i), 0)
	}
	if err := s.lookup(small, large, all); err != nil {
		return err
	}
	return s.reload(large, all)
}

// house is a server, and the folder that it serves.
type house struct {
	*local.Server
	folder string
	first  []byte // what its first file says
}

const perFile = 500 // endpoints; a file may have 1 MiB

func (s *stage) house(name string, n int) (*house, error) {
	model, err := digits()
	if err != nil {
		return nil, err
	}
	h := &house{folder: filepath.Join(s.dir, name)}
	if err := os.Mkdir(h.folder, 0o700); err != nil {
		return nil, err
	}
	for from := 0; from < n; from += perFile {
		text := listing(model, from, min(n, from+perFile))
		if from == 0 {
			h.first = text
		}
		if err := os.WriteFile(filepath.Join(h.folder, fmt.Sprintf("%d.yaml", from)), text, 0o600); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	if h.Server, err = s.Sluice(filepath.Join(s.dir, name+"-state"), h.folder); err != nil {
		return nil, err
	}
	took := time.Since(began)
	pids := []int{h.Process.PID()}
	s.hold(fmt.Sprintf("%d endpoints of 6 versions: start, memory", n), "5 s", took <= 5*time.Second, "%.1f s (%.1f s of processors), %d MB (RSS)", took.Seconds(), proc.CPU(pids).Seconds(), proc.RSS(pids)>>20)
	return h, nil
}

// listing is the specification of some endpoints.
func listing(model string, from, to int) []byte {
	var b bytes.Buffer
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "---\napiVersion: sluice.dev/v1alpha1\nkind: Endpoint\nmetadata: {name: e%d}\nspec:\n  auth: {mode: key, keys: {primary: {env: BENCH_KEY}}}\n  versions:\n", i)
		for v := range 6 {
			fmt.Fprintf(&b, "    - {name: v%d, model: %s, accelerator: \"null\", trafficPercentile: %d}\n", v, model, 10+v)
		}
	}
	return b.Bytes()
}

// lookup compares the CPU time of a request to the only endpoint with that of
// requests to one of many, and to all of them in turn. One connection asks: requests
// that come together would be batched where they are for one endpoint alone.
func (s *stage) lookup(small, large *house, all []bench.Item) error {
	if _, err := s.closed(large.Address, busy, large.Process.PID(), all...); err != nil { // warms up
		return err
	}
	var one, ofMany, each series
	for range *rounds {
		if err := one.add(s.closed(small.Address, 1, small.Process.PID(), all[0])); err != nil {
			return err
		}
		if err := ofMany.add(s.closed(large.Address, 1, large.Process.PID(), all[len(all)/2])); err != nil {
			return err
		}
		if err := each.add(s.closed(large.Address, 1, large.Process.PID(), all...)); err != nil {
			return err
		}
	}
	s.same(fmt.Sprintf("CPU per request to one of %d, against the only one", len(all)), ofMany.cpu, one.cpu)
	s.same(fmt.Sprintf("CPU per request to all %d in turn, against the only one", len(all)), each.cpu, one.cpu)
	s.hold("errors", "none", one.errors+ofMany.errors+each.errors == 0, "%d", one.errors+ofMany.errors+each.errors)
	return nil
}

const reloadRate = 2000 // requests per second while the specification is reloaded

// reload changes a percentile while requests come at a steady rate, and compares each
// time with a while before it.
func (s *stage) reload(large *house, all []bench.Item) error {
	const d = 5 * time.Second
	pid := large.Process.PID()
	for asked := int64(0); asked < 20*int64(len(all)); { // what versions keep from their first requests on is not a reload's
		r, err := s.closed(large.Address, busy, pid, all...)
		if err != nil {
			return err
		}
		asked += r.Requests
	}
	before := proc.RSS([]int{pid})
	var quiet, during, more, took []float64
	lost, asked, why := int64(0), int64(0), ""
	for round := range *rounds {
		q, err := s.open(large.Address, reloadRate, 1000, d, pid, all...)
		if err != nil {
			return err
		}
		served := make(chan time.Duration, 1)
		timer := time.AfterFunc(2*time.Second, func() { served <- s.change(large, 11+round) }) // a warm-up of 1 s comes first
		r, err := s.open(large.Address, reloadRate, 1000, d, pid, all...)
		if timer.Stop() || err != nil {
			return err
		}
		slowest := func(r *bench.Result) float64 { return stats.Millis(r.Latency.At(100)) }
		quiet, during, more = append(quiet, slowest(q)), append(during, slowest(r)), append(more, slowest(r)-slowest(q))
		took = append(took, (<-served).Seconds())
		lost, asked, why = lost+r.Errors(), asked+int64(r.Requests), failures(r)
	}
	longest := slices.Max(took)
	s.hold("a changed percentile is served", "while the load lasts", slices.Min(took) > 0 && longest < d.Seconds()-2, "after %.1f s at most, up to 1 s of which until the change is seen", longest)
	s.hold(fmt.Sprintf("lost in reloads, of %d requests at %d per second", asked, reloadRate), "none", lost == 0, "%d; last %s", lost, why)
	s.hold("slowest request of 5 s with a reload, against 5 s without", "20 ms more", stats.Median(more) <= 20, "%.1f ms more (%.1f against %.1f; medians of %d)", stats.Median(more), stats.Median(during), stats.Median(quiet), *rounds)
	after := proc.RSS([]int{pid})
	s.hold("memory after them", "1.3 times that before", float64(after) <= 1.3*float64(before), "%d MB, %.2f times the %d MB before (RSS)", after>>20, float64(after)/float64(before), before>>20)
	return nil
}

// change sets the first percentile of some endpoints, and tells how long it takes until another
// generation is served; 0 if none ever is.
func (s *stage) change(h *house, percentile int) time.Duration {
	before, began := s.generation(h), time.Now()
	changed := bytes.Replace(h.first, []byte("trafficPercentile: 10}"), fmt.Appendf(nil, "trafficPercentile: %d}", percentile), 1)
	next := filepath.Join(h.folder, "next")
	if os.WriteFile(next, changed, 0o600) != nil || os.Rename(next, filepath.Join(h.folder, "0.yaml")) != nil || before == "" {
		return 0
	}
	ticks := time.NewTicker(20 * time.Millisecond)
	defer ticks.Stop()
	for time.Since(began) < time.Minute && s.ctx.Err() == nil {
		<-ticks.C
		if now := s.generation(h); now != before && now != "" {
			return time.Since(began)
		}
	}
	return 0
}

// generation is that of which a server's answers are.
func (s *stage) generation(h *house) string {
	q, err := http.NewRequestWithContext(s.ctx, "POST", "http://"+h.Address+ask.Infer("e0"), strings.NewReader("{}"))
	if err != nil {
		return ""
	}
	q.Header.Set("X-Api-Key", local.Key)
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		return ""
	}
	defer r.Body.Close()
	return r.Header.Get("X-Sluice-Generation")
}
