package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/accel"
	"sluice.dev/accel/ort"
	"sluice.dev/accel/ort/library"
	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
	"sluice.dev/scorer/batch"
	"sluice.dev/scorer/model"
)

// subject is a model that is measured.
type subject struct {
	name, path string
	inputs     []input
	rows       int // of the requests that are many at a time; 0 is 1
}

// input is one input of a request, without the rows.
type input struct {
	name, datatype string
	dims           []int64
}

// row is an input's data of one row: small whole numbers.
func (in *input) row() []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	n, _ := tensor.Elements(in.dims)
	var t tensor.DType
	_ = t.UnmarshalText([]byte(in.datatype)) // from the list of subjects
	data := make([]byte, int(n)*t.Size())
	if t == tensor.Float32 {
		for i := 2; i < len(data); i += 4 { // 2 to 8, or 0.5 to 2: exponents around one
			data[i], data[i+1] = byte(rng.IntN(128)), 0x40-byte(rng.IntN(2))
		}
		return data
	}
	for i := 0; i < len(data); i += t.Size() {
		data[i] = byte(1 + rng.IntN(100))
	}
	return data
}

// many is the rows of requests that are many at a time.
func (s *subject) many() int { return max(s.rows, 1) }

// request is rows in the Open Inference Protocol, in binary.
func (s *subject) request(rows int) scorer.Request {
	var inputs []map[string]any
	var tail []byte
	for i := range s.inputs {
		in, data := &s.inputs[i], slices.Repeat(s.inputs[i].row(), rows)
		inputs = append(inputs, map[string]any{
			"name": in.name, "datatype": in.datatype, "shape": append([]int64{int64(rows)}, in.dims...), "parameters": map[string]int{"binary_data_size": len(data)},
		})
		tail = append(tail, data...)
	}
	head, _ := json.Marshal(map[string]any{"inputs": inputs, "parameters": map[string]bool{"binary_data_output": true}}) // of plain values
	return scorer.Request{Kind: scorer.OIP, HeadLength: len(head), Body: append(head, tail...)}
}

// bench opens models, bare and as a scorer does.
type bench struct {
	cpu    *ort.CPU
	slots  int
	memory costs
}

// costs keeps what is learnt from one loading of a model to the next.
type costs map[string][]byte

func (c costs) LoadCosts(name string) ([]byte, error)    { return c[name], nil }
func (c costs) SaveCosts(name string, data []byte) error { c[name] = data; return nil }

func newBench() (*bench, error) {
	lib, err := library.Find(library.Config{})
	if err != nil {
		return nil, err
	}
	cpu, err := ort.NewCPU(ort.Config{Library: lib, Slots: *slots})
	return &bench{cpu: cpu, slots: *slots, memory: costs{}}, err
}

// served is a model behind its queue, set or not.
type served struct {
	*model.Version
	*subject
	set *model.Set
}

// variant is a model with a setting.
type variant struct {
	*subject
	setting
}

// serve loads variants into one process, on the same device. What was learnt of a
// model before, by whatever variant, is known.
func (b *bench) serve(ctx context.Context, list ...variant) (_ []*served, stop func(), err error) {
	set := model.NewSet([]accel.Driver{b.cpu}, nil, slog.New(slog.DiscardHandler))
	set.Keep(b.memory)
	var configs []model.Config
	for i, v := range list {
		c := model.Config{Endpoint: "bench", Version: fmt.Sprint(i), Path: v.path, Accelerator: "cpu"}
		if v.limit > 0 {
			c.MaxBatch, c.Batching = v.limit, &batch.Policy{Fixed: true, Delay: v.delay}
		}
		configs = append(configs, c)
	}
	stage, err := set.Stage(ctx, configs)
	if err != nil {
		set.Close()
		return nil, nil, err
	}
	stage.Commit()
	var all []*served
	for i := range configs {
		all = append(all, &served{stage.Versions()[configs[i].Key()], list[i].subject, set})
	}
	return all, set.Close, nil
}

// bareModel is a model without a queue.
type bareModel struct {
	accel.Instance
	*subject
	slots int
}

func (b *bench) bare(s *subject) (*bareModel, error) {
	inst, err := b.cpu.Open(accel.Model{Name: s.name, Path: s.path}, accel.Options{})
	return &bareModel{inst, s, b.slots}, err
}

// best is the most rows per second of any size, and that size.
func (m *bareModel) best(d time.Duration) (best float64, rows int, err error) {
	falling := 0
	for n := 1; n <= 64 && falling < 2; n *= 2 {
		rate, err := m.loop(n, d)
		if err != nil {
			return 0, 0, err
		}
		if falling++; rate > best {
			best, rows, falling = rate, n, 0
		}
	}
	return best, rows, nil
}

// loop runs n rows over and over on every slot, and returns rows per second.
func (m *bareModel) loop(n int, d time.Duration) (_ float64, err error) {
	calls := make([]accel.Call, m.slots)
	for k := range calls {
		if calls[k], err = m.bind(n); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, calls[k].Close()) }()
	}
	var runs atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, m.slots)
	began := time.Now()
	end := began.Add(d)
	for k, call := range calls {
		wg.Go(func() {
			for first := true; errs[k] == nil && (first || time.Now().Before(end)); first = false {
				errs[k] = call.Run()
				runs.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(n) * float64(runs.Load()) / time.Since(began).Seconds(), errors.Join(errs...)
}

// now runs a row now and then for d, and returns how long the runs took, in order of
// length.
func (m *bareModel) now(d time.Duration) (list []time.Duration, err error) {
	call, err := m.bind(1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, call.Close()) }()
	for end := time.Now().Add(d); err == nil && time.Now().Before(end); time.Sleep(think) {
		began := time.Now()
		err = call.Run()
		list = append(list, time.Since(began))
	}
	slices.Sort(list)
	return list, err
}

// bind prepares runs of n rows.
func (m *bareModel) bind(n int) (accel.Call, error) {
	in := make([]tensor.Tensor, len(m.inputs))
	for i := range m.inputs {
		one := &m.inputs[i]
		in[i] = tensor.Tensor{DType: m.Signature().Inputs[i].DType, Shape: append([]int64{int64(n)}, one.dims...), Data: slices.Repeat(one.row(), n)}
	}
	return m.Bind(in, make([]tensor.Tensor, len(m.Signature().Outputs)))
}

// closed has callers ask again and again for d, and returns rows per second and
// all latencies in order of length. Of a request that is under way when what counts
// begins or ends, as much counts as of its time: large runs are few.
func (v *served) closed(callers, rows int, d, think time.Duration) (float64, []time.Duration, error) {
	var wg sync.WaitGroup
	request := v.request(rows)
	times := make([][]time.Duration, callers)
	errs := make([]error, callers)
	answered := make([]float64, callers)
	began := time.Now()
	warm, end := began.Add(d/4), began.Add(d)
	for k := range callers {
		wg.Go(func() {
			req, resp := request, scorer.Response{}
			req.Wait = scorer.NewWaiter()
			for now := time.Now(); now.Before(end); {
				req.Deadline = scorer.Now().Add(time.Minute)
				if v.Score(&req, &resp); resp.Status != scorer.OK {
					errs[k] = fmt.Errorf("answered %v %s", resp.Status, resp.Body)
					return
				}
				done := time.Now()
				if from, to := later(now, warm), earlier(done, end); to.After(from) {
					answered[k] += float64(to.Sub(from)) / float64(done.Sub(now))
				}
				if now.After(warm) && len(times[k]) < 1<<16 {
					times[k] = append(times[k], done.Sub(now))
				}
				if think > 0 {
					time.Sleep(think)
				}
				now = time.Now()
			}
		})
	}
	wg.Wait()
	all := slices.Concat(times...)
	slices.Sort(all)
	sum := 0.0
	for _, n := range answered {
		sum += n
	}
	return float64(rows) * sum / end.Sub(warm).Seconds(), all, errors.Join(errs...)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// arrival is a request that came by itself, and is answered by whoever runs it.
type arrival struct {
	at    time.Time
	times *latencies
}

type latencies struct {
	mu   sync.Mutex
	list []time.Duration
	left sync.WaitGroup
	bad  int64
	said string // by the first of those
}

func (a *arrival) Begin(interface{ Withdraw() bool }) {}

func (a *arrival) Canceled() bool { return false }
func (a *arrival) Reply(resp *scorer.Response) {
	took := time.Since(a.at)
	a.times.mu.Lock()
	a.times.list = append(a.times.list, took)
	if resp.Status != scorer.OK {
		if a.times.bad++; a.times.bad == 1 {
			a.times.said = string(resp.Body)
		}
	}
	a.times.mu.Unlock()
	a.times.left.Done()
}

// open sends n requests that come by chance, as seed has it, and returns their latencies
// in order of length. The first fifth is not counted.
func (v *served) open(perSecond float64, n int, seed uint64) ([]time.Duration, error) {
	rng := rand.New(rand.NewPCG(seed, 4))
	request := v.request(1)
	early, times := &latencies{}, &latencies{}
	next := time.Now()
	for i := range n {
		next = next.Add(time.Duration(rng.ExpFloat64() / perSecond * 1e9))
		for wait := time.Until(next); wait > 0; wait = time.Until(next) {
			v.set.Start() // as a lane's reader does where nothing more has come
			if wait > 3*time.Millisecond {
				time.Sleep(wait - 2*time.Millisecond)
			}
			runtime.Gosched()
		}
		a := &arrival{at: next, times: times}
		if i < n/5 {
			a.times = early
		}
		a.times.left.Add(1)
		request.Deadline = scorer.Now().Add(time.Minute)
		v.Put(request, a)
	}
	v.set.Start()
	early.left.Wait()
	times.left.Wait()
	slices.Sort(times.list)
	if bad := early.bad + times.bad; bad > 0 {
		return nil, fmt.Errorf("%d requests failed: %s", bad, cmp.Or(early.said, times.said))
	}
	return times.list, nil
}

// p99 is the 99th percentile of times in order of length.
func p99(list []time.Duration) time.Duration {
	if len(list) == 0 {
		return 0
	}
	return list[len(list)*99/100]
}
