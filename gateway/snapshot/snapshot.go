// Package snapshot compiles specifications into what the request path serves
// from.
package snapshot

import (
	"errors"
	"fmt"
	"time"

	"sluice.dev/auth"
	"sluice.dev/auth/apikey"
	"sluice.dev/deploy/spec"
	"sluice.dev/gateway"
	"sluice.dev/gateway/metrics"
	"sluice.dev/router"
)

// KeyFinder resolves an endpoint's keys; an empty key is none.
type KeyFinder func(e *spec.Endpoint) (primary, secondary string, err error)

// Compiler makes snapshot after snapshot for one path. It keeps what must outlive
// them: where each endpoint's split is, and which versions are counted. Not safe
// for concurrent use.
type Compiler struct {
	path       *gateway.Path
	metrics    *metrics.Metrics // nil counts nothing
	keys       KeyFinder
	pepper     apikey.Pepper
	generation uint64
	sequences  map[string]*router.Sequence
	series     map[labels]*metrics.Series
}

// labels name the series of one version.
type labels struct{ endpoint, version, variant string }

// NewCompiler makes a compiler for p.
func NewCompiler(p *gateway.Path, m *metrics.Metrics, keys KeyFinder) *Compiler {
	return &Compiler{
		path: p, metrics: m, keys: keys, pepper: apikey.NewPepper(),
		sequences: map[string]*router.Sequence{}, series: map[labels]*metrics.Series{},
	}
}

// Compile makes the next snapshot of endpoints, which are valid and have their
// defaults. An error names every endpoint that cannot be served, and counts for
// nothing. The pools' limits change with Apply.
func (c *Compiler) Compile(endpoints []*spec.Endpoint) (*gateway.Snapshot, error) {
	var list []*gateway.Endpoint
	var errs []error
	for _, e := range endpoints {
		compiled, err := c.endpoint(e)
		if err != nil {
			errs = append(errs, fmt.Errorf("endpoint %s: %w", e.Metadata.Name, err))
			continue
		}
		list = append(list, compiled)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return gateway.NewSnapshot(c.generation+1, list), nil
}

func (c *Compiler) endpoint(e *spec.Endpoint) (*gateway.Endpoint, error) {
	name := e.Metadata.Name
	who, err := c.authenticator(e)
	if err != nil {
		return nil, err
	}
	versions := make([]router.Version, len(e.Spec.Versions))
	for i := range e.Spec.Versions {
		versions[i] = place(&e.Spec.Versions[i])
	}
	if c.sequences[name] == nil {
		c.sequences[name] = router.NewSequence()
	}
	split, err := router.New(name, versions, c.sequences[name])
	if err != nil {
		return nil, err
	}
	out := &gateway.Endpoint{Name: name, Auth: who, Split: split}
	for i := range e.Spec.Versions {
		out.Versions = append(out.Versions, c.version(name, versions[i], &e.Spec.Versions[i]))
	}
	return out, nil
}

func (c *Compiler) authenticator(e *spec.Endpoint) (auth.Authenticator, error) {
	switch e.Spec.Auth.Mode {
	case spec.AuthNone:
		return auth.Open{}, nil
	case spec.AuthToken:
		return nil, errors.New("auth.mode token is not supported by this release; use key or none")
	}
	primary, secondary, err := c.keys(e)
	if err != nil {
		return nil, err
	}
	return apikey.New(c.pepper, primary, secondary), nil
}

// place is a version's place in the split.
func place(v *spec.Version) router.Version {
	variant := router.Default
	switch v.Type {
	case spec.Control:
		variant = router.Control
	case spec.Treatment:
		variant = router.Treatment
	}
	return router.Version{Name: v.Name, Variant: variant, BasisPoints: v.BasisPoints(), Default: v.Default}
}

func (c *Compiler) version(endpoint string, v router.Version, s *spec.Version) *gateway.Version {
	out := &gateway.Version{
		Version: v, Pool: c.path.Pool(gateway.Key{Endpoint: endpoint, Version: v.Name}),
		Limits: gateway.Limits{
			QueueWait:      time.Duration(s.MaxQueueWaitMs) * time.Millisecond,
			ScoringTimeout: time.Duration(s.ScoringTimeoutMs) * time.Millisecond,
			Concurrency:    s.MaxConcurrentRequestsPerContainer,
		},
	}
	if c.metrics != nil {
		l := labels{endpoint, v.Name, v.Variant.String()}
		if c.series[l] == nil {
			c.series[l] = c.metrics.Series(l.endpoint, l.version, l.variant)
		}
		out.Series = c.series[l]
	}
	return out
}

// Apply makes s the path's current snapshot, and returns when no request sees
// the one before any more. What that had and s has not is forgotten.
func (c *Compiler) Apply(s *gateway.Snapshot) {
	kept := map[labels]bool{}
	for name, e := range s.Endpoints() {
		for _, v := range e.Versions {
			kept[labels{name, v.Name, v.Variant.String()}] = true
			v.Pool.SetLimit(v.Limits.Concurrency)
		}
	}
	c.path.Swap(s)
	c.generation = s.Generation
	for l := range c.series {
		if !kept[l] {
			delete(c.series, l)
			c.metrics.Forget(l.endpoint, l.version, l.variant)
		}
	}
	for name := range c.sequences {
		if s.Endpoints()[name] == nil {
			delete(c.sequences, name)
		}
	}
}
