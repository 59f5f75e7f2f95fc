// Package model keeps the model versions of a process: loaded, warmed up,
// swapped as a set, and closed when the last request has left.
package model

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/accel"
	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
	"sluice.dev/scorer/batch"
	"sluice.dev/scorer/codec"
)

// Auto is the accelerator name that picks the best one that this machine has.
const Auto = "auto"

// preference is the order in which Auto tries the drivers.
var preference = []string{"cuda", "cpu"}

// Config describes one version. Two configurations of equal content are the same
// version, and a reload keeps it.
type Config struct {
	Endpoint    string
	Version     string
	Path        string        // the model's file
	Accelerator string        // a driver's name, or Auto; empty is Auto
	Threads     int           // per run; 0 measures what is best
	MaxBatch    int           // rows per run; 0 measures what is best
	Batching    *batch.Policy // Triton's settings; nil leaves everything to be learnt
	Plan        Plan          // a pointer; nil says nothing beyond the file

	digest string // of the file, "sha256:" and hex; filled in by Stage
}

// Plan is what is said of a model beyond its file. Plans are compared by what they
// hold: a version with another plan is loaded anew.
type Plan interface {
	// Fit holds the model's own signature against the plan. It returns the one that
	// clients see: the same tensors, each with as many elements.
	Fit(own *tensor.Signature) (*tensor.Signature, error)
	// Document is the model's configuration as JSON of Triton's ModelConfig; limit is
	// the most rows of a run.
	Document(seen *tensor.Signature, limit int) json.RawMessage
	// Labels are the classes of an output, by index; nil if they are not known.
	Labels(output string) []string
}

// Key names a version within a process.
type Key struct{ Endpoint, Version string }

// Key is the version's name.
func (c *Config) Key() Key { return Key{c.Endpoint, c.Version} }

// Observer makes the observer of one version's runs; nil observes nothing.
type Observer func(Key) batch.Observer

// Set is the versions of a process. One goroutine at a time stages and closes.
type Set struct {
	// Regions is shared memory that requests may refer to, nil for none. It is set
	// before the first Stage.
	Regions codec.Regions

	drivers  map[string]accel.Driver
	observer Observer
	log      *slog.Logger
	store    Costs

	digests digests
	runners map[string]*batch.Runner        // by driver and device
	started atomic.Pointer[[]*batch.Runner] // all of runners
	current map[Key]*Version
	serving atomic.Pointer[map[Key]*Version] // current, for anybody
	closing sync.WaitGroup
}

// NewSet makes an empty set over drivers.
func NewSet(drivers []accel.Driver, o Observer, log *slog.Logger) *Set {
	s := &Set{
		drivers: map[string]accel.Driver{}, observer: o, log: log,
		digests: digests{}, runners: map[string]*batch.Runner{}, current: map[Key]*Version{},
	}
	for _, d := range drivers {
		s.drivers[d.Name()] = d
	}
	s.started.Store(&[]*batch.Runner{})
	s.serving.Store(&map[Key]*Version{})
	return s
}

// Serving are the versions of the current set, not to be modified. For anybody.
func (s *Set) Serving() map[Key]*Version { return *s.serving.Load() }

// Stage is a set of loaded versions that waits to become the current one.
type Stage struct {
	set      *Set
	versions map[Key]*Version
	loaded   []*Version // those that the current set does not have

	// What many versions have in common is found out once.
	digests map[string]string // by path
	learnt  map[string]costs  // what runs cost, by where it is kept
	drawn   drawn
}

// drawn is the last document of a plan.
type drawn struct {
	plan     Plan
	seen     *tensor.Signature
	limit    int
	document json.RawMessage
}

// Stage loads what configs name and the current set does not have already. An
// error names every version that could not be loaded, and leaves nothing behind.
func (s *Set) Stage(ctx context.Context, configs []Config) (*Stage, error) {
	st := &Stage{set: s, versions: make(map[Key]*Version, len(configs)), digests: map[string]string{}, learnt: map[string]costs{}}
	var errs []error
	for _, c := range configs {
		if err := st.add(ctx, c); err != nil {
			errs = append(errs, fmt.Errorf("endpoint %s, version %s: %w", c.Endpoint, c.Version, err))
		}
	}
	if len(errs) > 0 {
		st.Discard()
		return nil, errors.Join(errs...)
	}
	return st, nil
}

func (st *Stage) add(ctx context.Context, c Config) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.Accelerator == "" {
		c.Accelerator = Auto
	}
	var err error
	if c.digest, err = st.digest(c.Path); err != nil {
		return err
	}
	if v := st.set.current[c.Key()]; v != nil && v.config.same(&c) {
		st.versions[c.Key()] = v
		return nil
	}
	v, err := st.load(c)
	if err != nil {
		return err
	}
	st.versions[c.Key()] = v
	st.loaded = append(st.loaded, v)
	return nil
}

// same reports whether c and d are one version: their content is equal.
func (c *Config) same(d *Config) bool {
	a, b := *c, *d
	if a.Plan != b.Plan || a.Batching != b.Batching { // seldom: whoever reloads mostly has the very same
		return reflect.DeepEqual(a, b)
	}
	a.Plan, b.Plan = nil, nil
	return a == b
}

// digest is that of the file at path, read once in a stage.
func (st *Stage) digest(path string) (text string, err error) {
	if text = st.digests[path]; text == "" {
		text, err = st.set.digests.of(path)
		st.digests[path] = text
	}
	return text, err
}

// load opens one version and warms it up.
func (st *Stage) load(c Config) (*Version, error) {
	s := st.set
	driver, device, err := s.pick(c.Accelerator)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	open := func(threads int) (accel.Instance, error) {
		inst, err := driver.Open(accel.Model{Name: c.Version, Path: c.Path}, accel.Options{Device: device.ID, Threads: threads})
		if err != nil {
			return nil, fmt.Errorf("load %s: %w", c.Path, err)
		}
		if inst, err = fit(inst, c.Plan); err != nil {
			return nil, errors.Join(err, inst.Close())
		}
		return inst, nil
	}
	name := costsKey(c.digest, driver.Name(), device, c.Threads, c.MaxBatch)
	known, again := st.learnt[name]
	if !again {
		known = s.restore(name)
	}
	threads := c.Threads
	if threads == 0 {
		threads = known.Threads // as they were chosen before, and the costs are of
	}
	inst, err := open(threads)
	if err != nil {
		return nil, err
	}
	if err := c.Batching.CheckPad(inst.Signature()); err != nil {
		return nil, errors.Join(fmt.Errorf("load %s: %w", c.Path, err), inst.Close())
	}
	limit, learnt, err := warmUp(inst, c.MaxBatch, slices.Clone(known.Shapes))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("warm up %s: %w", c.Path, err), inst.Close())
	}
	if threads == 0 {
		if inst, threads, err = chooseThreads(inst, open, device.Slots, limit, learnt); err != nil {
			return nil, errors.Join(fmt.Errorf("warm up %s: %w", c.Path, err), inst.Close())
		}
		if threads > 1 && c.MaxBatch == 0 {
			limit = room(learnt[0].Curve)
		}
	}
	st.learnt[name] = costs{threads, slices.Clone(learnt)}
	level := slog.LevelInfo
	if again {
		level = slog.LevelDebug // as another version of this stage
	}
	s.log.Log(context.Background(), level, "model loaded", "endpoint", c.Endpoint, "version", c.Version, "accelerator", driver.Name(),
		"device", device.Name, "max_batch", limit, "threads", threads, "digest", c.digest, "seconds", time.Since(began).Seconds())
	v := s.open(c, driver.Name(), device, inst, st.document(c.Plan, inst.Signature(), limit), batch.Options{Limit: limit, Width: threads, Policy: c.Batching, Learnt: learnt})
	v.kept, v.threads, v.loading = name, threads, time.Since(began)
	return v, nil
}

// pick finds the driver that a configuration names, and its first device.
func (s *Set) pick(name string) (accel.Driver, accel.Device, error) {
	names := []string{name}
	if name == Auto {
		names = preference
	}
	var errs []error
	for _, n := range names {
		d := s.drivers[n]
		if d == nil {
			continue
		}
		devices, err := d.Devices()
		if err == nil && len(devices) > 0 {
			return d, devices[0], nil
		}
		errs = append(errs, fmt.Errorf("accelerator %s: %w", n, err))
	}
	if len(errs) > 0 {
		return nil, accel.Device{}, errors.Join(errs...)
	}
	return nil, accel.Device{}, fmt.Errorf("accelerator %q is not built in; there are: %s", name,
		strings.Join(slices.Sorted(maps.Keys(s.drivers)), ", "))
}

// document is what a plan says of a model; versions of one plan follow each other.
func (st *Stage) document(p Plan, seen *tensor.Signature, limit int) json.RawMessage {
	if p == nil {
		return nil
	}
	if d := &st.drawn; d.plan != p || d.limit != limit || !reflect.DeepEqual(d.seen, seen) {
		*d = drawn{p, seen, limit, p.Document(seen, limit)}
	}
	return st.drawn.document
}

// open puts a loaded model on its device's runner.
func (s *Set) open(c Config, driver string, device accel.Device, inst accel.Instance, document json.RawMessage, o batch.Options) *Version {
	where := driver + "/" + device.ID
	r := s.runners[where]
	if r == nil {
		r = batch.NewRunner(device.Slots)
		s.runners[where] = r
		all := slices.Collect(maps.Values(s.runners))
		s.started.Store(&all)
	}
	if s.observer != nil {
		o.Observer = s.observer(c.Key())
	}
	counts := newTally(o.Observer)
	o.Observer = counts
	reach := codec.Reach{Regions: s.Regions}
	if c.Plan != nil {
		reach.Labels = c.Plan.Labels
	}
	return &Version{
		config: c, inst: inst, device: device, queue: r.Open(inst, o), tally: counts, reach: reach, log: s.log,
		offer: scorer.Offer{
			Endpoint: c.Endpoint, Version: c.Version, Platform: "onnxruntime_onnx", Digest: c.digest,
			// Two batches per run that goes beside others: one that runs, and one that gathers.
			Window: 2 * max(device.Slots/max(o.Width, 1), 1) * o.Limit, Signature: *inst.Signature(), Kinds: scorer.Kinds, Config: document,
		},
	}
}

// Versions are the staged ones.
func (st *Stage) Versions() map[Key]*Version { return st.versions }

// Discard closes what was loaded for nothing.
func (st *Stage) Discard() {
	for _, v := range st.loaded {
		v.close(st.set.log)
	}
}

// Commit makes the stage the current set. Versions that it lacks answer
// Unavailable from now on, finish what they have in the background, and are
// closed.
func (st *Stage) Commit() {
	s := st.set
	old := s.current
	s.current = st.versions
	s.serving.Store(&st.versions)
	var gone []*Version
	for k, v := range old {
		if s.current[k] != v {
			gone = append(gone, v)
		}
	}
	s.save(slices.Values(gone))
	for _, v := range gone {
		s.closing.Go(func() { v.close(s.log) })
	}
}

// Close waits for what runs and frees everything.
func (s *Set) Close() {
	(&Stage{set: s}).Commit()
	s.closing.Wait()
	for _, r := range s.runners {
		r.Close()
	}
}
