package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"sluice.dev/bench"
	"sluice.dev/bench/ask"
	"sluice.dev/bench/local"
	"sluice.dev/bench/stats"
)

const (
	killRate = 1000 // requests per second
	away     = 500 * time.Millisecond
	back     = time.Second // until the next two are killed
	times    = 10
)

// kill kills two of three scorers at a time under load and brings them back, then
// stops two for a while.
func kill(s *stage) error {
	f, err := s.fleet()
	if err != nil {
		return err
	}
	d := times*(away+back) + back
	r, err := s.under(f, d, func() error { return f.killTwo(s) })
	if err != nil {
		return err
	}
	s.survived(fmt.Sprintf("kill -9 of two of three, %d times", times), r)
	r, err = s.under(f, 6*time.Second, func() error { return f.stopTwo(s) })
	if err != nil {
		return err
	}
	s.survived("SIGSTOP of two of three for 2 s", r)
	after, err := s.open(f.gateway.Address, killRate, 2000, length(), f.gateway.Process.PID(), f.items...)
	if err != nil {
		return err
	}
	s.hold("afterwards", "no error", after.Errors() == 0, "%s of %d, p99 %.1f ms", failures(after), after.Requests, stats.Millis(after.Latency.At(99)))
	return nil
}

// fleet is a gateway and three scorers.
type fleet struct {
	file    string
	gateway *local.Server
	lanes   [3]string
	scorers [3]*local.Process
	items   []bench.Item
}

func (s *stage) fleet() (*fleet, error) {
	model, err := digits()
	if err != nil {
		return nil, err
	}
	f := &fleet{}
	if f.file, err = local.WriteEndpoint(s.dir, "digits", model, ", scoringTimeoutMs: 5000"); err != nil {
		return nil, err
	}
	var flags []string
	for i := range f.lanes {
		f.lanes[i] = "unix://" + filepath.Join(s.dir, fmt.Sprint("lane", i))
		flags = append(flags, "--scorer", f.lanes[i])
		if err := f.start(s, i); err != nil {
			return nil, err
		}
	}
	if f.gateway, err = s.Gateway(s.dir, f.file, flags...); err != nil {
		return nil, err
	}
	for n := range 17 { // different rows, so that an answer to another request is seen
		row := ask.Row{Endpoint: "digits", Input: "input", Width: 64, Key: local.Key, Nth: n}
		item, err := s.taught(f.gateway.Address, row.JSON())
		if err != nil {
			return nil, err
		}
		f.items = append(f.items, item)
	}
	return f, nil
}

func (f *fleet) start(s *stage, i int) (err error) {
	f.scorers[i], err = s.Scorer(f.file, f.lanes[i])
	return err
}

// under runs do one second into a load of d.
func (s *stage) under(f *fleet, d time.Duration, do func() error) (*bench.Result, error) {
	done := make(chan error, 1)
	go func() {
		if err := s.wait(time.Second + back); err != nil { // the warm-up comes first
			done <- err
			return
		}
		done <- do()
	}()
	r, err := s.open(f.gateway.Address, killRate, 8000, d, f.gateway.Process.PID(), f.items...)
	if failed := <-done; err == nil {
		err = failed
	}
	return r, err
}

// wait lets the load go on.
func (s *stage) wait(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

func (f *fleet) killTwo(s *stage) error {
	for n := range times {
		two := []int{n % 3, (n + 1) % 3}
		for _, i := range two {
			f.scorers[i].Kill()
		}
		if err := s.wait(away); err != nil {
			return err
		}
		for _, i := range two {
			if err := f.start(s, i); err != nil {
				return err
			}
		}
		if err := s.wait(back); err != nil {
			return err
		}
	}
	return nil
}

func (f *fleet) stopTwo(s *stage) error {
	for _, p := range f.scorers[:2] {
		p.Signal(syscall.SIGSTOP)
	}
	err := s.wait(2 * time.Second)
	for _, p := range f.scorers[:2] {
		p.Signal(syscall.SIGCONT)
	}
	return err
}

// survived judges a load under which scorers died.
func (s *stage) survived(name string, r *bench.Result) {
	s.tell(name+": requests", "%d at %d per second", r.Requests, killRate)
	s.hold(name+": wrong answers", "none", r.Failed[bench.WrongAnswer] == 0, "%d %s", r.Failed[bench.WrongAnswer], r.Wrong)
	without := r.Failed[bench.TimedOut] + r.Failed[bench.Broken] + r.Failed[bench.NoConnect] + r.Unsent
	s.hold(name+": requests without a status", "none", without == 0, "%d", without)
	var unexplained []string
	for _, kind := range slices.Sorted(maps.Keys(r.Failed)) {
		if why := reasons[kind]; why != "" {
			s.tell(name+": "+kind, "%d, %.2f%%: %s", r.Failed[kind], 100*float64(r.Failed[kind])/float64(r.Requests), why)
			s.note("%s: %s: %s", name, kind, r.Said[kind])
			continue
		}
		unexplained = append(unexplained, kind)
	}
	s.hold(name+": errors of other kinds", "none", len(unexplained) == 0, "%s", strings.Join(append(unexplained, "")[:max(1, len(unexplained))], ", "))
	s.tell(name+": latency of the right answers", "p50 %.2f ms, p99 %.1f ms, longest %.0f ms", stats.Millis(r.Latency.At(50)), stats.Millis(r.Latency.At(99)), stats.Millis(r.Latency.Max()))
}

// reasons are the errors that a dying scorer may cause.
var reasons = map[string]string{
	"status 502": "they were with a scorer that died, and may have begun: only their clients know whether to repeat them",
	"status 503": "they waited for a replica for longer than the queue allows",
	"status 504": "their scorer did not answer within the scoring timeout",
}
