package serve

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"sluice.dev/deploy/spec"
	"sluice.dev/gateway"
	"sluice.dev/gateway/upstream"
)

// upstreams are the servers of other kinds that are used now. They give the pools
// of their versions their replicas. Not safe for concurrent use.
type upstreams struct {
	path    *gateway.Path
	maxBody int // bytes of an answer
	log     *slog.Logger
	current map[gateway.Key]*used
	closing sync.WaitGroup
}

// used is an upstream, and what it was made of.
type used struct {
	*upstream.Upstream
	spec *spec.Upstream

	mu      sync.Mutex
	pool    *gateway.Pool // nil before the commit and after its replacement
	offered []gateway.Offered
}

// offer is told what the upstream offers.
func (u *used) offer(offered []gateway.Offered) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.offered = offered
	if u.pool != nil {
		u.pool.SetReplicas(offered)
	}
}

// serve makes the upstream give pool its replicas, or none any more.
func (u *used) serve(pool *gateway.Pool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.pool = pool
	if pool != nil {
		pool.SetReplicas(u.offered)
	}
}

func newUpstreams(path *gateway.Path, o Options) *upstreams {
	return &upstreams{path: path, maxBody: o.MaxBody, log: o.Log, current: map[gateway.Key]*used{}}
}

// stage opens the upstreams that endpoints name and that are not used already, and
// waits a while until they have been asked whether they are there. One that is not
// is no error: it may come. next is for commit or retire.
func (s *upstreams) stage(ctx context.Context, endpoints []*spec.Endpoint) (next map[gateway.Key]*used, err error) {
	next = map[gateway.Key]*used{}
	var errs []error
	for _, e := range endpoints {
		for i := range e.Spec.Versions {
			v := &e.Spec.Versions[i]
			if v.Upstream == nil {
				continue
			}
			k := gateway.Key{Endpoint: e.Metadata.Name, Version: v.Name}
			u, err := s.open(k, v.Upstream)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			next[k] = u
		}
	}
	if len(errs) > 0 {
		s.retire(next)
		return nil, errors.Join(errs...)
	}
	const patience = 3 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, u := range next {
		u.Probed(ctx)
	}
	return next, nil
}

// open finds or makes the upstream of a version.
func (s *upstreams) open(k gateway.Key, u *spec.Upstream) (*used, error) {
	if now := s.current[k]; now != nil && reflect.DeepEqual(now.spec, u) {
		return now, nil
	}
	out := &used{spec: u}
	c := upstreamConfig(k, u)
	c.MaxBody, c.OnOffers, c.Log = s.maxBody, out.offer, s.log
	var err error
	out.Upstream, err = upstream.Open(c)
	return out, err
}

// upstreamConfig is a version's servers as the gateway needs them.
func upstreamConfig(k gateway.Key, u *spec.Upstream) upstream.Config {
	c := upstream.Config{
		Endpoint: k.Endpoint, Version: k.Version,
		Health: upstream.Health{
			Path: u.Health.Path, Period: time.Duration(u.Health.PeriodSeconds) * time.Second, Timeout: time.Duration(u.Health.TimeoutSeconds) * time.Second,
			Successes: u.Health.SuccessThreshold, Failures: u.Health.FailureThreshold,
		},
	}
	if h := u.HTTP; h != nil {
		c.HTTP = &upstream.HTTP{URLs: h.URLs, Path: h.Path, Model: h.Model, Version: h.Version, Headers: h.Headers, TLS: (*upstream.TLS)(h.TLS)}
		if h.Protocol == spec.ProtocolOIP {
			c.HTTP.Protocol = upstream.OIP
		}
	}
	if g := u.GRPC; g != nil {
		c.GRPC = &upstream.GRPC{Addresses: g.Addresses, Model: g.Model, Version: g.Version, Encrypt: g.TLS != nil, TLS: (*upstream.TLS)(g.TLS)}
	}
	return c
}

// commit makes next what is used, and fill gives the other versions their replicas.
// Pools have theirs before requests see their versions. old is for retire.
func (s *upstreams) commit(next map[gateway.Key]*used, fill func()) (old map[gateway.Key]*used) {
	old, s.current = s.current, next
	for k, u := range old {
		if next[k] != u {
			u.serve(nil)
		}
	}
	fill()
	for k, u := range next {
		u.serve(s.path.Pool(k))
	}
	return old
}

// fill gives the versions of s their replicas, which offered knows by version, but
// for those of others. Where it says that they are the same, as the endpoint is in
// before, which may be nil, they are there.
func fill(s, before *gateway.Snapshot, others map[gateway.Key]*used, offered func(gateway.Key) (list []gateway.Offered, same bool)) {
	for name, e := range s.Endpoints() {
		known := before != nil && before.Endpoints()[name] == e
		for _, v := range e.Versions {
			k := gateway.Key{Endpoint: name, Version: v.Name}
			if others[k] != nil {
				continue
			}
			if list, same := offered(k); !same || !known {
				v.Pool.SetReplicas(list)
			}
		}
	}
}

// retire closes those that are not used, in the background: requests that are under
// way are answered first.
func (s *upstreams) retire(list map[gateway.Key]*used) {
	for k, u := range list {
		if s.current[k] != u {
			s.closing.Go(u.Close)
		}
	}
}

// close ends all of them.
func (s *upstreams) close() {
	s.retire(s.commit(nil, func() {}))
	s.closing.Wait()
}
