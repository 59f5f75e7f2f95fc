package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
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

// house is a server, and the file that it serves.
type house struct {
	*local.Server
	file string
	list []byte
}

func (s *stage) house(name string, n int) (*house, error) {
	model, err := digits()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "---\napiVersion: sluice.dev/v1alpha1\nkind: Endpoint\nmetadata: {name: e%d}\nspec:\n  auth: {mode: key, keys: {primary: {env: BENCH_KEY}}}\n  versions:\n", i)
		for v := range 6 {
			fmt.Fprintf(&b, "    - {name: v%d, model: %s, accelerator: \"null\", trafficPercentile: %d}\n", v, model, 10+v)
		}
	}
	h := &house{file: filepath.Join(s.dir, name+".yaml"), list: b.Bytes()}
	if err := os.WriteFile(h.file, h.list, 0o600); err != nil {
		return nil, err
	}
	state := filepath.Join(s.dir, name)
	began := time.Now()
	if h.Server, err = s.Sluice(state, h.file); err != nil {
		return nil, err
	}
	s.tell(fmt.Sprintf("%d endpoints of 6 versions: start, memory", n), "%.1f s, %d MB (RSS; %d bytes of YAML)", time.Since(began).Seconds(), proc.RSS([]int{h.Process.PID()})>>20, b.Len())
	return h, nil
}

// lookup compares the CPU time of a request to the only endpoint with that of
// requests to one of many, and to all of them in turn.
func (s *stage) lookup(small, large *house, all []bench.Item) error {
	var one, ofMany, each series
	for range *rounds {
		if err := one.add(s.closed(small.Address, busy, small.Process.PID(), all[0])); err != nil {
			return err
		}
		if err := ofMany.add(s.closed(large.Address, busy, large.Process.PID(), all[len(all)/2])); err != nil {
			return err
		}
		if err := each.add(s.closed(large.Address, busy, large.Process.PID(), all...)); err != nil {
			return err
		}
	}
	s.same(fmt.Sprintf("CPU per request to one of %d, against the only one", len(all)), ofMany.cpu, one.cpu)
	s.same(fmt.Sprintf("CPU per request to all %d in turn, against the only one", len(all)), each.cpu, one.cpu)
	s.hold("errors", "none", one.errors+ofMany.errors+each.errors == 0, "%d", one.errors+ofMany.errors+each.errors)
	return nil
}

const reloadRate = 2000 // requests per second while the specification is reloaded

// reload changes a percentile while requests come at a steady rate.
func (s *stage) reload(large *house, all []bench.Item) error {
	pid, d := large.Process.PID(), 4*length()
	quiet, err := s.open(large.Address, reloadRate, 1000, d, pid, all...)
	if err != nil {
		return err
	}
	served := make(chan time.Duration, 1)
	timer := time.AfterFunc(time.Second+d/4, func() { served <- s.change(large) }) // the warm-up comes first
	during, err := s.open(large.Address, reloadRate, 1000, d, pid, all...)
	if timer.Stop() || err != nil {
		return err
	}
	took := <-served
	s.hold("a changed percentile is served", fmt.Sprintf("within the %v of the load", d*3/4), took > 0 && took < d*3/4, "after %.1f s, up to 1 s of which until the change is seen", took.Seconds())
	s.hold(fmt.Sprintf("lost in a reload, of %d requests at %d per second", during.Requests, reloadRate), "none", during.Errors() == 0, "%s", failures(during))
	p := func(r *bench.Result, percent float64) float64 { return stats.Millis(r.Latency.At(percent)) }
	s.hold("slowest request in a reload", "50 ms", p(during, 100) <= 50, "%.1f ms, p99 %.2f ms; without a reload %.1f ms, p99 %.2f ms", p(during, 100), p(during, 99), p(quiet, 100), p(quiet, 99))
	s.tell("memory after it", "%d MB (RSS)", proc.RSS([]int{pid})>>20)
	return nil
}

// change replaces the specification, and tells how long it takes until another
// generation is served; 0 if none ever is.
func (s *stage) change(h *house) time.Duration {
	before, began := s.generation(h), time.Now()
	changed := bytes.Replace(h.list, []byte("trafficPercentile: 10}"), []byte("trafficPercentile: 11}"), 1)
	next := h.file + ".next"
	if os.WriteFile(next, changed, 0o600) != nil || os.Rename(next, h.file) != nil || before == "" {
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
