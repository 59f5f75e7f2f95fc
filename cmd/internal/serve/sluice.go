package serve

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"sluice.dev/accel"
	"sluice.dev/accel/null"
	"sluice.dev/accel/ort"
	"sluice.dev/accel/ort/library"
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
	failed := make(chan error, 2)
	apply := func(ctx context.Context, endpoints []*spec.Endpoint) error {
		return f.applyLocal(ctx, set, endpoints)
	}
	started := func() { f.start(ctx, failed) }
	if err := run(ctx, o, apply, started, failed); err != nil {
		return err
	}
	return f.drain()
}

// newSet makes the set of models over the drivers that this build has. A missing
// ONNX Runtime is an error only where a model needs it.
func newSet(o Options, r prometheus.Registerer) (*model.Set, error) {
	drivers := []accel.Driver{null.New()}
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
	return model.NewSet(drivers, newBatchMetrics(r).observer, o.Log), nil
}

// missing stands for the CPU driver where its library cannot be used, and says
// so to whoever needs it.
type missing struct{ err error }

func (missing) Name() string                       { return "cpu" }
func (m missing) Devices() ([]accel.Device, error) { return nil, m.err }
func (m missing) Open(accel.Model, accel.Options) (accel.Instance, error) {
	return nil, m.err
}

// configs are the versions of endpoints as the scorer needs them.
func configs(endpoints []*spec.Endpoint) (list []model.Config) {
	for _, e := range endpoints {
		for i := range e.Spec.Versions {
			v := &e.Spec.Versions[i]
			list = append(list, model.Config{
				Endpoint: e.Metadata.Name, Version: v.Name, Path: v.Model,
				Accelerator: string(v.Accelerator), Threads: v.Threads, MaxBatch: v.MaxBatchSize, Batching: policy(v.Batching),
			})
		}
	}
	return list
}

// applyLocal makes endpoints what requests see: their models are loaded first,
// then requests are sent to them, then what nothing uses any more is closed.
func (f *front) applyLocal(ctx context.Context, set *model.Set, endpoints []*spec.Endpoint) error {
	s, err := f.compiler.Compile(endpoints)
	if err != nil {
		return err
	}
	stage, err := set.Stage(ctx, configs(endpoints))
	if err != nil {
		return err
	}
	for key, v := range stage.Versions() {
		pool := f.path.Pool(gateway.Key(key))
		pool.SetReplicas([]gateway.Offered{{Scorer: v, Offer: v.Offer()}})
	}
	f.apply(s, endpoints)
	stage.Commit()
	return nil
}
