package batch

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
)

// TestFormer runs the scripts in testdata: each line is an event, its output the
// batch that was formed. Times are milliseconds.
func TestFormer(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "model" {
				return s.model(t, d)
			}
			var out strings.Builder
			for line := range strings.Lines(d.Input) {
				fmt.Fprintf(&out, "%s: %s\n", strings.TrimSpace(line), s.do(t, strings.Fields(line)))
			}
			return out.String()
		})
	})
}

type script struct {
	former *Former
	plan   Plan
	jobs   map[string]*Job
	names  map[*Job]string
}

const ms = scorer.Instant(time.Millisecond)

// curve is milliseconds at sizes, such as 1:2,8:3.
func curve(text string) (list []Point) {
	for _, p := range strings.Split(text, ",") {
		var rows int
		var took float64
		if _, err := fmt.Sscanf(p, "%d:%g", &rows, &took); err != nil {
			panic(err)
		}
		list = append(list, Point{Rows: rows, Time: time.Duration(took * 1e6), Runs: 4})
	}
	return list
}

// model declares the model of what follows: its limit, its one input's shape, the
// times of its runs (of every width, where that is free), and its policy.
func (s *script) model(t *testing.T, d *datadriven.TestData) string {
	var limit, slots int
	var dims []int64
	p := &Policy{}
	learnt := []ShapeCosts{{Curve: curve("1:1,64:1")}}
	for _, arg := range d.CmdArgs {
		switch arg.Key {
		case "limit":
			d.ScanArgs(t, "limit", &limit)
		case "slots":
			d.ScanArgs(t, "slots", &slots)
		case "dims":
			for _, v := range arg.Vals {
				var n int64
				fmt.Sscan(v, &n)
				dims = append(dims, n)
			}
		case "curve":
			learnt[0].Curve = curve(strings.Join(arg.Vals, ","))
		case "delay":
			p.Delay = 10 * time.Millisecond
		case "preferred":
			p.Preferred = []int{4, 8}
		case "levels":
			p.Levels, p.DefaultLevel = 3, 2
		case "timeout":
			p.Timeout = 5 * time.Millisecond
		case "override":
			p.Timeout, p.Override = 5*time.Millisecond, true
		case "demote":
			p.Timeout, p.Demote = 5*time.Millisecond, true
		case "pad":
			p.Pad = map[string]float64{"x": 0}
		default:
			t.Fatalf("unknown %s", arg.Key)
		}
	}
	sig := &tensor.Signature{
		Inputs:  []tensor.Info{{Name: "x", DType: tensor.Float32, Shape: dims}},
		Outputs: []tensor.Info{{Name: "y", DType: tensor.Float32, Shape: []int64{-1}}},
	}
	*s = script{former: NewFormer(sig, limit, p), jobs: map[string]*Job{}, names: map[*Job]string{}}
	s.former.slots = max(slots, 1)
	if slices.Contains(dims[1:], -1) {
		width := learnt[0]
		learnt = nil
		for w := range int64(40) {
			learnt = append(learnt, ShapeCosts{Dims: []int64{w + 1}, Curve: width.Curve})
		}
	}
	s.former.Restore(learnt)
	return "ok\n"
}

// do plays one event: add NAME ROWS [width=N] [at=MS] [by=DEADLINE] [class=N] [flow=N]
// [priority=N] [start=MS], remove NAME, form [at=MS].
func (s *script) do(t *testing.T, words []string) string {
	set := map[string]int64{"at": 0, "by": 100_000, "width": 4}
	for _, w := range words[1:] {
		if name, text, ok := strings.Cut(w, "="); ok {
			var n int64
			if _, err := fmt.Sscan(text, &n); err != nil {
				t.Fatal(err)
			}
			set[name] = n
		}
	}
	now := scorer.Instant(set["at"])*ms + 1
	switch words[0] {
	case "add":
		j := &Job{Deadline: scorer.Instant(set["by"])*ms + 1, Class: scorer.Class(set["class"]), Flow: uint32(set["flow"]), Priority: uint32(set["priority"])}
		if start, ok := set["start"]; ok {
			j.Start = scorer.Instant(start)*ms + 1
		}
		fmt.Sscan(words[2], &j.Rows)
		j.In = []tensor.Tensor{{DType: tensor.Float32, Shape: []int64{int64(j.Rows), set["width"]}}}
		s.jobs[words[1]], s.names[j] = j, words[1]
		s.former.Add(j, now)
	case "remove":
		return fmt.Sprint(s.former.Remove(s.jobs[words[1]]))
	case "form":
		s.former.Form(now, 0, false, &s.plan)
		return s.describe(&s.plan)
	}
	return fmt.Sprintf("%d waiting", s.former.Waiting())
}

func (s *script) describe(p *Plan) string {
	var b strings.Builder
	for _, seg := range p.Run {
		fmt.Fprintf(&b, "%s[%d:%d] ", s.names[seg.Job], seg.From, seg.From+seg.Rows)
	}
	for _, j := range p.Late {
		fmt.Fprintf(&b, "late:%s ", s.names[j])
	}
	if p.Wait != 0 {
		fmt.Fprintf(&b, "wait:%v ", time.Duration(p.Wait-1))
	}
	if len(p.Run) > 0 {
		fmt.Fprintf(&b, "%s ", reasons[p.why])
	}
	fmt.Fprintf(&b, "(%d waiting)", s.former.Waiting())
	return b.String()
}

// FuzzFormer plays arbitrary arrivals and runs, and holds every batch against what
// must be true of any rule.
func FuzzFormer(f *testing.F) {
	f.Add([]byte{1, 2, 3, 0, 0}, byte(0))
	f.Add([]byte{9, 9, 0, 40, 0, 0, 0}, byte(1))
	f.Add([]byte{17, 1, 17, 0, 200, 201, 5, 0}, byte(2))
	f.Add([]byte{130, 77, 3, 0, 255, 0, 9, 9, 9, 9, 9, 0, 0}, byte(7))
	f.Fuzz(func(t *testing.T, events []byte, kind byte) {
		const limit = 8
		p := &Policy{}
		if kind&1 != 0 {
			p.Pad = map[string]float64{"": 0}
		}
		if kind&2 != 0 {
			p.Levels, p.Timeout, p.Demote = 3, time.Millisecond, kind&4 != 0
		}
		if kind&8 != 0 {
			p.Preferred, p.Delay = []int{2, 5}, time.Millisecond
		}
		sig := &tensor.Signature{
			Inputs:  []tensor.Info{{Shape: []int64{-1, -1}, DType: tensor.Int8}},
			Outputs: []tensor.Info{{Shape: []int64{-1}, DType: tensor.Int8}},
		}
		former := NewFormer(sig, limit, p)
		given := map[*Job]int{} // rows of those that wait
		now := scorer.Instant(1)
		var plan Plan
		form := func(hurry bool) {
			former.Form(now, 0, hurry, &plan)
			if hurry && len(given) > 0 && len(plan.Run)+len(plan.Late) == 0 {
				t.Fatal("a queue in a hurry does nothing")
			}
			rows := 0
			for _, s := range plan.Run {
				if from, there := given[s.Job]; !there || s.From != from || s.Rows < 1 || s.From+s.Rows > s.Job.Rows {
					t.Fatalf("segment %+v of a job with %d rows given, waiting: %v", s, from, there)
				}
				if p.Pad == nil && s.Job.In[0].Shape[1] != plan.Run[0].Job.In[0].Shape[1] {
					t.Fatal("shapes are mixed")
				}
				given[s.Job] += s.Rows
				rows += s.Rows
				if given[s.Job] == s.Job.Rows {
					delete(given, s.Job)
				}
			}
			for _, j := range plan.Late {
				if from, there := given[j]; !there || from != 0 {
					t.Fatal("refused a job that runs, or does not wait")
				}
				delete(given, j)
			}
			waiting := 0
			for j, n := range given {
				waiting += j.Rows - n
			}
			if rows > limit || former.Waiting() != len(given) || former.rows != waiting {
				t.Fatalf("a run of %d; %d jobs and %d rows waiting, want %d and %d", rows, former.Waiting(), former.rows, len(given), waiting)
			}
			if rows > 0 {
				former.Ran(&plan, rows, time.Duration(100+rows*rows)*time.Microsecond, now)
			}
		}
		for i, e := range events {
			now += scorer.Instant(e) * 1000
			if e%8 == 0 {
				form(false)
				continue
			}
			j := &Job{Rows: 1 + int(e)%19, Deadline: now + scorer.Instant(i%5)*ms, Class: scorer.Class(e/8%8) - 4, Flow: uint32(e % 3), Priority: uint32(e % 4)}
			j.In = []tensor.Tensor{{Shape: []int64{int64(j.Rows), int64(e)/16 + 5}}}
			former.Add(j, now)
			given[j] = 0
		}
		for range 10_000 {
			if len(given) == 0 {
				return
			}
			now += ms
			form(true)
		}
		t.Fatalf("%d jobs wait for ever", len(given))
	})
}

// A heap gives what is in it in order, whatever else was taken out.
func TestHeap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var h heap[Job]
	var all []*Job
	for i := range 2000 {
		if n := len(all); n > 0 && rng.IntN(3) == 0 {
			k := rng.IntN(n)
			h.remove(&all[k].node)
			all = append(all[:k], all[k+1:]...)
			continue
		}
		j := &Job{}
		j.node.owner, j.node.key = j, key{due: scorer.Instant(rng.IntN(50)), seq: uint64(i)}
		h.push(&j.node)
		all = append(all, j)
	}
	slices.SortFunc(all, func(a, b *Job) int {
		if a.node.before(&b.node.key) {
			return -1
		}
		return 1
	})
	for i, want := range all {
		if got := h.first(); got != want {
			t.Fatalf("%d: got %+v; want %+v", i, got.node.key, want.node.key)
		}
		h.remove(h.root)
	}
	if h.first() != nil {
		t.Error("something is left")
	}
}

// A flow that floods does not keep others from running, and those with equal
// demands get equal shares.
func TestFlowsTakeTurns(t *testing.T) {
	f := NewFormer(sums(-1, 4), 4, nil)
	f.Restore([]ShapeCosts{{Curve: curve("1:1,4:1")}})
	add := func(flow uint32, n int) {
		for range n {
			f.Add(&Job{Rows: 1, Flow: flow, Deadline: 1e15}, 1)
		}
	}
	add(1, 400)
	var p Plan
	served := map[uint32]int{}
	form := func(runs int) {
		for range runs {
			f.Form(1, 0, true, &p)
			for _, s := range p.Run {
				served[s.Job.Flow]++
			}
		}
	}
	form(50)
	add(2, 200)
	add(3, 1)
	form(2)
	if served[3] != 1 {
		t.Error("a lone request waits behind a flood")
	}
	served = map[uint32]int{}
	form(40)
	if d := served[1] - served[2]; d < -8 || d > 8 {
		t.Errorf("two floods were served %d and %d", served[1], served[2])
	}
}

// Whatever its flow's number, a lone request does not wait behind a flood.
func TestAFloodIsOnlyInItsOwnWay(t *testing.T) {
	for lone := range uint32(3 * sets) {
		f := NewFormer(sums(-1, 4), 4, nil)
		for i := range 400 {
			f.Add(&Job{Rows: 1, Flow: 1000, Deadline: 1e15}, scorer.Instant(i+1))
		}
		var p Plan
		f.Form(1000, 0, true, &p)
		j := &Job{Rows: 1, Flow: lone + 1, Deadline: 1e15}
		f.Add(j, 1000)
		f.Form(1000, 0, true, &p)
		f.Form(1000, 0, true, &p)
		if j.taken == 0 {
			t.Errorf("flow %d waits behind another's flood", lone+1)
		}
	}
}

// Of a large job, too, others need not wait for more than the run that goes on.
func TestALargeJobIsInTheWayOfItsOwnFlowOnly(t *testing.T) {
	f := NewFormer(sums(-1, 4), 4, nil)
	f.Restore([]ShapeCosts{{Curve: curve("1:1,4:1")}})
	large, next, other := &Job{Rows: 400, Flow: 1, Deadline: 1e15}, &Job{Rows: 1, Flow: 1, Deadline: 1e15}, &Job{Rows: 1, Flow: 2, Deadline: 1e15}
	f.Add(large, 1)
	f.Add(next, 1)
	var p Plan
	f.Form(1, 0, true, &p)
	f.Add(other, 2)
	if f.Form(2, 0, true, &p); other.taken != 1 {
		t.Errorf("another flow's row waits while %d rows of a large job ran", large.taken)
	}
	for large.taken < large.Rows {
		if f.Form(3, 0, true, &p); next.taken == 1 && large.taken < large.Rows {
			t.Errorf("the flow's next job ran after %d of 400 rows", large.taken)
			return
		}
	}
}

// What was given up is not held against its flow.
func TestWhatDidNotRunIsGivenBack(t *testing.T) {
	f := NewFormer(sums(-1, 4), 4, nil)
	late := make([]*Job, 100)
	for i := range late {
		late[i] = &Job{Rows: 1, Flow: 1, Deadline: scorer.Instant(i%2) * 1e15}
		f.Add(late[i], 1)
	}
	for i := 1; i < len(late); i += 2 {
		f.Remove(late[i])
	}
	var p Plan
	if f.Form(2, 0, true, &p); len(p.Late) != len(late)/2 {
		t.Fatalf("%d are late", len(p.Late))
	}
	mine := &Job{Rows: 1, Flow: 1, Deadline: 1e15}
	for range 8 {
		f.Add(&Job{Rows: 1, Flow: 2, Deadline: 1e15}, 3)
	}
	f.Add(mine, 4)
	if f.Form(4, 0, true, &p); len(p.Run) == 0 || mine.node.round != p.Run[0].Job.node.round {
		t.Errorf("who gave up is in round %d, others in %d", mine.node.round, p.Run[0].Job.node.round)
	}
}

// Those of a lower class get their turn while higher ones come without end.
func TestClassesAge(t *testing.T) {
	f := NewFormer(sums(-1, 4), 1, nil)
	low := &Job{Rows: 1, Class: -1, Flow: 1, Deadline: 1e15}
	f.Add(low, 1)
	var p Plan
	for runs := range 4 * overtaking {
		f.Add(&Job{Rows: 1, Class: 1, Flow: 2, Deadline: 1e15}, 1)
		if f.Form(1, 0, true, &p); p.Run[0].Job == low {
			if runs < overtaking {
				t.Errorf("overtaken only %d times", runs)
			}
			return
		}
	}
	t.Error("a low one waits for ever")
}

// Who is left alone by a crowd of callers is not held for others who do not come.
func TestACrowdThatLeftIsNotWaitedFor(t *testing.T) {
	f := NewFormer(sums(-1, 4), 64, nil)
	f.Restore([]ShapeCosts{{Curve: curve("1:0.6,8:1,64:5")}})
	now, rng := scorer.Instant(1), rand.New(rand.NewPCG(1, 2))
	serve := func(callers, runs int) (held time.Duration) {
		var p Plan
		for range runs {
			for range callers {
				now = now.Add(time.Duration(rng.IntN(100_000)))
				f.Add(&Job{Rows: 1, Deadline: 1e15}, now)
			}
			for f.Waiting() > 0 {
				if f.Form(now, 0, false, &p); p.Wait != 0 {
					held += p.Wait.Sub(now)
					now = p.Wait
					continue
				}
				took := f.shapes[0].curve.At(p.rows)
				now = now.Add(took)
				f.Ran(&p, p.rows, took, now)
			}
		}
		return held
	}
	serve(64, 100)
	if serve(1, 10) == 0 { // until it is noticed
		t.Error("nobody is ever waited for: this test shows nothing")
	}
	if held := serve(1, 100); held > 0 {
		t.Errorf("100 requests one by one are held for %v in sum", held)
	}
}

// What is left of a request that has begun waits for others as long as any, though it
// might not begin any more.
func TestARequestThatHasBegunDoesNotExpire(t *testing.T) {
	f := NewFormer(sums(-1, 4), 4, &Policy{Delay: 100 * time.Millisecond, Timeout: 10 * time.Millisecond})
	var p Plan
	f.Add(&Job{Rows: 6, Deadline: 1e18}, 1)
	if f.Form(1, 0, false, &p); p.rows != 4 {
		t.Fatalf("%d rows run", p.rows)
	}
	now := scorer.Instant(1).Add(20 * time.Millisecond)
	if f.Form(now, 0, false, &p); len(p.Late) > 0 || p.Wait != scorer.Instant(1).Add(100*time.Millisecond) {
		t.Errorf("at %v: waits until %v, %d are late", now, p.Wait, len(p.Late))
	}
}

func BenchmarkForm(b *testing.B) {
	for _, c := range []struct{ name, curve string }{{"batch", "1:0.5,64:5"}, {"single", "1:0.5,64:40"}} {
		b.Run(c.name, func(b *testing.B) {
			const waiting = 1000
			f := NewFormer(sums(-1, 4), 64, nil)
			f.Restore([]ShapeCosts{{Curve: curve(c.curve)}})
			jobs := make([]Job, waiting)
			now := scorer.Instant(1)
			for i := range jobs {
				jobs[i] = Job{Rows: 1, Flow: uint32(i % 7), Deadline: 1e18}
				f.Add(&jobs[i], now)
			}
			var p Plan
			b.ReportAllocs()
			b.ResetTimer()
			for done := 0; done < b.N; {
				now += 1000
				f.Form(now, 0, true, &p)
				f.Ran(&p, p.rows, p.Took, now)
				for _, s := range p.Run {
					f.Add(s.Job, now)
				}
				done += len(p.Run)
			}
		})
	}
}

func TestFormDoesNotAllocate(t *testing.T) {
	former := NewFormer(sums(-1, 4), 32, nil)
	jobs := make([]Job, 64)
	for i := range jobs {
		jobs[i] = Job{Rows: 1, Deadline: 1e9, Flow: uint32(i)}
	}
	var p Plan
	round := func() {
		for i := range jobs {
			former.Add(&jobs[i], 1)
		}
		for former.Waiting() > 0 {
			former.Form(1, 0, true, &p)
			former.Ran(&p, p.rows, 1000, 1)
		}
	}
	round()
	if n := testing.AllocsPerRun(100, round); n != 0 {
		t.Errorf("%v allocations per 64 jobs", n)
	}
}
