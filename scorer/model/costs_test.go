package model

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice.dev/accel"
	"sluice.dev/accel/null"
	"sluice.dev/accel/tensor"
)

// threaded is a device whose runs take as long as their threads say.
type threaded struct {
	null.Driver
	took   map[int]time.Duration // of a run, by threads
	opened []int                 // threads of what was opened
	runs   atomic.Int64
}

func (*threaded) Name() string { return "cpu" }

func (d *threaded) Open(m accel.Model, o accel.Options) (accel.Instance, error) {
	d.opened = append(d.opened, o.Threads)
	inst, err := d.Driver.Open(m, o)
	return threadedInstance{inst, d, d.took[max(o.Threads, 1)]}, err
}

type threadedInstance struct {
	accel.Instance
	device *threaded
	took   time.Duration
}

func (i threadedInstance) Bind(in, out []tensor.Tensor) (accel.Call, error) {
	c, err := i.Instance.Bind(in, out)
	return threadedCall{c, i}, err
}

type threadedCall struct {
	accel.Call
	of threadedInstance
}

func (c threadedCall) Run() error {
	c.of.device.runs.Add(1)
	time.Sleep(c.of.took) // is what a run does
	return c.Call.Run()
}

// memory is a store.
type memory map[string][]byte

func (m memory) LoadCosts(name string) ([]byte, error)    { return m[name], nil }
func (m memory) SaveCosts(name string, data []byte) error { m[name] = data; return nil }

// start loads one model as a new process would, and says what it knows and has tried.
func (m memory) start(t *testing.T, took map[int]time.Duration, path string, threads int) (Explained, *threaded, int, string) {
	t.Helper()
	d := &threaded{took: took}
	var said bytes.Buffer
	s := NewSet([]accel.Driver{d}, nil, slog.New(slog.NewTextHandler(&said, nil)))
	defer s.Close()
	s.Keep(m)
	v := put(t, s, Config{Endpoint: "e", Version: "a", Path: path, Threads: threads})
	return s.Explain()[0], d, v[Key{"e", "a"}].Offer().Window, said.String()
}

// What runs cost is kept of the arrangement that was chosen: after a restart that is
// used again, without another being tried, and nothing is measured but for memory.
func TestThreadsAreChosenOnce(t *testing.T) {
	const short, long = time.Millisecond, 20 * time.Millisecond
	for _, f := range []struct {
		took   map[int]time.Duration
		chosen int
		tried  []int
	}{
		{map[int]time.Duration{1: long, 2: short}, 2, []int{0, 2}},
		{map[int]time.Duration{1: short, 2: long}, 1, []int{0, 2}},
		{map[int]time.Duration{1: 0, 2: 0}, 1, []int{0}}, // too short to gain anything
	} {
		m, path := memory{}, file(t, "a")
		first, d, window, _ := m.start(t, f.took, path, 0)
		if !slices.Equal(d.opened, f.tried) || len(m) != 1 {
			t.Errorf("%v: opened with threads %v; want %v", f.took, d.opened, f.tried)
		}
		again, d, windowAgain, said := m.start(t, f.took, path, 0)
		if !slices.Equal(d.opened, []int{f.chosen}) || d.runs.Load() > warmRuns+1 || !strings.Contains(said, "threads="+string(rune('0'+f.chosen))) {
			t.Errorf("%v: opened again with threads %v, and ran %d times; want %d\n%s", f.took, d.opened, d.runs.Load(), f.chosen, said)
		}
		a, b := first.Shapes[0].Curve, again.Shapes[0].Curve
		if len(a) != len(b) || window != windowAgain || first.Limit != again.Limit {
			t.Errorf("%v: %+v, limit %d, became %+v, limit %d", f.took, a, first.Limit, b, again.Limit)
		}
		for i := range a {
			if a[i].Time != b[i].Time || a[i].Time < f.took[f.chosen] || f.took[f.chosen] == short && a[i].Time > long {
				t.Errorf("%v: %d rows take %v, and after a restart %v", f.took, a[i].Rows, a[i].Time, b[i].Time)
			}
		}
		if _, d, _, _ := m.start(t, f.took, path, 1); !slices.Equal(d.opened, []int{1}) || len(m) != 2 {
			t.Errorf("%v: with one thread set, opened with %v, and %d kept", f.took, d.opened, len(m))
		}
	}
}

func TestCostsThatCannotBeReadAreLearntAnew(t *testing.T) {
	m, path := memory{}, file(t, "a")
	took := map[int]time.Duration{1: 0, 2: 0}
	m.start(t, took, path, 0)
	for name, good := range m {
		for _, bad := range []string{"", "{", `[{"best":1,"curve":[{"rows":1,"nanoseconds":1000,"runs":4}]}]`, `{"shapes":[{"best":1,"curve":[{"rows":1,"nanoseconds":1000,"runs":4}]}]}`} {
			m[name] = []byte(bad)
			_, d, _, said := m.start(t, took, path, 0)
			if !slices.Equal(d.opened, []int{0}) || d.runs.Load() <= warmRuns+1 || strings.Contains(said, "learnt anew") == (bad == "") {
				t.Errorf("%q: opened with threads %v, ran %d times: %s", bad, d.opened, d.runs.Load(), said)
			}
			if len(m[name]) < len(good)/2 {
				t.Errorf("%q: kept %s", bad, m[name])
			}
		}
	}
}
