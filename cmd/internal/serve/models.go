package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice.dev/deploy/repository"
	"sluice.dev/deploy/spec"
	"sluice.dev/gateway/triton"
	"sluice.dev/scorer"
	"sluice.dev/scorer/model"
)

// Repository is a Triton model repository to serve, with Triton's settings.
type Repository struct {
	Dir  string        // empty for none
	Mode string        // none: all models, from the start; explicit: those that are asked for; poll: all, as they change
	Load []string      // models that explicit loads at the start; * is all
	Poll time.Duration // between two looks at the folder
}

// The modes.
const (
	ModeNone     = "none"
	ModeExplicit = "explicit"
	ModePoll     = "poll"
)

// Validate says what is wrong with the settings.
func (r *Repository) Validate() error {
	switch {
	case r.Dir == "" && (r.Mode != ModeNone || len(r.Load) > 0):
		return errors.New("--model-control-mode and --load-model need a --model-repository")
	case r.Mode != ModeNone && r.Mode != ModeExplicit && r.Mode != ModePoll:
		return fmt.Errorf("--model-control-mode %s: must be none, explicit or poll", r.Mode)
	case r.Mode != ModeExplicit && len(r.Load) > 0:
		return errors.New("--load-model needs --model-control-mode explicit: in other modes every model is loaded")
	case r.Poll <= 0:
		return errors.New("--repository-poll-secs must be 1 or more")
	}
	return nil
}

// models serves the models of a repository beside the endpoints of a specification:
// each is an endpoint of its name, unless the specification has one of that name.
// It implements triton.Models.
type models struct {
	o   Repository
	log *slog.Logger
	// put makes endpoints what requests see, with the versions in configs behind them.
	put func(ctx context.Context, endpoints []*spec.Endpoint, configs []model.Config) error

	change sync.Mutex // held by whoever changes what is served
	plan   planner
	specs  []*spec.Endpoint
	stamps map[string]string // of folders, when they were read

	mu     sync.Mutex // guards what follows, for a moment
	loaded map[string]*repository.Model
	status map[string]status
}

// status is what became of a model's last change.
type status struct {
	state    triton.State
	reason   string
	versions []string // that it has, or had
}

func newModels(o Repository, log *slog.Logger) *models {
	return &models{o: o, log: log, stamps: map[string]string{}, loaded: map[string]*repository.Model{}, status: map[string]status{}}
}

// open reads the models that are served from the start. The error has every
// finding.
func (m *models) open() error {
	if m.o.Dir == "" {
		return nil
	}
	names, err := repository.Names(m.o.Dir)
	if err != nil {
		return err
	}
	if m.o.Mode == ModeExplicit && !slices.Contains(m.o.Load, "*") {
		names = m.o.Load
	}
	var errs []error
	for _, name := range names {
		if m.o.Mode == ModePoll {
			m.stamps[name] = repository.Stamp(m.o.Dir, name)
		}
		one, err := m.read(name, nil)
		errs = append(errs, err)
		m.loaded[name] = one
	}
	return errors.Join(errs...)
}

// read reads a model; its warnings are logged.
func (m *models) read(name string, config []byte) (*repository.Model, error) {
	if err := repository.CheckName(name); err != nil {
		return nil, err
	}
	one, findings := repository.Read(m.o.Dir, name, config)
	for _, w := range findings.Warnings() {
		m.log.Warn("model repository", "model", name, "finding", w.String())
	}
	return one, findings.Err()
}

// apply makes specs what is served beside the repository.
func (m *models) apply(ctx context.Context, specs []*spec.Endpoint) error {
	m.change.Lock()
	defer m.change.Unlock()
	if err := m.serve(ctx, specs, m.loaded); err != nil {
		return err
	}
	m.specs = specs
	return nil
}

// serve makes specs and loaded what requests see. Holding change.
func (m *models) serve(ctx context.Context, specs []*spec.Endpoint, loaded map[string]*repository.Model) error {
	named := map[string]bool{}
	endpoints := slices.Clone(specs)
	for _, e := range specs {
		named[e.Metadata.Name] = true
	}
	configs := m.plan.configs(specs, m.registered(loaded))
	for _, name := range slices.Sorted(maps.Keys(loaded)) {
		if !named[name] {
			endpoints = append(endpoints, endpointOf(loaded[name]))
			configs = append(configs, configsOf(loaded[name])...)
		}
	}
	return m.put(ctx, endpoints, configs)
}

// longestWait is how long a request for a model of a repository may wait, where its
// configuration does not say: Triton has no limit.
const longestWait = time.Minute

// endpointOf is a model as an endpoint: open to all, its highest version serving.
func endpointOf(m *repository.Model) *spec.Endpoint {
	e := &spec.Endpoint{TypeMeta: spec.TypeMeta{APIVersion: spec.APIVersion, Kind: spec.KindEndpoint}, Metadata: spec.Metadata{Name: m.Config.Name}}
	e.Spec.Auth.Mode = spec.AuthNone
	wait := cmp.Or(m.Config.QueueWait, longestWait)
	for i := range m.Versions {
		v := &m.Versions[i]
		e.Spec.Versions = append(e.Spec.Versions, spec.Version{
			Name: v.Name(), Model: v.Path, Default: i == 0, MaxQueueWaitMs: int(max((wait+time.Millisecond-1)/time.Millisecond, 1)),
			MaxConcurrentRequestsPerContainer: concurrent(m.Config),
		})
	}
	e.Default()
	return e
}

// concurrent is how many requests a model is sent at a time; 0 is automatic. Triton has
// one queue, in which priorities and a limit count; here it is the scorer's, so as
// many go there as may wait, beside those that run.
func concurrent(c *repository.Config) int {
	b := &c.Batching
	if b.MaxQueueSize == 0 && b.PriorityLevels < 2 {
		return 0
	}
	const waiting, rows = 1024, 64 // where they are not said
	return min(cmp.Or(b.MaxQueueSize, waiting)+runtime.NumCPU()*max(c.MaxBatch, rows)+1, 1<<20)
}

// configsOf are a model's versions as the scorer needs them.
func configsOf(m *repository.Model) (list []model.Config) {
	for i := range m.Versions {
		v := &m.Versions[i]
		list = append(list, model.Config{
			Endpoint: m.Config.Name, Version: v.Name(), Path: v.Path, Plan: m.Config,
			Accelerator: m.Config.Accelerator, Threads: m.Config.Threads, MaxBatch: max(m.Config.MaxBatch, 0), Batching: policy(&m.Config.Batching),
		})
	}
	return list
}

// registered finds what NAME:VERSION of a specification is: a version of a model
// that is loaded. One that is not has no replica until it is.
func (m *models) registered(loaded map[string]*repository.Model) registry {
	if m.o.Dir == "" {
		return nil
	}
	return func(ref spec.ModelRef, c *model.Config) bool {
		one := loaded[ref.Name]
		var v *repository.Version
		if one != nil {
			v = one.Version(int64(ref.Version))
		}
		if v == nil {
			m.log.Warn("a version has no replica: its model is not loaded, or the model's version_policy leaves it out",
				"endpoint", c.Endpoint, "version", c.Version, "model", ref.Name, "model_version", ref.Version)
			return false
		}
		plan := *one.Config
		plan.Name = c.Endpoint
		c.Path, c.Plan = v.Path, &plan
		c.Threads, c.MaxBatch = cmp.Or(c.Threads, plan.Threads), cmp.Or(c.MaxBatch, max(plan.MaxBatch, 0))
		if c.Batching == nil {
			c.Batching = policy(&plan.Batching)
		}
		if c.Accelerator == model.Auto {
			c.Accelerator = plan.Accelerator
		}
		return true
	}
}

// try changes one model, to nil for one that is not to be served. Holding change.
func (m *models) try(ctx context.Context, name string, one *repository.Model) error {
	next := maps.Clone(m.loaded)
	if next[name] = one; one == nil {
		delete(next, name)
	}
	if err := m.serve(ctx, m.specs, next); err != nil {
		return err
	}
	m.mu.Lock()
	m.loaded = next
	m.mu.Unlock()
	return nil
}

// set records what becomes of a model. The versions that it had stay known.
func (m *models) set(name string, s triton.State, reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	versions := m.status[name].versions
	if one := m.loaded[name]; one != nil {
		versions = versionsOf(one)
	}
	m.status[name] = status{s, reason, versions}
}

func versionsOf(m *repository.Model) (names []string) {
	for i := range slices.Backward(m.Versions) {
		names = append(names, m.Versions[i].Name())
	}
	return names
}

// reload reads a model and serves it as it is now. Holding change.
func (m *models) reload(ctx context.Context, name string, config []byte) error {
	m.set(name, triton.Loading, "")
	one, err := m.read(name, config)
	if err == nil {
		err = m.try(ctx, name, one)
	}
	if err != nil {
		err = errors.New(strings.ReplaceAll(err.Error(), m.o.Dir+"/", ""))
		m.set(name, triton.Unavailable, err.Error())
		m.log.Error("model not loaded; what was served before goes on", "model", name, "error", err)
		return err
	}
	m.set(name, triton.Ready, "")
	return nil
}

// Load implements triton.Models.
func (m *models) Load(ctx context.Context, name string, config []byte) error {
	if m.o.Mode != ModeExplicit {
		return triton.ErrNotExplicit
	}
	if err := repository.CheckName(name); err != nil {
		return scorer.Errorf(scorer.InvalidArgument, "%s", err)
	}
	m.change.Lock()
	defer m.change.Unlock()
	if names, err := repository.Names(m.o.Dir); err != nil || !slices.Contains(names, name) {
		return scorer.Errorf(scorer.NotFound, "failed to load '%s', failed to poll from model repository", name)
	}
	if err := m.reload(ctx, name, config); err != nil {
		return scorer.Errorf(scorer.InvalidArgument, "load failed for model '%s': %s", name, err)
	}
	return nil
}

// Unload implements triton.Models.
func (m *models) Unload(ctx context.Context, name string) error {
	if m.o.Mode != ModeExplicit {
		return triton.ErrNotExplicit
	}
	m.change.Lock()
	defer m.change.Unlock()
	return m.unload(ctx, name)
}

func (m *models) unload(ctx context.Context, name string) error {
	if m.loaded[name] == nil {
		return nil
	}
	m.set(name, triton.Unloading, "")
	if err := m.try(ctx, name, nil); err != nil {
		m.set(name, triton.Ready, "")
		return fmt.Errorf("unload %s: %w", name, err)
	}
	m.set(name, triton.Unavailable, "unloaded")
	return nil
}

// Index implements triton.Models.
func (m *models) Index() []triton.Entry {
	names, err := repository.Names(m.o.Dir)
	if err != nil {
		m.log.Error("model repository", "error", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	names = slices.AppendSeq(names, maps.Keys(m.loaded))
	slices.Sort(names)
	list := []triton.Entry{}
	for _, name := range slices.Compact(names) {
		one, s := m.loaded[name], m.status[name]
		state, versions := s.state, s.versions
		if one != nil { // and it serves, whatever becomes of a change
			state, versions = triton.Ready, versionsOf(one)
		}
		if len(versions) == 0 {
			versions = []string{""}
		}
		for _, v := range versions {
			list = append(list, triton.Entry{Name: name, Version: v, State: state, Reason: s.reason})
		}
	}
	return list
}

// poll follows the folder until ctx ends.
func (m *models) poll(ctx context.Context) {
	tick := time.NewTicker(m.o.Poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.look(ctx)
		}
	}
}

// look serves what the folder has now. What cannot be served stays as it was.
func (m *models) look(ctx context.Context) {
	m.change.Lock()
	defer m.change.Unlock()
	names, err := repository.Names(m.o.Dir)
	if err != nil {
		m.log.Error("model repository", "error", err)
		return
	}
	for name := range m.loaded {
		if slices.Contains(names, name) {
			continue
		}
		delete(m.stamps, name)
		if err := m.unload(ctx, name); err != nil {
			m.log.Error("model not unloaded", "model", name, "error", err)
		}
	}
	for _, name := range names {
		stamp := repository.Stamp(m.o.Dir, name)
		if stamp == m.stamps[name] {
			continue
		}
		m.stamps[name] = stamp
		_ = m.reload(ctx, name, nil) // logged
	}
}
