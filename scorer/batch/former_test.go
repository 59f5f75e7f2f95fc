package batch

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
)

// TestFormer runs the scripts in testdata: each line is an event, its output the
// batch that was formed.
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
	former Former
	jobs   map[string]*Job
	names  map[*Job]string
}

// model declares the model of what follows: its limit, and its one input's shape.
func (s *script) model(t *testing.T, d *datadriven.TestData) string {
	var limit int
	var dims []int64
	d.ScanArgs(t, "limit", &limit)
	for _, v := range d.CmdArgs[1].Vals {
		var n int64
		fmt.Sscan(v, &n)
		dims = append(dims, n)
	}
	sig := &tensor.Signature{
		Inputs:  []tensor.Info{{Name: "x", DType: tensor.Float32, Shape: dims}},
		Outputs: []tensor.Info{{Name: "y", DType: tensor.Float32, Shape: []int64{-1}}},
	}
	*s = script{former: NewFormer(sig, limit), jobs: map[string]*Job{}, names: map[*Job]string{}}
	return "ok\n"
}

// do plays one event: add NAME ROWS [WIDTH] [DEADLINE], remove NAME, form [NOW].
func (s *script) do(t *testing.T, words []string) string {
	number := func(i, otherwise int) (n int) {
		if i >= len(words) {
			return otherwise
		}
		if _, err := fmt.Sscan(words[i], &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	switch words[0] {
	case "add":
		j := &Job{Rows: number(2, 1), Deadline: scorer.Instant(number(4, 1000))}
		j.In = []tensor.Tensor{{DType: tensor.Float32, Shape: []int64{int64(j.Rows), int64(number(3, 4))}}}
		s.jobs[words[1]], s.names[j] = j, words[1]
		s.former.Add(j, 1)
	case "remove":
		return fmt.Sprint(s.former.Remove(s.jobs[words[1]]))
	case "form":
		run, late := s.former.Form(scorer.Instant(number(1, 1)), nil, nil)
		return s.describe(run, late)
	}
	return fmt.Sprintf("%d waiting", s.former.Waiting())
}

func (s *script) describe(run []Segment, late []*Job) string {
	var b strings.Builder
	for _, seg := range run {
		fmt.Fprintf(&b, "%s[%d:%d] ", s.names[seg.Job], seg.From, seg.From+seg.Rows)
	}
	for _, j := range late {
		fmt.Fprintf(&b, "late:%s ", s.names[j])
	}
	fmt.Fprintf(&b, "(%d waiting)", s.former.Waiting())
	return b.String()
}

// FuzzFormer plays arbitrary arrivals and holds every batch against the rules.
func FuzzFormer(f *testing.F) {
	f.Add([]byte{1, 2, 3, 0, 0})
	f.Add([]byte{9, 9, 0, 40, 0, 0, 0})
	f.Add([]byte{17, 1, 17, 0, 0})
	f.Fuzz(func(t *testing.T, events []byte) {
		const limit = 8
		sig := &tensor.Signature{
			Inputs:  []tensor.Info{{Shape: []int64{-1, -1}, DType: tensor.Int8}},
			Outputs: []tensor.Info{{Shape: []int64{-1}, DType: tensor.Int8}},
		}
		former := NewFormer(sig, limit)
		var order []*Job // waiting, by arrival
		given := map[*Job]int{}
		form := func() {
			run, _ := former.Form(1, nil, nil)
			if len(order) > 0 && (len(run) == 0 || run[0].Job != order[0]) {
				t.Fatal("the oldest job does not run next")
			}
			rows := 0
			for _, s := range run {
				if s.From != given[s.Job] || s.Rows < 1 || s.Job.In[0].Shape[1] != run[0].Job.In[0].Shape[1] {
					t.Fatalf("segment %+v of a job with %d rows given", s, given[s.Job])
				}
				if s.Rows != s.Job.Rows && s.Job.Rows <= limit {
					t.Fatal("a job that fits was split")
				}
				given[s.Job] += s.Rows
				rows += s.Rows
			}
			if rows > limit {
				t.Fatalf("%d rows in a run of at most %d", rows, limit)
			}
			order = slices.DeleteFunc(order, func(j *Job) bool { return given[j] == j.Rows })
			if former.Waiting() != len(order) {
				t.Fatalf("%d waiting, want %d", former.Waiting(), len(order))
			}
		}
		for _, e := range events {
			if e == 0 {
				form()
				continue
			}
			j := &Job{Rows: 1 + int(e)%19, Deadline: 2}
			j.In = []tensor.Tensor{{Shape: []int64{int64(j.Rows), int64(e) / 64}}}
			former.Add(j, 1)
			order = append(order, j)
		}
		for len(order) > 0 {
			form()
		}
	})
}

func TestFormDoesNotAllocate(t *testing.T) {
	former := NewFormer(sums(-1, 4), 32)
	jobs := make([]Job, 64)
	for i := range jobs {
		jobs[i] = Job{Rows: 1, Deadline: 10}
	}
	run := make([]Segment, 0, 32)
	if n := testing.AllocsPerRun(100, func() {
		for i := range jobs {
			former.Add(&jobs[i], 1)
		}
		for former.Waiting() > 0 {
			run, _ = former.Form(1, run[:0], nil)
		}
	}); n != 0 {
		t.Errorf("%v allocations per 64 jobs", n)
	}
}
