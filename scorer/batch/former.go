package batch

import (
	"math"
	"time"

	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
)

// Former is the queue of one model: it decides which waiting jobs run next,
// together, and when. It has no clock, lock or goroutine; one caller at a time.
//
// Rules: the job that is due first runs next, and others of its shape join it in
// that order, up to the size that costs all who wait the least time (see
// forecast). A job is due at its deadline, or a second after it came if that is
// earlier, so that nobody waits for ever; classes and flows take turns before that
// (see turns). A job with more rows than the best size runs in pieces. A job that
// cannot be done in time is handed back unrun. Where the device would be idle
// meanwhile, a batch is formed later only if the next job is near and saves more
// than the wait costs.
type Former struct {
	limit     int  // rows per run, >= 1
	batchable bool // else every job runs alone
	uniform   bool // all jobs have one shape
	slots     int  // of the device, which share the queue
	policy    *Policy
	fixed     bool // by Triton's rule

	shapes   []*shape
	order    heap[shape] // those with waiting jobs, by their first one
	waiting  int         // jobs
	rows     int         // of all waiting jobs, which no run has taken
	arrivals arrivals
	seq      uint64
	turns    turns

	trace trace
}

// horizon bounds how much earlier than an older job a younger one with an earlier
// deadline may run; it is also by how much longer a lower priority waits.
const horizon = time.Second

// Plan is what Form decided. Its memory is used again.
type Plan struct {
	Run  []Segment      // runs now, together
	Late []*Job         // cannot be done in time
	Took time.Duration  // that a run which starts now is expected to take, which is too long for Late
	Wait scorer.Instant // with nothing to run: when to look again, or when a job comes

	shape *shape
	rows  int
	tight int // members that only a smaller run could answer in time
	why   Reason
}

// NewFormer makes the queue of a model with sig, for runs of at most limit rows.
func NewFormer(sig *tensor.Signature, limit int, p *Policy) *Former {
	if p == nil {
		p = &Policy{}
	}
	f := &Former{limit: max(limit, 1), batchable: sig.Batchable(), slots: 1, policy: p, fixed: p.fixed()}
	f.uniform = fixedInside(sig)
	if !f.batchable {
		f.limit = 1
	}
	if f.uniform {
		f.shapes = append(f.shapes, newShape(nil, 0))
	}
	return f
}

// Waiting is how many jobs wait.
func (f *Former) Waiting() int { return f.waiting }

// Full reports whether the policy refuses further jobs.
func (f *Former) Full() bool { return f.policy.MaxWaiting > 0 && f.waiting >= f.policy.MaxWaiting }

// Decided reports whether nobody need be let submit before the next Form: more than half
// of a best run waits, or nobody else is about to come.
func (f *Former) Decided() bool {
	s := f.order.first()
	return f.arrivals.lonely() || s != nil && s.curve.Known() && s.rows > min(s.curve.Best(), f.limit)/2
}

// Add queues j, which arrived at now.
func (f *Former) Add(j *Job, now scorer.Instant) {
	j.reset(now)
	f.bound(j)
	s := f.shapeOf(j)
	f.arrivals.note(now, j.Rows, f.limit)
	if !f.uniform {
		s.arrivals.note(now, j.Rows, f.limit)
	}
	f.seq++
	j.node.owner = j
	j.turn = f.turns.round(j, f.limit)
	j.node.key = key{round: j.turn, due: f.due(j), seq: f.seq}
	f.insert(s, j)
}

// bound finds how long j may wait for a device.
func (f *Former) bound(j *Job) {
	p := f.policy
	j.latest = j.Start
	if p.Timeout > 0 {
		if limit := j.arrived.Add(p.Timeout); !p.Override || j.latest == 0 || limit < j.latest {
			j.latest = limit
		}
	}
	if p.Demote {
		j.demote, j.latest = j.latest, 0
	}
}

// due is when j should run at the latest, as its order goes.
func (f *Former) due(j *Job) scorer.Instant {
	until := j.Deadline
	if j.latest != 0 {
		until = min(until, j.latest)
	}
	due := min(until, j.arrived.Add(horizon))
	return due.Add(time.Duration(f.policy.level(j.Priority)) * horizon)
}

func (f *Former) insert(s *shape, j *Job) {
	j.shape = s
	s.jobs.push(&j.node)
	s.rows += j.Rows - j.taken
	f.rows += j.Rows - j.taken
	f.waiting++
	f.sort(s)
}

// sort puts s where its first job belongs.
func (f *Former) sort(s *shape) {
	first := s.jobs.first()
	if first == nil {
		if s.listed {
			f.order.remove(&s.node)
			s.listed = false
		}
		return
	}
	if s.listed {
		if s.node.key == first.node.key {
			return
		}
		f.order.remove(&s.node)
	}
	s.node.key, s.listed = first.node.key, true
	f.order.push(&s.node)
}

// Remove takes j out of the queue. False means that j is not waiting, or that a
// part of it runs already.
func (f *Former) Remove(j *Job) bool {
	if j.shape == nil || j.taken > 0 {
		return false
	}
	f.unlink(j)
	f.turns.refund(j)
	return true
}

// unlink takes out a job with what rows of it wait.
func (f *Former) unlink(j *Job) {
	s := j.shape
	s.jobs.remove(&j.node)
	s.rows -= j.Rows - j.taken
	f.rows -= j.Rows - j.taken
	f.waiting--
	f.trace.held = f.trace.held && f.waiting > 0
	j.shape = nil
	f.sort(s)
}

// Form decides what runs next on a slot that is free now, while idle others are
// free too and stay so. What it puts into p leaves the queue; a job in pieces leaves
// with its last piece. hurry has it not wait for anybody.
func (f *Former) Form(now scorer.Instant, idle int, hurry bool, p *Plan) {
	p.Run, p.Late, p.Wait, p.Took, p.tight = p.Run[:0], p.Late[:0], 0, 0, 0
	s := f.order.first()
	if s == nil {
		return
	}
	size, wait := f.choose(s, now, idle, hurry, p)
	if wait > 0 {
		p.Wait = wait
		if !f.fixed {
			f.trace.wait()
		}
		return
	}
	f.trace.held = false
	waiting := s.rows
	for _, j := range p.Late {
		waiting += j.Rows // which the policy refuses
	}
	p.shape, p.rows = s, 0
	f.fill(now, size, s.curve.At(1), p)
	if p.tight > 0 && !f.fixed {
		f.settle(now, size, idle, p)
	}
	waiting -= p.rows
	f.join(now, p)
	waiting += p.rows
	if len(p.Run) == 0 {
		p.why = Deadline
	}
	p.Took = p.shape.curve.At(max(p.rows, 1))
	f.trace.add(now, waiting, p)
}

// choose is how many rows of s run next, or until when it is better to wait.
func (f *Former) choose(s *shape, now scorer.Instant, idle int, hurry bool, p *Plan) (size int, wait scorer.Instant) {
	if f.fixed {
		p.why = ByPolicy
		return f.cut(s, now, hurry, p)
	}
	if idle == 0 && !hurry && f.batchable {
		if wait = f.hold(s, now); wait > 0 {
			return 0, wait
		}
	}
	return f.size(s, now, idle, p), 0
}

// cut is what Triton's rule takes of s. Who waited for too long is handed back by
// itself: the others' delay goes on.
func (f *Former) cut(s *shape, now scorer.Instant, hurry bool, p *Plan) (size int, wait scorer.Instant) {
	for j := s.jobs.first(); j != nil && j.taken == 0 && j.latest != 0 && j.latest <= now; j = s.jobs.first() {
		f.unlink(j)
		p.Late = append(p.Late, j)
	}
	if len(p.Late) > 0 {
		return 0, 0
	}
	j := s.jobs.first()
	until := j.arrived.Add(f.policy.Delay)
	if size = f.policy.cut(s.rows, f.limit, hurry || until <= now); size > 0 {
		return size, 0
	}
	if j.latest != 0 && j.taken == 0 {
		until = min(until, j.latest)
	}
	return 0, until
}

// size is how many rows of s are to run next.
func (f *Former) size(s *shape, now scorer.Instant, idle int, p *Plan) int {
	most := min(s.rows, f.limit, s.curve.reach())
	p.why = All
	switch {
	case most < min(s.rows, f.limit):
		p.why = Untried
	case most < s.rows:
		p.why = Limit
	}
	if most == 1 || !s.curve.Known() {
		return most
	}
	c := f.forecast(s, now, idle)
	size := min(most, s.curve.Best())
	if size == most && idle == 0 && c.rate > c.drain {
		return most // of half of what the slots can do nothing is gained by two runs for one
	}
	switch {
	case c.busy():
		size = s.curve.quickest(most)
	case s.curve.try <= most:
		size = s.curve.try
	}
	least := c.clearly() * c.cost(size, s.curve.hoped(size))
	for i := min(cellOf(most)+1, cells-1); i >= 0; i-- {
		n := min(sizeOf(i), most)
		if cost := c.cost(n, s.curve.hoped(n)); cost < least {
			size, least = n, cost
		}
	}
	if size < most {
		p.why = Best
	}
	return size
}

// hold is until when the rows of s that wait do better to wait for more while the
// slot is idle; 0 is not at all.
func (f *Former) hold(s *shape, now scorer.Instant) scorer.Instant {
	room := min(s.curve.Best(), f.limit) - s.rows
	if !s.curve.Known() || room <= 0 {
		return 0
	}
	a := &s.arrivals
	if f.uniform {
		a = &f.arrivals
	}
	p := prospect{forecast: f.forecast(s, now, 0), n: float64(s.rows)}
	wait := a.wait(now, &p, float64(room))
	if wait <= 0 {
		return 0
	}
	until := now.Add(wait)
	j := s.jobs.first()
	if until > j.Deadline.Add(-s.curve.High(s.rows+1)) || j.latest != 0 && until > j.latest {
		return 0
	}
	return until
}

// fill takes jobs of p's shape into a run of size rows, but for those that cannot
// be done within least, which are late.
func (f *Former) fill(now scorer.Instant, size int, least time.Duration, p *Plan) {
	s := p.shape
	took := s.curve.At(size)
	for p.rows < size {
		j := s.jobs.first()
		switch {
		case j == nil:
			return
		case j.taken == 0 && j.tooLate(now, least):
			f.refuse(j, p)
			continue
		case j.demote != 0 && j.demote <= now && j.taken == 0:
			f.demote(j)
			continue
		}
		rows := f.take(j, size-p.rows, p)
		if rows == 0 {
			return // goes first next time
		}
		if j.taken == 0 && j.Deadline < now.Add(took) {
			p.tight++
		}
		f.turns.ran(j, f.limit)
		p.Run = append(p.Run, Segment{Job: j, From: j.taken, Rows: rows})
		p.rows += rows
		f.give(j, rows)
		if !f.batchable {
			return
		}
	}
}

// give hands rows of j to a run.
func (f *Former) give(j *Job, rows int) {
	if j.taken+rows == j.Rows {
		f.unlink(j)
		j.taken = j.Rows
		return
	}
	f.split(j, rows)
}

// split takes rows of a job of which others still wait, or gives them back where they
// are negative: what waits comes in the turn of its first row, so that other flows
// need not wait for all of it.
func (f *Former) split(j *Job, rows int) {
	s := j.shape
	j.taken += rows
	s.rows -= rows
	f.rows -= rows
	if round := j.turn + uint64(j.taken/f.limit); j.Flow != 0 && round != j.node.round {
		s.jobs.remove(&j.node)
		j.node.round = round
		s.jobs.push(&j.node)
		f.sort(s)
	}
}

// refuse hands j back unrun.
func (f *Former) refuse(j *Job, p *Plan) {
	if j.shape != nil {
		f.unlink(j)
	}
	f.turns.refund(j)
	p.Late = append(p.Late, j)
}

// tooLate reports whether a run that takes so long and starts now is too late for j.
func (j *Job) tooLate(now scorer.Instant, took time.Duration) bool {
	return j.Deadline <= now || j.Deadline < now.Add(took) || j.latest != 0 && j.latest <= now
}

// demote puts a job that waited longer than the policy allows behind all others.
func (f *Former) demote(j *Job) {
	s := j.shape
	f.unlink(j)
	j.demote = 0
	j.node.key.due = math.MaxInt64
	f.insert(s, j)
}

// take is how many of j's remaining rows go into a run with room for free rows:
// all of them or none, except for a job that is larger than the best run.
func (f *Former) take(j *Job, free int, p *Plan) int {
	left := j.Rows - j.taken
	switch {
	case !f.batchable || left <= free:
		return left
	case left > f.limit:
		return free
	case p.rows == 0 && p.shape.curve.Known() && left > 2*p.shape.curve.Best() && !f.fixed:
		return p.shape.curve.Best()
	case p.rows == 0:
		return left
	}
	return 0
}

// settle decides about a run whose time is too long for some of its members: it
// is made smaller, if that costs the others less than it is worth to those; else
// those are refused, and others take their place. Not to be done in time counts
// as having waited all the allowed time once more.
func (f *Former) settle(now scorer.Instant, size, idle int, p *Plan) {
	c := f.forecast(p.shape, now, idle)
	c.rows += float64(p.rows) // they have left the queue
	keep, least, rows := 0, math.Inf(1), 0
	for k := range p.Run {
		rows += p.Run[k].Rows
		took := p.shape.curve.at(float64(rows))
		cost := c.cost(rows, took) + p.missed(k, now, took)
		if cost < least {
			keep, least = k+1, cost
		}
	}
	p.why = Deadline
	f.shrink(keep, p)
	took := p.shape.curve.At(p.rows)
	before := p.rows
	kept := p.Run[:0]
	for _, seg := range p.Run {
		if seg.From > 0 || !seg.Job.tooLate(now, took) {
			kept = append(kept, seg)
			continue
		}
		p.rows -= seg.Rows
		f.refuse(seg.Job, p)
	}
	p.Run = kept
	if p.rows < before {
		f.fill(now, min(size, before), took, p)
	}
}

// missed is what it costs that members are not done in time by a run of members 0
// to k, which takes so long, or by the one after it.
func (p *Plan) missed(k int, now scorer.Instant, took float64) (cost float64) {
	next := took + p.shape.curve.at(1)
	for i := range p.Run {
		need := took
		if i > k {
			need = next
		}
		if j := p.Run[i].Job; p.Run[i].From == 0 && j.Deadline < now.Add(time.Duration(need)) {
			cost += float64(j.Deadline.Sub(j.arrived))
		}
	}
	return cost
}

// shrink gives back all but the first n members of a run.
func (f *Former) shrink(n int, p *Plan) {
	for _, seg := range p.Run[n:] {
		j := seg.Job
		p.rows -= seg.Rows
		if j.shape == nil {
			j.taken -= seg.Rows
			f.insert(p.shape, j)
			continue
		}
		f.split(j, -seg.Rows)
	}
	p.Run = p.Run[:n]
}

// Ran tells that a run of rows, of those that p decided, took a slot so long and ended
// now.
func (f *Former) Ran(p *Plan, rows int, took time.Duration, now scorer.Instant) {
	p.shape.curve.Observe(rows, took)
	f.arrivals.ran(now, len(p.Run))
	if !f.uniform {
		p.shape.arrivals.ran(now, len(p.Run))
	}
}

// Share says how many slots of the device take from the queue; 1 if it is not said.
func (f *Former) Share(slots int) { f.slots = max(slots, 1) }
