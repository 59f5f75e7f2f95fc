package load

import (
	"maps"
	"runtime"
	"sync"
	"time"

	"sluice.dev/bench"
	"sluice.dev/bench/stats"
)

// recorder counts what came back, in shards that callers share a few at a time.
type recorder struct{ shards []*shard }

func newRecorder(plan *bench.Plan, items int) *recorder {
	r := &recorder{make([]*shard, min(runtime.GOMAXPROCS(0), plan.InFlight, 8))}
	for i := range r.shards {
		r.shards[i] = &shard{
			plan: plan, known: make([]map[string]struct{}, items), versions: map[string]*bench.Series{},
			failed: map[string]int64{}, said: map[string]string{}, failing: stats.Fine(),
		}
	}
	return r
}

func (r *recorder) shard(caller int) *shard { return r.shards[caller%len(r.shards)] }

// shard is a part of the counts.
type shard struct {
	plan *bench.Plan

	mu        sync.Mutex
	known     []map[string]struct{}    // by item: bodies that were checked, and right
	kept      int                      // bytes of them
	versions  map[string]*bench.Series // of measured requests
	failing   *stats.Histogram         // likewise
	failed    map[string]int64         // likewise, by kind
	said      map[string]string        // by kind, the start of the first such answer
	wrong     string                   // what was wrong with the first wrong answer
	requests  int64                    // measured ones that came to an end
	inside    int64                    // right answers that came within the measured time, whenever they were due
	answers   int64                    // all answers that did
	allRight  int64                    // all so far
	allFailed int64                    // likewise
}

// Known answers beyond these limits are forgotten, and checked again.
const (
	maxKnown      = 256
	maxKnownBytes = 16 << 20
)

// right records a success, after a check.
func (s *shard) right(r *run, due, now time.Duration, item int, a *bench.Answer) {
	if check := r.work.Items[item].Check; check != nil && !s.knows(item, a.Body) {
		if err := check(a); err != nil {
			s.mu.Lock()
			if s.wrong == "" {
				s.wrong = r.work.Items[item].Name + ": " + err.Error()
			}
			s.mu.Unlock()
			s.failure(due, now, bench.WrongAnswer, a)
			return
		}
		s.learn(item, a.Body)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allRight++
	if now >= s.plan.WarmUp && now <= s.plan.WarmUp+s.plan.Duration {
		s.inside++
		s.answers++
	}
	if due >= s.plan.WarmUp {
		s.requests++
		s.record(s.series(a.Version), due, now-due, a)
	}
}

func (s *shard) knows(item int, body []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.known[item][string(body)]
	return ok
}

func (s *shard) learn(item int, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known[item] == nil || len(s.known[item]) == maxKnown || s.kept > maxKnownBytes {
		for b := range s.known[item] {
			s.kept -= len(b)
		}
		s.known[item] = map[string]struct{}{}
	}
	s.known[item][string(body)] = struct{}{}
	s.kept += len(body)
}

// maxVersions is how many versions are told apart.
const maxVersions = 64

func (s *shard) series(version []byte) *bench.Series {
	if v := s.versions[string(version)]; v != nil {
		return v
	}
	name := string(version)
	if len(s.versions) >= maxVersions {
		name = "(others)"
	}
	v := s.versions[name]
	if v == nil {
		v = bench.NewSeries()
		s.versions[name] = v
	}
	return v
}

func (s *shard) record(v *bench.Series, due, took time.Duration, a *bench.Answer) {
	v.Latency.Record(took)
	slot := min(int((due-s.plan.WarmUp)/s.plan.Slot()), bench.Slots)
	if v.Slots[slot] == nil {
		v.Slots[slot] = stats.Coarse()
	}
	v.Slots[slot].Record(took)
	if !a.Timed {
		return
	}
	if v.Queue.Count() == 0 {
		v.Queue, v.Device = stats.Fine(), stats.Fine()
	}
	v.Queue.Record(a.Queue)
	v.Device.Record(a.Device)
}

// failure records what was not a right answer; a is nil where there was none at all.
func (s *shard) failure(due, now time.Duration, kind string, a *bench.Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allFailed++
	if _, ok := s.said[kind]; !ok && a != nil {
		s.said[kind] = string(a.Body[:min(len(a.Body), maxSaid)])
	}
	if a != nil && now >= s.plan.WarmUp && now <= s.plan.WarmUp+s.plan.Duration {
		s.answers++
	}
	if due < s.plan.WarmUp {
		return
	}
	s.requests++
	s.failed[kind]++
	if a != nil {
		s.failing.Record(now - due)
	}
}

const maxSaid = 300 // bytes

// sum puts the shards together.
func (r *recorder) sum() *shard {
	all := newRecorder(r.shards[0].plan, 0).shards[0]
	for _, s := range r.shards {
		s.mu.Lock()
		for name, v := range s.versions {
			all.series([]byte(name)).Add(v)
		}
		for kind, n := range s.failed {
			all.failed[kind] += n
		}
		maps.Copy(all.said, s.said)
		if all.wrong == "" {
			all.wrong = s.wrong
		}
		all.failing.Add(s.failing)
		all.requests += s.requests
		all.inside += s.inside
		all.answers += s.answers
		all.allRight += s.allRight
		all.allFailed += s.allFailed
		s.mu.Unlock()
	}
	return all
}

// result is what was measured, once all callers have ended.
func (r *run) result(m *meter) *bench.Result {
	s := r.rec.sum()
	res := &bench.Result{
		Elapsed: r.plan.Duration.Seconds(), Requests: s.requests, Rate: float64(s.inside) / r.plan.Duration.Seconds(),
		Failed: s.failed, Said: s.said, Wrong: s.wrong, Latency: stats.Fine(), Failing: s.failing, Versions: s.versions, Slot: r.plan.Slot().Seconds(),
	}
	for _, v := range s.versions {
		res.Latency.Add(v.Latency)
	}
	answers := float64(max(s.answers, 1))
	res.ServerCPU = float64(m.server.Microseconds()) / answers
	res.ServerRSS, res.ServerLost = m.rss, m.lost
	res.Client.CPU = float64(m.client.Microseconds()) / answers
	res.Client.Share = m.client.Seconds() / r.plan.Duration.Seconds() / float64(runtime.GOMAXPROCS(0))
	if q := r.queue; q != nil {
		res.Offered = float64(q.offered) / r.plan.Duration.Seconds()
		res.Requests += q.unsent
		res.Unsent, res.Held = q.unsent, q.held
		res.Client.Late = float64(q.late) / float64(max(q.offered, 1))
		res.Client.Lag = q.lag
	}
	return res
}
