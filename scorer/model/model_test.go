package model

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice.dev/accel"
	"sluice.dev/accel/null"
	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
	"sluice.dev/scorer/batch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// device is the null driver with a gate, of which a run takes a token.
type device struct {
	null.Driver
	gate   chan struct{}
	fail   error       // of Open
	broken atomic.Bool // every run fails
	open   atomic.Int64
	inside atomic.Int64
}

func (d *device) Name() string { return "cpu" }

func (d *device) Open(m accel.Model, o accel.Options) (accel.Instance, error) {
	if d.fail != nil {
		return nil, d.fail
	}
	inst, err := d.Driver.Open(m, o)
	d.open.Add(1)
	return instance{inst, d}, err
}

type instance struct {
	accel.Instance
	device *device
}

func (i instance) Bind(in, out []tensor.Tensor) (accel.Call, error) {
	c, err := i.Instance.Bind(in, out)
	return call{c, i.device}, err
}

func (i instance) Close() error { i.device.open.Add(-1); return i.Instance.Close() }

type call struct {
	accel.Call
	device *device
}

func (c call) Run() error {
	d := c.device
	d.inside.Add(1)
	defer d.inside.Add(-1)
	if d.gate != nil {
		<-d.gate
	}
	if d.broken.Load() {
		return errors.New("out of order")
	}
	return c.Call.Run()
}

// file makes a model's file.
func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.onnx")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newTestSet(t *testing.T, d *device) *Set {
	s := NewSet([]accel.Driver{d}, nil, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		s.Close()
		if n := d.open.Load(); n != 0 {
			t.Errorf("%d models are still open", n)
		}
	})
	return s
}

// put makes configs the current set.
func put(t *testing.T, s *Set, configs ...Config) map[Key]*Version {
	t.Helper()
	st, err := s.Stage(context.Background(), configs)
	if err != nil {
		t.Fatal(err)
	}
	st.Commit()
	return st.Versions()
}

// single is a set of one version, of which a run has at most limit rows.
func single(t *testing.T, d *device, limit int) (*Set, *Version) {
	t.Helper()
	s := newTestSet(t, d)
	c := Config{Endpoint: "e", Version: "a", Path: file(t, "a"), MaxBatch: limit}
	return s, put(t, s, c)[c.Key()]
}

func request(timeout time.Duration) *scorer.Request {
	zeros := strings.TrimSuffix(strings.Repeat("0,", 64), ",")
	return &scorer.Request{
		Kind: scorer.OIP, Body: []byte(`{"inputs":[{"name":"input","shape":[1,64],"datatype":"FP32","data":[` + zeros + `]}]}`),
		Deadline: scorer.Now().Add(timeout), Wait: scorer.NewWaiter(),
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(100 * time.Microsecond) { // polls other goroutines
		if time.Now().After(end) {
			t.Fatalf("never %s", what)
		}
	}
}

func TestAReloadKeepsWhatIsTheSameAndClosesTheRest(t *testing.T) {
	d := &device{}
	s := newTestSet(t, d)
	a := Config{Endpoint: "e", Version: "a", Path: file(t, "a"), MaxBatch: 4}
	b := Config{Endpoint: "e", Version: "b", Path: file(t, "b"), MaxBatch: 4}
	first := put(t, s, a, b)
	second := put(t, s, a, b)
	if first[a.Key()] != second[a.Key()] || d.open.Load() != 2 {
		t.Error("a reload without a change loaded a model again")
	}
	// Another content under the same path is another model.
	if err := os.WriteFile(a.Path, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	third := put(t, s, a)
	if third[a.Key()] == first[a.Key()] || third[a.Key()].Offer().Digest == first[a.Key()].Offer().Digest {
		t.Error("a changed file was not loaded")
	}
	until(t, "closed", func() bool { return d.open.Load() == 1 })
	var resp scorer.Response
	if first[b.Key()].Score(request(time.Minute), &resp); resp.Status != scorer.Unavailable || !resp.NotStarted {
		t.Errorf("a replaced version answered %v %s, not started: %v", resp.Status, resp.Body, resp.NotStarted)
	}
}

func TestAClosedVersionFinishesWhatItHas(t *testing.T) {
	d := &device{}
	s, v := single(t, d, 1)
	d.gate = make(chan struct{})
	var answers sync.WaitGroup
	responses := make([]scorer.Response, 5)
	for i := range responses {
		answers.Go(func() { v.Score(request(time.Minute), &responses[i]) })
	}
	until(t, "busy", func() bool { return d.inside.Load() == 2 && v.Waiting() == 3 })
	put(t, s) // nothing is offered any more
	close(d.gate)
	answers.Wait()
	for i := range responses {
		if responses[i].Status != scorer.OK {
			t.Errorf("request %d: %v %s", i, responses[i].Status, responses[i].Body)
		}
	}
}

// The rows of one request are copied by several workers at a time.
func TestALargeRequestRunsOnAllSlotsTogether(t *testing.T) {
	_, v := single(t, &device{}, 64)
	const rows = 64 << 10
	head := fmt.Sprintf(`{"inputs":[{"name":"input","shape":[%d,64],"datatype":"FP32","parameters":{"binary_data_size":%d}}]}`, rows, rows*256)
	req := request(time.Minute)
	req.HeadLength, req.Body = len(head), append([]byte(head), make([]byte, rows*256)...)
	for range 10 {
		var resp scorer.Response
		if v.Score(req, &resp); resp.Status != scorer.OK || resp.Rows != rows {
			t.Fatalf("answered %v %.100s", resp.Status, resp.Body)
		}
	}
}

func TestWhatCannotBeLoadedIsNamedAndLeavesNothing(t *testing.T) {
	d := &device{}
	s := newTestSet(t, d)
	good := Config{Endpoint: "e", Version: "good", Path: file(t, "a"), MaxBatch: 1}
	_, err := s.Stage(context.Background(), []Config{good,
		{Endpoint: "e", Version: "none", Path: "/nowhere/m.onnx"},
		{Endpoint: "e", Version: "gpu", Path: good.Path, Accelerator: "tpu"},
	})
	for _, want := range []string{"endpoint e, version none: open model", `endpoint e, version gpu: accelerator "tpu" is not built in; there are: cpu`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v; want %q", err, want)
		}
	}
	if n := d.open.Load(); n != 0 {
		t.Errorf("%d models are open after a failed stage", n)
	}
	d.fail = fmt.Errorf("%w: no library", accel.ErrUnavailable)
	if _, err := s.Stage(context.Background(), []Config{good}); err == nil || !strings.Contains(err.Error(), "no library") {
		t.Errorf("got %v", err)
	}
}

func TestARunHasRoomForTwiceTheBestSize(t *testing.T) {
	f := func(name string, want, most int, run func(rows int) time.Duration) {
		t.Helper()
		points, err := search(maxAutoBatch, func(rows int) (batch.Point, error) {
			return batch.Point{Rows: rows, Time: run(rows)}, nil
		})
		if got, tried := room(points), points[len(points)-1].Rows; got != want || tried != most || err != nil {
			t.Errorf("%s: %d rows after trying %d, %v; want %d after %d", name, got, tried, err, want, most)
		}
	}
	const ms = time.Millisecond
	f("a run costs what its rows cost", 2, maxAutoBatch, func(n int) time.Duration { return time.Duration(n) * ms })
	f("rows cost nothing", maxAutoBatch, maxAutoBatch, func(int) time.Duration { return ms })
	f("rows cost little", maxAutoBatch, maxAutoBatch, func(n int) time.Duration { return ms + time.Duration(n)*ms/40 })
	f("four rows fit the cache", 8, 16, func(n int) time.Duration { return max(ms, time.Duration(n)*ms/4) + time.Duration(n/8)*ms })
	f("the budget ends it", 2, 1, func(int) time.Duration { return 5 * time.Second })
	if _, err := search(8, func(int) (batch.Point, error) { return batch.Point{}, accel.ErrUnavailable }); err == nil {
		t.Error("an error of the model is lost")
	}
}

func TestWhoLeavesDoesNotWaitForTheDevice(t *testing.T) {
	d := &device{}
	_, v := single(t, d, 1)
	d.gate = make(chan struct{})
	leave := func(req *scorer.Request) (resp scorer.Response) {
		done, before := make(chan struct{}), req.Wait.Current()
		go func() { v.Score(req, &resp); close(done) }()
		until(t, "abandoned", func() bool { return req.Wait.Current() != before && req.Wait.Abandon() })
		<-done
		return resp
	}
	for i := range 4 { // two run, two wait
		if resp := leave(request(time.Minute)); resp.Status != scorer.Canceled {
			t.Errorf("request %d: %v %s", i, resp.Status, resp.Body)
		}
	}
	if resp := leave(request(-time.Second)); resp.Status != scorer.DeadlineExceeded {
		t.Errorf("too late: %v %s", resp.Status, resp.Body)
	}
	close(d.gate)
	var resp scorer.Response
	if v.Score(request(time.Minute), &resp); resp.Status != scorer.OK {
		t.Errorf("afterwards: %v %s", resp.Status, resp.Body)
	}
}

// A request may say how long it waits for a device.
func TestATimeoutBoundsTheWaitForTheDevice(t *testing.T) {
	d := &device{}
	_, v := single(t, d, 1)
	d.gate = make(chan struct{})
	var all sync.WaitGroup
	ask := func(parameters string) *scorer.Response {
		req, resp := request(time.Minute), &scorer.Response{}
		req.Body = append([]byte(`{"parameters":{`+parameters+`},`), req.Body[1:]...)
		all.Go(func() { v.Score(req, resp) })
		return resp
	}
	busy := []*scorer.Response{ask(""), ask(`"timeout":60000000`)}
	until(t, "busy", func() bool { return d.inside.Load() == 2 })
	late, patient, endless, bad := ask(`"timeout":1`), ask(`"timeout":18446744073709551615`), ask(`"timeout":0`), ask(`"timeout":-1`)
	until(t, "waiting", func() bool { return v.Waiting() == 3 })
	close(d.gate)
	all.Wait()
	for _, resp := range append(busy, patient, endless) {
		if resp.Status != scorer.OK {
			t.Errorf("answered %v %s", resp.Status, resp.Body)
		}
	}
	if late.Status != scorer.DeadlineExceeded {
		t.Errorf("a request that waits for a microsecond: %v %s", late.Status, late.Body)
	}
	if bad.Status != scorer.InvalidArgument || !strings.Contains(string(bad.Body), "'timeout'") {
		t.Errorf("a negative timeout: %v %s", bad.Status, bad.Body)
	}
}

// reply keeps the answer to a request beyond a wire.
type reply struct {
	work interface{ Withdraw() bool }
	gone atomic.Bool
	got  chan scorer.Response
}

func (r *reply) Begin(w interface{ Withdraw() bool }) { r.work = w }
func (r *reply) Canceled() bool                       { return r.gone.Load() }
func (r *reply) Reply(resp *scorer.Response) {
	kept := *resp
	kept.Body = bytes.Clone(resp.Body)
	r.got <- kept
}

func TestBeyondAWireTheAnswersAreTheSame(t *testing.T) {
	s, v := single(t, &device{}, 4)
	large := request(time.Minute)
	large.Body = append(large.Body, bytes.Repeat([]byte(" "), inlineBody)...)
	broken := request(time.Minute)
	broken.Body = broken.Body[:9]
	for _, req := range []*scorer.Request{request(time.Minute), large, broken, request(-time.Second)} {
		r := &reply{got: make(chan scorer.Response, 2)}
		v.Put(*req, r)
		s.Start()
		got := <-r.got
		var want scorer.Response
		v.Score(req, &want)
		if got.Status != want.Status || !bytes.Equal(got.Body, want.Body) || got.NotStarted != want.NotStarted {
			t.Errorf("answered %v %s; locally %v %s", got.Status, got.Body, want.Status, want.Body)
		}
	}
	r := &reply{got: make(chan scorer.Response, 1)}
	r.gone.Store(true)
	v.Put(*request(time.Minute), r)
	s.Start()
	if got := <-r.got; got.Status != scorer.Canceled {
		t.Errorf("a request that nobody waits for: %v", got.Status)
	}
}

// Who leaves beyond a wire leaves the queue at once, and hears nothing; what runs goes on.
func TestARequestBeyondAWireIsWithdrawn(t *testing.T) {
	d := &device{}
	s, v := single(t, d, 1)
	d.gate = make(chan struct{})
	var all []*reply
	for range 4 { // two run, two wait
		r := &reply{got: make(chan scorer.Response, 1)}
		all = append(all, r)
		v.Put(*request(time.Minute), r)
		s.Start()
	}
	until(t, "busy", func() bool { return d.inside.Load() == 2 && v.Waiting() == 2 })
	withdrawn := 0
	for _, r := range all {
		if r.work.Withdraw() {
			withdrawn++
			r.got <- scorer.Response{Status: scorer.Canceled} // blocks where there was a Reply
		}
	}
	if withdrawn != 2 || v.Waiting() != 0 {
		t.Errorf("%d were withdrawn, %d wait", withdrawn, v.Waiting())
	}
	close(d.gate)
	answered := map[scorer.Status]int{}
	for _, r := range all {
		answered[(<-r.got).Status]++
	}
	if got := v.Statistics().Failures[scorer.FailureCanceled]; answered[scorer.OK] != 2 || got != 2 {
		t.Errorf("answered %v; %d are counted as cancelled", answered, got)
	}
}

// A model's failure is written down by the names that a client knows its request by,
// not once per request.
func TestFailuresAreWrittenDown(t *testing.T) {
	d := &device{}
	s, v := single(t, d, 1)
	var out bytes.Buffer
	v.log = slog.New(slog.NewJSONHandler(&out, nil))
	d.broken.Store(true)
	req := request(time.Minute)
	req.ID, req.State, req.Trace = []byte("17"), []byte("a=b"), scorer.Trace{TraceID: [16]byte{0xab}, SpanID: [8]byte{0xcd}}
	var resp scorer.Response
	for range 3 {
		if v.Score(req, &resp); resp.Status != scorer.ModelFailed {
			t.Fatalf("answered %v %s", resp.Status, resp.Body)
		}
	}
	wants := func(unsaid float64) {
		t.Helper()
		var got map[string]any
		if err := json.Unmarshal(out.Bytes(), &got); err != nil { // one line
			t.Fatal(err, out.String())
		}
		for key, want := range map[string]any{
			"level": "WARN", "msg": "request failed", "endpoint": "e", "version": "a", "error": "the model failed: out of order", "request_id": "17",
			"trace_id": "ab000000000000000000000000000000", "parent_id": "cd00000000000000", "trace_state": "a=b", "others_unsaid": unsaid,
		} {
			if got[key] != want {
				t.Errorf("%s is %v; want %v", key, got[key], want)
			}
		}
	}
	wants(0)
	out.Reset()
	v.failures.next.Store(0) // later
	r := &reply{got: make(chan scorer.Response, 1)}
	v.Put(*req, r)
	s.Start()
	<-r.got
	wants(2)
	wrong := request(time.Minute)
	wrong.Body = []byte("{}")
	out.Reset()
	v.failures.next.Store(0)
	if v.Score(wrong, &resp); out.Len() > 0 {
		t.Errorf("a client's mistake is written down: %s", out.String())
	}
}

func TestStatisticsAreExact(t *testing.T) {
	d := &device{}
	_, v := single(t, d, 2)
	ask := func(req *scorer.Request) scorer.Status {
		var resp scorer.Response
		v.Score(req, &resp)
		return resp.Status
	}
	for range 3 {
		ask(request(time.Minute))
	}
	ask(request(-time.Second)) // too late
	wrong := request(time.Minute)
	wrong.Body = []byte("{}")
	ask(wrong)
	large := request(time.Minute) // of five rows, in three runs
	large.Kind, large.Body = scorer.AML, fmt.Appendf(nil, `{"data":[%s]}`, strings.TrimSuffix(strings.Repeat("["+strings.TrimSuffix(strings.Repeat("0,", 64), ",")+"],", 5), ","))
	if got := ask(large); got != scorer.OK {
		t.Fatal(got)
	}
	until(t, "counted", func() bool { return v.Statistics().Executions == 6 })
	s := v.Statistics()
	r := &s.Requests
	for name, got := range map[string]scorer.Total{"success": r.Success, "queue": r.Queue, "input": r.Input, "infer": r.Infer, "output": r.Output} {
		if got.Count != 4 || got.Nanos == 0 {
			t.Errorf("%s is %+v; want 4, and a time", name, got)
		}
	}
	if s.Inferences != 8 || r.Fail.Count != 1 || s.Failures != [scorer.FailureReasons]uint64{scorer.FailureRejected: 1} {
		t.Errorf("%d inferences, failed %+v %v", s.Inferences, r.Fail, s.Failures)
	}
	if sum := r.Queue.Nanos + r.Input.Nanos + r.Infer.Nanos + r.Output.Nanos; sum > r.Success.Nanos {
		t.Errorf("the parts sum to %d ns, more than the %d of the whole", sum, r.Success.Nanos)
	}
	if now := time.Now().UnixMilli(); s.LastInference > now || s.LastInference < now-60_000 {
		t.Errorf("last inference at %d, now %d", s.LastInference, now)
	}
	if len(s.Batches) != 2 || s.Batches[0].Rows != 1 || s.Batches[0].Infer.Count != 4 || s.Batches[1].Rows != 2 || s.Batches[1].Infer.Count != 2 {
		t.Errorf("batches %+v", s.Batches)
	}
	var resp scorer.Response
	v.Score(&scorer.Request{Kind: scorer.Stats}, &resp)
	var told scorer.Statistics
	if err := json.Unmarshal(resp.Body, &told); err != nil || told.Inferences != 8 {
		t.Errorf("told %s: %v", resp.Body, err)
	}
	told.Merge(&s)
	if told.Inferences != 16 || len(told.Batches) != 2 || told.Batches[1].Output.Count != 4 || told.Requests.Fail.Count != 2 {
		t.Errorf("merged to %+v", told)
	}
}

// A run is counted once, whatever it costs to count it.
func TestCountingDoesNotAllocate(t *testing.T) {
	c := newTally(nil)
	c.Ran(batch.Run{Rows: 8, Jobs: 8, Ended: 8})
	if n := testing.AllocsPerRun(100, func() { c.Ran(batch.Run{Rows: 8, Jobs: 8, Ended: 8}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestDimensionsBecomeTheModelsOwn(t *testing.T) {
	f := func(shape, want []int64, batched bool, out ...int64) {
		t.Helper()
		if got := resize([]int64{9}, shape, want, batched)[1:]; !slices.Equal(got, out) {
			t.Errorf("%v as %v, batched: %v, is %v; want %v", shape, want, batched, got, out)
		}
	}
	f([]int64{5, 8, 8}, []int64{-1, 64}, true, 5, 64)
	f([]int64{5, 64}, []int64{-1, 8, 8}, true, 5, 8, 8)
	f([]int64{5, 2, 6}, []int64{-1, -1, 3}, true, 5, 4, 3)
	f([]int64{2, 2, 5}, []int64{-1, 4}, false, 5, 4)
	f([]int64{5, 1}, []int64{-1}, true, 5)
	f([]int64{1}, []int64{}, false)
	f([]int64{0, 8}, []int64{-1, 2, 4}, true, 0, 2, 4)
}

func BenchmarkCount(b *testing.B) {
	c := newTally(nil)
	for b.Loop() {
		c.Ran(batch.Run{Rows: 8, Jobs: 8, Ended: 8, Queue: 1, Input: 1, Infer: 1, Output: 1})
	}
}
