package serve

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"sluice.dev/cmd/internal/certs"
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
	secure, err := laneCerts(ctx, o)
	if err != nil {
		return err
	}
	if o.NVMetrics {
		registry.MustRegister(nvMetrics{set, nil})
	}
	s := newShelf(set.Start, set.Abandon)
	server := lane.NewServer(lane.ServerConfig{MaxBody: o.MaxBody, Log: o.Log}, s)
	defer server.Close()
	var draining atomic.Bool
	failed := make(chan error, 2)
	var plan planner
	apply := func(ctx context.Context, endpoints []*spec.Endpoint) error {
		stage, err := set.Stage(ctx, plan.configs(endpoints, nil))
		if err != nil {
			return err
		}
		server.Announce(s.put(stage.Versions()))
		stage.Commit()
		s.drop(stage.Versions())
		return nil
	}
	started := func() {
		at, err := listen(o.Listen, secure, server, failed, lane.Protocol)
		var metrics net.Addr
		if err == nil {
			metrics, err = listen(o.Metrics, secure, admin(registry, func() bool { return !draining.Load() }, set.Explain), failed)
		}
		if err != nil {
			failed <- err
			return
		}
		o.Log.Info("serving", "lane", text(at), "metrics", text(metrics))
	}
	if err := run(ctx, o, newKeeper(registry, "", o.File), apply, started, failed); err != nil {
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

// laneCerts are the certificates of lanes, nil where there are none; they are kept
// as their files are until ctx ends.
func laneCerts(ctx context.Context, o Options) (*certs.Certs, error) {
	if o.LaneTLS == (certs.Files{}) {
		return nil, nil
	}
	c, err := certs.Load(o.LaneTLS)
	if err != nil {
		return nil, fmt.Errorf("--lane-tls-cert: %w", err)
	}
	go c.Watch(ctx, o.Log)
	return c, nil
}

// shelf finds the version that a gateway means by an offer's number. A number is
// never used for another version again.
type shelf struct {
	start    func()                           // has run what was put
	abandon  func()                           // ends what runs for nobody
	mu       sync.Mutex                       // of writers
	versions atomic.Pointer[[]*model.Version] // by number; nil where one is gone
}

func newShelf(start, abandon func()) *shelf {
	s := &shelf{start: start, abandon: abandon}
	s.versions.Store(&[]*model.Version{})
	return s
}

// put makes versions what is offered; those that were and are not any more keep
// their number, without a window, and are served until drop.
func (s *shelf) put(versions map[model.Key]*model.Version) []scorer.Offer {
	s.mu.Lock()
	defer s.mu.Unlock()
	added := setOf(versions)
	list := slices.Clone(*s.versions.Load())
	offers := make([]scorer.Offer, len(list), len(list)+len(added))
	for i, v := range list {
		if added[v] {
			offers[i] = v.Offer()
			delete(added, v)
		}
	}
	for v := range added {
		list, offers = append(list, v), append(offers, v.Offer())
	}
	s.versions.Store(&list)
	return offers
}

func setOf(versions map[model.Key]*model.Version) map[*model.Version]bool {
	set := make(map[*model.Version]bool, len(versions))
	for _, v := range versions {
		set[v] = true
	}
	return set
}

// drop forgets all but versions, of which the others are closed.
func (s *shelf) drop(versions map[model.Key]*model.Version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	current := setOf(versions)
	list := slices.Clone(*s.versions.Load())
	for i, v := range list {
		if !current[v] {
			list[i] = nil
		}
	}
	s.versions.Store(&list)
}

// Handle implements lane.Handler.
func (s *shelf) Handle(offer int, r *lane.Request) {
	v := (*s.versions.Load())[offer]
	if v == nil {
		resp := scorer.Response{NotStarted: true}
		resp.Fail(scorer.Unavailable, "this version is being replaced; send the request again")
		r.Reply(&resp)
		return
	}
	v.Put(r.Request, r)
}

// Handled implements lane.Handler.
func (s *shelf) Handled() { s.start() }

// Canceled implements lane.Handler.
func (s *shelf) Canceled() { s.abandon() }

// Gateway serves the endpoints of o.File with the scorers at o.Scorers, until
// ctx ends.
func Gateway(ctx context.Context, o Options) error {
	secure, err := laneCerts(ctx, o)
	if err != nil {
		return err
	}
	f, err := newFront(o)
	if err != nil {
		return err
	}
	d := &directory{certs: secure, replicas: map[*lane.Client][]*lane.Remote{}}
	failed := make(chan error, 4)
	apply := func(ctx context.Context, endpoints []*spec.Endpoint) error {
		if err := served(endpoints, o.Scorers); err != nil {
			return err
		}
		s, err := f.compile(endpoints)
		if err != nil {
			return err
		}
		others, err := f.others.stage(ctx, endpoints)
		if err != nil {
			return err
		}
		old := f.others.commit(others, func() { d.fill(s, others) })
		f.apply(s, endpoints)
		f.others.retire(old)
		return nil
	}
	var clients []*lane.Client
	started := func() {
		for _, address := range o.Scorers {
			clients = append(clients, d.dial(address, o))
		}
		f.start(ctx, failed)
	}
	err = run(ctx, o, f.keeper, apply, started, failed)
	if err == nil {
		err = f.drain()
	}
	for _, c := range clients {
		_ = c.Close() // nothing is in flight
	}
	return err
}

// served finds versions that only a scorer can serve where there is none.
func served(endpoints []*spec.Endpoint, scorers []string) error {
	if len(scorers) > 0 {
		return nil
	}
	for _, e := range endpoints {
		for i := range e.Spec.Versions {
			if v := &e.Spec.Versions[i]; v.Upstream == nil {
				return fmt.Errorf("endpoint %s, version %s: has a model, and no scorer is named; name one with --scorer unix:///PATH or --scorer HOST:PORT, or give the version an upstream", e.Metadata.Name, v.Name)
			}
		}
	}
	return nil
}

// directory knows which scorers offer which versions, and keeps the pools so.
type directory struct {
	certs *certs.Certs // of lanes; nil believes whom this machine does

	mu       sync.Mutex
	replicas map[*lane.Client][]*lane.Remote
	latest   *gateway.Snapshot     // what is served, or is about to be; nil before the first
	others   map[gateway.Key]*used // versions that scorers do not serve
}

// dial connects to a scorer for as long as the process lives.
func (d *directory) dial(address string, o Options) *lane.Client {
	var c *lane.Client
	ready := make(chan struct{})
	network, rest, secure := split(address)
	c = lane.Dial(lane.ClientConfig{
		Network: network, Address: rest, Log: o.Log, TLS: d.tls(rest, secure),
		OnOffers: func(remotes []*lane.Remote) {
			<-ready
			d.set(c, remotes)
		},
	})
	close(ready)
	return c
}

// tls is how a lane to address is encrypted; nil if it is not.
func (d *directory) tls(address string, secure bool) func() *tls.Config {
	if !secure {
		return nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	return func() *tls.Config { return d.certs.Client(host, lane.Protocol) }
}

// set records what one scorer offers now.
func (d *directory) set(c *lane.Client, remotes []*lane.Remote) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.replicas[c] = remotes
	d.spread()
}

// fill gives the pools of a coming snapshot their replicas, but for those of others.
func (d *directory) fill(s *gateway.Snapshot, others map[gateway.Key]*used) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.latest, d.others = s, others
	d.spread()
}

// spread sets the replicas of every version of the latest snapshot: what comes between
// its filling and its being served is not lost. Holding mu.
func (d *directory) spread() {
	if d.latest == nil {
		return
	}
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
	fill(d.latest, nil, d.others, func(k gateway.Key) ([]gateway.Offered, bool) { return offered[k], false })
}
