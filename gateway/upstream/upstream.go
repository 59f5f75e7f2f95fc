// Package upstream sends scoring requests to servers that Sluice did not write.
package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"sluice.dev/accel/tensor"
	"sluice.dev/gateway"
	"sluice.dev/scorer"
)

// Config of an Upstream. Endpoint, Version, OnOffers, and one of HTTP and GRPC are
// required.
type Config struct {
	Endpoint string // that the servers serve a version of
	Version  string
	HTTP     *HTTP
	GRPC     *GRPC
	Health   Health
	MaxBody  int // bytes of an answer's body; 0 means 100 MiB
	// OnOffers is told which servers take requests: at every change, never by two
	// goroutines at a time.
	OnOffers func([]gateway.Offered)
	Log      *slog.Logger // nil is silent
}

// Health is how servers are probed. The zero value is the default.
type Health struct {
	Path      string        // over HTTP; empty means that of the protocol
	Period    time.Duration // between two probes of a server that answers; 0 means 5 s
	Timeout   time.Duration // of a probe; 0 means 2 s
	Successes int           // in a row, after which a server gets requests; 0 means 1
	Failures  int           // in a row, after which it gets none; 0 means 3
}

func (c *Config) setDefaults() {
	h := &c.Health
	h.Period = cmp.Or(h.Period, 5*time.Second)
	h.Timeout = cmp.Or(h.Timeout, 2*time.Second)
	h.Successes = cmp.Or(h.Successes, 1)
	h.Failures = cmp.Or(h.Failures, 3)
	c.MaxBody = cmp.Or(c.MaxBody, 100<<20)
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
}

// Servers say nothing of how many requests they take at a time. Azure ML's run one
// unless they are told otherwise, and that is Azure ML's own default; those of the
// Open Inference Protocol queue and batch by themselves, and get enough for that,
// while the rest waits where it is fair.
const (
	azureWindow = 1
	oipWindow   = 64
)

// server is one server of an upstream.
type server interface {
	scorer.Scorer
	// probe finds out whether the server can score. From one goroutine.
	probe(context.Context) error
	// describe asks what the model is. An error means that it cannot score.
	describe(context.Context) (scorer.Offer, error)
	// tidy gives back what is not needed any more. From one goroutine.
	tidy()
	// close returns when nothing of the server runs any more.
	close()
}

// Upstream is the servers that serve one version.
type Upstream struct {
	config  Config
	window  int
	members []*member
	end     context.CancelFunc
	tasks   sync.WaitGroup

	mu sync.Mutex // of publishing
}

// member is one server, and whether it gets requests.
type member struct {
	server server
	name   string
	health health        // its watcher's
	lost   chan struct{} // capacity 1: a request met nobody
	first  chan struct{} // closed after the first probe

	// Guarded by the upstream's mu.
	offered bool
	offer   scorer.Offer
}

// Open makes an upstream, and begins to probe its servers. Close ends it.
func Open(c Config) (*Upstream, error) {
	c.setDefaults()
	u := &Upstream{config: c, window: oipWindow}
	var err error
	if c.HTTP != nil {
		if c.HTTP.Protocol == AzureML {
			u.window = azureWindow
		}
		err = add(u, c.HTTP.URLs, newHTTP)
	} else {
		err = add(u, c.GRPC.Addresses, newGRPC)
	}
	if err != nil {
		for _, m := range u.members {
			m.server.close()
		}
		return nil, fmt.Errorf("endpoint %s, version %s: %w", c.Endpoint, c.Version, err)
	}
	ctx, end := context.WithCancel(context.Background())
	u.end = end
	for _, m := range u.members {
		u.tasks.Go(func() { u.watch(ctx, m) })
	}
	return u, nil
}

// add makes the servers at addresses.
func add[S server](u *Upstream, addresses []string, make func(c *Config, address string, lost func()) (S, error)) error {
	for _, address := range addresses {
		m := newMember(address, u.config.Health)
		s, err := make(&u.config, address, m.report)
		if err != nil {
			return err
		}
		m.server = s
		u.members = append(u.members, m)
	}
	return nil
}

func newMember(name string, h Health) *member {
	return &member{name: name, health: newHealth(h), lost: make(chan struct{}, 1), first: make(chan struct{})}
}

// report tells the watcher that a request met nobody.
func (m *member) report() {
	select {
	case m.lost <- struct{}{}:
	default: // it knows
	}
}

// Probed returns when every server was probed once, or ctx ends.
func (u *Upstream) Probed(ctx context.Context) {
	for _, m := range u.members {
		select {
		case <-m.first:
		case <-ctx.Done():
			return
		}
	}
}

// Close ends the upstream, which offers nothing any more; requests that are under
// way are answered first. OnOffers is not called after.
func (u *Upstream) Close() {
	u.end()
	u.tasks.Wait()
	for _, m := range u.members {
		m.server.close()
	}
}

// watch probes one server until ctx ends.
func (u *Upstream) watch(ctx context.Context, m *member) {
	described := time.Time{}
	for first := true; ; first = false {
		u.probe(ctx, m, &described)
		if ctx.Err() != nil {
			return
		}
		if first {
			close(m.first)
		}
		m.server.tidy()
		select {
		case <-ctx.Done():
			return
		case <-time.After(m.health.pause):
		case <-m.lost:
			if m.health.lost() {
				u.config.Log.Warn("a model's server does not take connections; it gets no requests", "endpoint", u.config.Endpoint, "version", u.config.Version, "server", m.name)
				u.publish(m, func() { m.offered = false })
			}
		}
	}
}

// fresh is how long what a server said of its model is believed.
const fresh = time.Minute

// probe probes a server once, and publishes what changed by it.
func (u *Upstream) probe(ctx context.Context, m *member, described *time.Time) {
	ctx, cancel := context.WithTimeout(ctx, u.config.Health.Timeout)
	defer cancel()
	err := m.server.probe(ctx)
	var offer *scorer.Offer
	if stale := !m.health.up || time.Since(*described) > fresh; err == nil && stale {
		var o scorer.Offer
		if o, err = m.server.describe(ctx); err == nil {
			o.Endpoint, o.Version, o.Window = u.config.Endpoint, u.config.Version, u.window
			offer, *described = &o, time.Now()
		}
	}
	changed := m.health.probed(err == nil)
	if ctx.Err() == context.Canceled || !changed && offer == nil {
		return
	}
	if changed {
		log := u.config.Log.With("endpoint", u.config.Endpoint, "version", u.config.Version, "server", m.name)
		if m.health.up {
			log.Info("a model's server answers; it gets requests")
		} else {
			log.Warn("a model's server does not answer; it gets no requests", "error", err)
		}
	}
	u.publish(m, func() {
		m.offered = m.health.up
		if offer != nil {
			m.offer = *offer
		}
	})
}

// check refuses a signature that no model has.
func check(s *tensor.Signature) error {
	for _, list := range [][]tensor.Info{s.Inputs, s.Outputs} {
		for i := range list {
			if list[i].Name == "" || list[i].DType == tensor.Invalid {
				return errors.New("a tensor without a name or a datatype")
			}
			for _, d := range list[i].Shape {
				if d < -1 {
					return fmt.Errorf("tensor %q has a dimension of %d", list[i].Name, d)
				}
			}
		}
	}
	return nil
}

// publish changes m and tells which servers take requests now.
func (u *Upstream) publish(m *member, change func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	change()
	var list []gateway.Offered
	for _, m := range u.members {
		if m.offered {
			list = append(list, gateway.Offered{Scorer: m.server, Offer: m.offer})
		}
	}
	u.config.OnOffers(list)
}
