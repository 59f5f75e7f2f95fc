package serve

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"sluice.dev/cmd/internal/state"
	"sluice.dev/deploy/spec"
	"sluice.dev/gateway"
	"sluice.dev/scorer"
	"sluice.dev/scorer/lane"
	"sluice.dev/scorer/model"
)

// Scorer serves the models of o.File to gateways that connect to o.Listen, until
// ctx ends.
func Scorer(ctx context.Context, o Options) error {
	registry := newRegistry()
	set, err := newSet(o, registry)
	if err != nil {
		return err
	}
	defer set.Close()
	if o.State != "" {
		dir, err := state.Open(o.State)
		if err != nil {
			return err
		}
		set.Keep(dir)
		defer keepCosts(set)()
	}
	s := newShelf(set.Start)
	server := lane.NewServer(lane.ServerConfig{MaxBody: o.MaxBody, Log: o.Log}, s)
	defer server.Close()
	var draining atomic.Bool
	failed := make(chan error, 2)
	apply := func(ctx context.Context, endpoints []*spec.Endpoint) error {
		stage, err := set.Stage(ctx, configs(endpoints))
		if err != nil {
			return err
		}
		server.Announce(s.put(stage.Versions()))
		stage.Commit()
		return nil
	}
	started := func() {
		at, err := listen(o.Listen, server, failed)
		var metrics net.Addr
		if err == nil {
			metrics, err = listen(o.Metrics, admin(registry, func() bool { return !draining.Load() }, set.Explain), failed)
		}
		if err != nil {
			failed <- err
			return
		}
		o.Log.Info("serving", "lane", text(at), "metrics", text(metrics))
	}
	if err := run(ctx, o, apply, started, failed); err != nil {
		return err
	}
	draining.Store(true)
	end, cancel := context.WithTimeout(context.Background(), o.DrainTimeout)
	defer cancel()
	if err := server.Drain(end); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	return nil
}

// shelf finds the version that a gateway means by an offer's number. A number is
// never used for another version again.
type shelf struct {
	start    func()     // has run what was put
	mu       sync.Mutex // of writers
	versions atomic.Pointer[[]*model.Version]
}

func newShelf(start func()) *shelf {
	s := &shelf{start: start}
	s.versions.Store(&[]*model.Version{})
	return s
}

// put makes versions what is offered; those that were and are not any more keep
// their number, without a window.
func (s *shelf) put(versions map[model.Key]*model.Version) []scorer.Offer {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := append([]*model.Version(nil), *s.versions.Load()...)
	known := map[*model.Version]bool{}
	for _, v := range list {
		known[v] = true
	}
	current := map[*model.Version]bool{}
	for _, v := range versions {
		current[v] = true
		if !known[v] {
			list = append(list, v)
		}
	}
	s.versions.Store(&list)
	offers := make([]scorer.Offer, len(list))
	for i, v := range list {
		if offers[i] = v.Offer(); !current[v] {
			offers[i].Window = 0
		}
	}
	return offers
}

// Handle implements lane.Handler.
func (s *shelf) Handle(offer int, r *lane.Request) {
	(*s.versions.Load())[offer].Put(scorer.Request{
		Kind: r.Kind, HeadLength: r.HeadLength, Body: r.Body, Deadline: r.Deadline, Trace: r.Trace,
	}, r)
}

// Handled implements lane.Handler.
func (s *shelf) Handled() { s.start() }

// Gateway serves the endpoints of o.File with the scorers at o.Scorers, until
// ctx ends.
func Gateway(ctx context.Context, o Options) error {
	if len(o.Scorers) == 0 {
		return fmt.Errorf("no scorer; name at least one with --scorer unix:///PATH or --scorer HOST:PORT")
	}
	f, err := newFront(o)
	if err != nil {
		return err
	}
	d := &directory{path: f.path, replicas: map[*lane.Client][]*lane.Remote{}}
	failed := make(chan error, 2)
	apply := func(_ context.Context, endpoints []*spec.Endpoint) error {
		s, err := f.compiler.Compile(endpoints)
		if err != nil {
			return err
		}
		d.fill(s)
		f.apply(s, endpoints)
		return nil
	}
	var clients []*lane.Client
	started := func() {
		for _, address := range o.Scorers {
			clients = append(clients, d.dial(address, o))
		}
		f.start(ctx, failed)
	}
	err = run(ctx, o, apply, started, failed)
	if err == nil {
		err = f.drain()
	}
	for _, c := range clients {
		_ = c.Close() // nothing is in flight
	}
	return err
}

// directory knows which scorers offer which versions, and keeps the pools so.
type directory struct {
	path *gateway.Path

	mu       sync.Mutex
	replicas map[*lane.Client][]*lane.Remote
}

// dial connects to a scorer for as long as the process lives.
func (d *directory) dial(address string, o Options) *lane.Client {
	var c *lane.Client
	ready := make(chan struct{})
	network, rest := split(address)
	c = lane.Dial(lane.ClientConfig{
		Network: network, Address: rest, Log: o.Log,
		OnOffers: func(remotes []*lane.Remote) {
			<-ready
			d.set(c, remotes)
		},
	})
	close(ready)
	return c
}

// set records what one scorer offers now.
func (d *directory) set(c *lane.Client, remotes []*lane.Remote) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.replicas[c] = remotes
	d.spread(d.path.Snapshot())
}

// fill gives the pools of a coming snapshot their replicas.
func (d *directory) fill(s *gateway.Snapshot) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.spread(s)
}

// spread sets the replicas of every version of s. Holding mu.
func (d *directory) spread(s *gateway.Snapshot) {
	offered := map[gateway.Key][]gateway.Offered{}
	for _, remotes := range d.replicas {
		for _, r := range remotes {
			o := r.Offer()
			if o.Window > 0 {
				k := gateway.Key{Endpoint: o.Endpoint, Version: o.Version}
				offered[k] = append(offered[k], gateway.Offered{Scorer: r, Offer: o})
			}
		}
	}
	for name, e := range s.Endpoints() {
		for _, v := range e.Versions {
			v.Pool.SetReplicas(offered[gateway.Key{Endpoint: name, Version: v.Name}])
		}
	}
}
