package load

import (
	"os"
	"time"

	"sluice.dev/bench/proc"
	"sluice.dev/bench/stats"
)

// meter watches over a run: what processes use within the measured time, requests
// that take too long, and progress.
type meter struct {
	run            *run
	server, client time.Duration // CPU time in the measured part
	lost           bool          // the server's is not known: some of its processes ended
	rss            int64         // of the server, at its end
	over           chan struct{}
	done           chan struct{}
}

func startMeter(r *run) *meter {
	m := &meter{run: r, over: make(chan struct{}), done: make(chan struct{})}
	go m.watch()
	return m
}

// stop ends the watch, after which the fields may be read.
func (m *meter) stop() {
	close(m.over)
	<-m.done
}

const tick = 20 * time.Millisecond

func (m *meter) watch() {
	defer close(m.done)
	ticks := time.NewTicker(tick)
	defer ticks.Stop()
	begin, end := time.NewTimer(m.run.plan.WarmUp), time.NewTimer(m.run.end())
	defer begin.Stop()
	defer end.Stop()
	me := []int{os.Getpid()}
	var server proc.Usage // at the beginning
	var client time.Duration
	measuring := false
	take := func() {
		if measuring {
			now := proc.Use(m.run.work.PIDs)
			m.client, m.rss = proc.CPU(me)-client, proc.RSS(now.PIDs())
			m.server, m.lost = now.Since(server)
		}
	}
	for n := 0; ; {
		select {
		case <-m.over: // a closed loop may end just before the timer does
			take()
			return
		case <-begin.C:
			server, client, measuring = proc.Use(m.run.work.PIDs), proc.CPU(me), true
		case <-end.C:
			take()
			measuring = false
		case <-ticks.C:
			m.run.expire()
			if n++; n%25 == 0 && m.run.work.Progress != nil {
				m.run.work.Progress(m.run.progress())
			}
		}
	}
}

// progress is how far the run is.
func (r *run) progress() Progress {
	s, all := r.rec.sum(), stats.Fine()
	for _, v := range s.versions {
		all.Add(v.Latency)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := Progress{At: r.now(), Right: s.allRight, Failed: s.allFailed, P99: all.At(99), Connections: len(r.callers)}
	if r.queue != nil {
		p.Held = r.queue.len()
	}
	return p
}
