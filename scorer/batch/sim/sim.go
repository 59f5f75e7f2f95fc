// Package sim plays arrivals to the very [batch.Former] that serves, in virtual
// time, and to other rules beside it.
package sim

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
	"sluice.dev/scorer/batch"
)

// Rule decides which waiting jobs run next. A batch.Former is one.
type Rule interface {
	Add(j *batch.Job, now scorer.Instant)
	Form(now scorer.Instant, idle int, hurry bool, p *batch.Plan)
	Ran(p *batch.Plan, rows int, took time.Duration, now scorer.Instant)
}

// Device is what runs batches.
type Device struct {
	Slots int                          // runs side by side
	Time  func(rows int) time.Duration // of a run
	Noise float64                      // part by which a run takes longer in the mean, by chance
	Limit int                          // rows of a run
	Learn bool                         // whether rules know Time from the start
}

// Arrival is one request.
type Arrival struct {
	At       time.Duration
	Rows     int
	Deadline time.Duration // after At; 0 is a minute
	Flow     uint32
}

// Load is what arrives: a list, or callers who ask again when they are answered.
type Load struct {
	Arrivals []Arrival
	Callers  int           // closed loop, instead of Arrivals
	Think    time.Duration // of a caller, between answer and request
	Deadline time.Duration // of a caller's requests, after they come; 0 is a minute
	Requests int           // of all callers
	Skip     int           // first requests that are played but not counted
}

// Result is how it went.
type Result struct {
	Mean, P50, P99 time.Duration // latency of those that were answered
	Missed         int           // refused, or answered after their deadline
	Requests       int
	Rate           float64 // rows per second that were answered
	Runs           int
	Overloaded     bool            // more and more waited, so that the latencies depend on how long it was played
	Latencies      []time.Duration // in order of length
	played         int             // rows, those that are not counted included
}

// Sum is the latency of all that were answered.
func (r *Result) Sum() (sum time.Duration) {
	for _, l := range r.Latencies {
		sum += l
	}
	return sum
}

// RowsPerRun is how many requests ran together, in the mean.
func (r *Result) RowsPerRun() float64 { return float64(r.played) / float64(max(r.Runs, 1)) }

// request owns a job. It is told of nothing: the simulation keeps the time.
type request struct {
	job batch.Job
	at  scorer.Instant
	n   int
}

func (*request) Hold(*batch.Job) bool                    { return true }
func (*request) Release(*batch.Job)                      {}
func (*request) Wanted(*batch.Job) bool                  { return true }
func (*request) Done(*batch.Job, []tensor.Tensor, error) {}
func owner(j *batch.Job) *request                        { return j.Owner.(*request) }

// signature is that of a model whose rows have one shape.
var signature = &tensor.Signature{
	Inputs:  []tensor.Info{{Name: "x", DType: tensor.Float32, Shape: []int64{-1, 1}}},
	Outputs: []tensor.Info{{Name: "y", DType: tensor.Float32, Shape: []int64{-1, 1}}},
}

// Ours is the rule that serves where nothing is set, and, with a policy, Triton's.
func Ours(d Device, p *batch.Policy) *batch.Former {
	f := batch.NewFormer(signature, d.Limit, p)
	f.Share(d.Slots)
	if d.Learn {
		f.Restore([]batch.ShapeCosts{{Curve: d.points()}})
	}
	return f
}

// Mean is how long runs take in the mean.
func (d Device) Mean(rows int) time.Duration { return part(d.Time(rows), 1+d.Noise) }

// deviation is the mean absolute deviation of exponential times, of their mean.
const deviation = 2 / math.E

// points are the device's times, as they would have been measured.
func (d Device) points() (list []batch.Point) {
	for n := 1; n <= d.Limit; n *= 2 {
		list = append(list, batch.Point{Rows: n, Time: d.Mean(n), Spread: part(d.Time(n), d.Noise*deviation), Runs: 4})
	}
	return list
}

// run is a batch on a slot.
type run struct {
	ends scorer.Instant
	took time.Duration
	plan batch.Plan
	busy bool
}

// game is a simulation that goes on.
type game struct {
	device Device
	rule   Rule
	load   Load
	rng    *rand.Rand
	now    scorer.Instant
	slots  []run
	wait   scorer.Instant // when the rule wants to be asked again; 0 is when something happens
	pieces map[*request]int
	result Result
	rows   int
	begun  scorer.Instant
	asked  int
	queue  []Arrival // that come, by time
	waits  int       // rows that no run has taken
	least  int       // of them at any time in the second half of what arrives
}

// Play simulates a rule; the seed decides the noise.
func Play(d Device, rule Rule, l Load, seed uint64) Result {
	g := &game{device: d, rule: rule, load: l, rng: rand.New(rand.NewPCG(seed, 1)), now: 1, slots: make([]run, max(d.Slots, 1)), pieces: map[*request]int{}, least: math.MaxInt}
	g.queue = l.Arrivals
	for i := range l.Callers {
		g.queue = append(g.queue, Arrival{At: time.Duration(i) * time.Microsecond, Rows: 1, Deadline: l.Deadline})
	}
	for g.step() {
	}
	return g.end()
}

// step goes to the next thing that happens; false if nothing does any more.
func (g *game) step() bool {
	next := scorer.Instant(math.MaxInt64)
	if len(g.queue) > 0 {
		next = scorer.Instant(g.queue[0].At) + 1
	}
	for i := range g.slots {
		if g.slots[i].busy {
			next = min(next, g.slots[i].ends)
		}
	}
	if g.wait != 0 {
		next = min(next, g.wait)
	}
	if next == math.MaxInt64 {
		return false
	}
	g.now = max(g.now, next)
	for i := range g.slots {
		if s := &g.slots[i]; s.busy && s.ends <= g.now {
			g.finish(s)
		}
	}
	for len(g.queue) > 0 && scorer.Instant(g.queue[0].At)+1 <= g.now {
		g.arrive(g.queue[0])
		g.queue = g.queue[1:]
	}
	g.form()
	if len(g.queue) > 0 && g.asked >= len(g.load.Arrivals)/2 {
		g.least = min(g.least, g.waits)
	}
	return true
}

func (g *game) arrive(a Arrival) {
	if a.Deadline == 0 {
		a.Deadline = time.Minute
	}
	r := &request{at: g.now, n: g.asked}
	r.job = batch.Job{Rows: max(a.Rows, 1), Deadline: g.now.Add(a.Deadline), Flow: a.Flow, Owner: r}
	g.asked++
	g.waits += r.job.Rows
	if r.n == g.load.Skip {
		g.begun = g.now
	}
	g.rule.Add(&r.job, g.now)
}

// form gives free slots what the rule says.
func (g *game) form() {
	g.wait = 0
	idle := 0
	for i := range g.slots {
		if !g.slots[i].busy {
			idle++
		}
	}
	for i := range g.slots {
		s := &g.slots[i]
		if s.busy {
			continue
		}
		for {
			g.rule.Form(g.now, idle-1, false, &s.plan)
			for _, j := range s.plan.Late {
				g.waits -= j.Rows
				g.answer(owner(j), false)
			}
			if len(s.plan.Run) > 0 || len(s.plan.Late) == 0 {
				break
			}
		}
		if s.plan.Wait > g.now {
			g.wait = s.plan.Wait
		}
		if len(s.plan.Run) == 0 {
			return
		}
		idle--
		g.start(s)
	}
}

func (g *game) start(s *run) {
	rows := 0
	for _, seg := range s.plan.Run {
		rows += seg.Rows
	}
	s.took = g.device.Time(rows)
	if g.device.Noise > 0 {
		s.took += time.Duration(g.device.Noise * float64(s.took) * g.rng.ExpFloat64())
	}
	s.ends, s.busy = g.now.Add(s.took), true
	g.result.Runs++
	g.result.played += rows
	g.waits -= rows
}

func (g *game) finish(s *run) {
	rows := 0
	for _, seg := range s.plan.Run {
		rows += seg.Rows
		r := owner(seg.Job)
		g.pieces[r] += seg.Rows
		if g.pieces[r] == seg.Job.Rows {
			delete(g.pieces, r)
			g.answer(r, true)
		}
	}
	s.busy = false
	g.rule.Ran(&s.plan, rows, s.took, g.now)
}

// answer ends a request; a caller asks again.
func (g *game) answer(r *request, served bool) {
	if g.load.Callers > 0 && g.asked+len(g.queue) < g.load.Requests {
		next := Arrival{At: time.Duration(g.now-1) + g.load.Think, Rows: 1, Deadline: g.load.Deadline}
		i, _ := slices.BinarySearchFunc(g.queue, next, func(a, b Arrival) int { return cmp.Compare(a.At, b.At+1) }) // behind its equals
		g.queue = slices.Insert(g.queue, i, next)
	}
	if r.n < g.load.Skip {
		return
	}
	g.result.Requests++
	if !served || g.now > r.job.Deadline {
		g.result.Missed++
		return
	}
	g.rows += r.job.Rows
	g.result.Latencies = append(g.result.Latencies, g.now.Sub(r.at))
}

func (g *game) end() Result {
	r := &g.result
	slices.Sort(r.Latencies)
	r.summarise(g.rows, g.now.Sub(g.begun))
	// A queue that is not growing is now and then no longer than what the slots take at once.
	r.Overloaded = g.load.Callers == 0 && g.least < math.MaxInt && g.least > g.device.Limit*len(g.slots)
	return *r
}

// summarise completes r, whose latencies are sorted, of so many rows that were answered.
func (r *Result) summarise(rows int, span time.Duration) {
	if n := len(r.Latencies); n > 0 {
		r.Mean, r.P50, r.P99 = r.Sum()/time.Duration(n), r.Latencies[n/2], r.Latencies[n*99/100]
		r.Rate = float64(rows) / span.Seconds()
	}
}
