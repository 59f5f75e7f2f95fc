package serve

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"sluice.dev/accel"
	"sluice.dev/accel/null"
	"sluice.dev/accel/ort"
	"sluice.dev/accel/ort/library"
	"sluice.dev/accel/sim"
	"sluice.dev/deploy/repository"
	"sluice.dev/deploy/spec"
	"sluice.dev/gateway"
	"sluice.dev/scorer/model"
)

// Sluice serves the endpoints of o.File in this process, gateway and scorer in
// one, until ctx ends.
func Sluice(ctx context.Context, o Options) error {
	f, err := newFront(o)
	if err != nil {
		return err
	}
	set, err := newSet(o, f.registry)
	if err != nil {
		return err
	}
	defer set.Close()
	set.Keep(f.state)
	defer keepCosts(set)()
	f.explain = set.Explain
	if f.memory != nil {
		set.Regions = f.memory
		defer f.memory.Close()
	}
	if o.NVMetrics {
		f.registry.MustRegister(nvMetrics{set, f.path})
	}
	failed := make(chan error, 4)
	f.models.put = func(ctx context.Context, endpoints []*spec.Endpoint, configs []model.Config) error {
		return f.applyLocal(ctx, set, endpoints, configs)
	}
	if err := f.models.open(); err != nil {
		return err
	}
	polling, stop := context.WithCancel(ctx)
	var polls sync.WaitGroup
	started := func() {
		f.start(ctx, failed)
		if o.Repository.Mode == ModePoll {
			polls.Go(func() { f.models.poll(polling) })
		}
	}
	err = run(ctx, o, f.keeper, f.models.apply, started, failed)
	stop()
	polls.Wait()
	if err != nil {
		return err
	}
	return f.drain()
}

// newSet makes the set of models over the drivers that this build has. A missing
// ONNX Runtime is an error only where a model needs it.
func newSet(o Options, r prometheus.Registerer) (*model.Set, error) {
	drivers := []accel.Driver{null.New(), sim.New()}
	path, err := library.Find(library.Config{Path: o.Library})
	if err == nil {
		var cpu *ort.CPU
		if cpu, err = ort.NewCPU(ort.Config{Library: path, Slots: o.CPUSlots}); err == nil {
			drivers = append(drivers, cpu)
		}
	}
	if err != nil {
		o.Log.Warn("ONNX Runtime is not available", "error", err)
		drivers = append(drivers, missing{err})
	}
	m := &batchMetrics{runs: map[model.Key]*runs{}}
	set := model.NewSet(drivers, m.observer, o.Log)
	m.served = set.Serving
	r.MustRegister(m)
	return set, nil
}

// missing stands for the CPU driver where its library cannot be used, and says
// so to whoever needs it.
type missing struct{ err error }

func (missing) Name() string                       { return "cpu" }
func (m missing) Devices() ([]accel.Device, error) { return nil, m.err }
func (m missing) Open(accel.Model, accel.Options) (accel.Instance, error) {
	return nil, m.err
}

// registry fills in where a registered model is, and what is said of it. False: it
// is not there now.
type registry func(ref spec.ModelRef, c *model.Config) bool

// planner makes configurations of models. Those of an endpoint have one plan, the very
// same each time, so that what did not change is seen at a glance. Not safe for
// concurrent use.
type planner struct {
	plans map[string]*repository.Config // by endpoint, of the last call
}

// configs are the versions of endpoints as the scorer needs them. Without a registry
// every model is a path.
func (p *planner) configs(endpoints []*spec.Endpoint, registered registry) (list []model.Config) {
	before := p.plans
	p.plans = make(map[string]*repository.Config, len(endpoints))
	n := 0
	for _, e := range endpoints {
		n += len(e.Spec.Versions)
	}
	list = make([]model.Config, 0, n)
	for _, e := range endpoints {
		plan := before[e.Metadata.Name]
		if plan == nil {
			plan = repository.Bare(e.Metadata.Name)
		}
		p.plans[e.Metadata.Name] = plan
		for i := range e.Spec.Versions {
			v := &e.Spec.Versions[i]
			if v.Upstream != nil {
				continue
			}
			c := model.Config{
				Endpoint: e.Metadata.Name, Version: v.Name, Path: v.Model, Plan: plan,
				Accelerator: string(v.Accelerator), Threads: v.Threads, MaxBatch: v.MaxBatchSize, Batching: policy(v.Batching),
			}
			ref, err := spec.ParseModel(v.Model)
			if err != nil || ref.Name == "" || registered == nil || registered(ref, &c) {
				list = append(list, c)
			}
		}
	}
	return list
}

// staged is what a version's model offers, nothing where that is not loaded; same:
// as it did in the stage before.
func staged(stage *model.Stage, before map[model.Key]*model.Version, k gateway.Key) (list []gateway.Offered, same bool) {
	one := stage.Versions()[model.Key(k)]
	if one != nil {
		list = []gateway.Offered{{Scorer: one, Offer: one.Offer()}}
	}
	return list, one == before[model.Key(k)]
}

// applyLocal makes endpoints what requests see: their models are loaded, and their
// servers of other kinds asked, first; then requests are sent to them, then what
// nothing uses any more is closed.
func (f *front) applyLocal(ctx context.Context, set *model.Set, endpoints []*spec.Endpoint, configs []model.Config) error {
	s, err := f.compile(endpoints)
	if err != nil {
		return err
	}
	others, err := f.others.stage(ctx, endpoints)
	if err != nil {
		return err
	}
	stage, err := set.Stage(ctx, configs)
	if err != nil {
		f.others.retire(others)
		return err
	}
	old := f.others.commit(others, func() {
		before := set.Serving()
		fill(s, f.path.Snapshot(), others, func(k gateway.Key) ([]gateway.Offered, bool) { return staged(stage, before, k) })
	})
	f.apply(s, endpoints)
	f.others.retire(old)
	stage.Commit()
	return nil
}
