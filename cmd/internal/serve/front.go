// Package serve assembles the processes: what listens, what is loaded, how a
// changed file becomes what requests see, and how it all ends.
package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"sluice.dev/cmd/internal/certs"
	"sluice.dev/cmd/internal/state"
	"sluice.dev/cmd/internal/watch"
	"sluice.dev/deploy/spec"
	"sluice.dev/gateway"
	"sluice.dev/gateway/httpapi"
	"sluice.dev/gateway/metrics"
	"sluice.dev/gateway/snapshot"
	"sluice.dev/scorer/model"
)

// Options of a process. Each uses those that it needs.
type Options struct {
	File         string        // specification: a file or a folder
	HTTP         string        // scoring over HTTP
	TLS          certs.Files   // of HTTP
	Metrics      string        // metrics and health; empty for none
	State        string        // state directory
	Secret       string        // file of the secret that gateways share; empty keeps one in State
	Library      string        // path of the ONNX Runtime library; empty looks for it
	CPUSlots     int           // runs side by side on the CPU; 0 means as many as cores
	Listen       string        // the lane, of a scorer
	Scorers      []string      // the lanes, of a gateway
	MaxBody      int           // bytes of a request's body
	AccessLog    string        // file of the access log; - is standard output, empty is none
	AccessShare  float64       // of the served requests that are written there
	MaxLarge     int64         // bytes of bodies over 64 KiB at a time
	DrainDelay   time.Duration // from not ready to no longer listening
	DrainTimeout time.Duration // for what runs then
	Version      string        // of the build
	Out          io.Writer     // for people
	Log          *slog.Logger
}

// front is the gateway half of a process.
type front struct {
	o        Options
	state    state.Dir
	registry *prometheus.Registry
	path     *gateway.Path
	compiler *snapshot.Compiler
	http     *httpapi.Server
	certs    *certs.Certs              // nil serves plain HTTP
	explain  func() []model.Explained  // of the models of this process; nil if it has none
	specs    map[string]*spec.Endpoint // what is served now
}

// apply makes s, compiled from endpoints, what requests see.
func (f *front) apply(s *gateway.Snapshot, endpoints []*spec.Endpoint) {
	if err := f.compiler.Apply(s); err != nil {
		f.o.Log.Error("sticky clients may move after a restart", "error", err)
	}
	f.specs = map[string]*spec.Endpoint{}
	for _, e := range endpoints {
		f.specs[e.Metadata.Name] = e
	}
}

// newRegistry makes a registry with what every process reports of itself.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

func newFront(o Options) (*front, error) {
	f := &front{o: o, registry: newRegistry()}
	var err error
	if f.state, err = state.Open(o.State); err != nil {
		return nil, err
	}
	m := metrics.New(f.registry)
	f.path = gateway.NewPath(gateway.Config{Refused: m.Refused()})
	f.registry.MustRegister(f.path)
	secret, err := f.state.Secret(o.Secret)
	if err != nil {
		return nil, err
	}
	f.compiler = snapshot.NewCompiler(snapshot.Config{Path: f.path, Metrics: m, Keys: f.keys, Secret: secret, Slots: f.state, Log: o.Log})
	if f.certs, err = certs.Load(o.TLS); err != nil {
		return nil, err
	}
	c := httpapi.Config{MaxBody: o.MaxBody, MaxLarge: o.MaxLarge, Version: o.Version, Log: o.Log}
	if f.certs != nil {
		c.TLS = f.certs.Config()
	}
	if c.Access, err = accessLog(o); err != nil {
		return nil, err
	}
	f.http = httpapi.New(f.path, c)
	return f, nil
}

// accessLog opens the access log; it is appended to.
func accessLog(o Options) (a httpapi.AccessLog, err error) {
	out := os.Stdout
	switch o.AccessLog {
	case "":
		return a, nil
	case "-":
	default:
		if out, err = os.OpenFile(o.AccessLog, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640); err != nil {
			return a, fmt.Errorf("open the access log: %w", err)
		}
	}
	return httpapi.AccessLog{Log: slog.New(slog.NewJSONHandler(out, nil)), Share: o.AccessShare}, nil
}

// start serves clients, says so, and keeps what that needs up to date until ctx
// ends. Errors go to failed.
func (f *front) start(ctx context.Context, failed chan<- error) {
	if f.certs != nil {
		go f.certs.Watch(ctx, f.o.Log)
	}
	http, err := listen(f.o.HTTP, f.http, failed)
	var metrics net.Addr
	if err == nil {
		metrics, err = listen(f.o.Metrics, admin(f.registry, f.http.Ready, f.explain), failed)
	}
	if err != nil {
		failed <- err
		return
	}
	f.announce(http, metrics)
}

// keys resolves an endpoint's keys. One whose environment variable is not set,
// and a primary key that is not given at all, is generated and kept.
func (f *front) keys(e *spec.Endpoint) (primary, secondary string, err error) {
	k := e.Spec.Auth.Keys
	if k.Primary == nil {
		primary, err = f.generated(e.Metadata.Name)
	} else {
		primary, err = f.key(k.Primary, e.Metadata.Name)
	}
	if err != nil || k.Secondary == nil {
		return primary, "", err
	}
	secondary, err = f.key(k.Secondary, e.Metadata.Name+"-secondary")
	return primary, secondary, err
}

// key reads a key from its source; name is what one that is not set is generated
// and kept under.
func (f *front) key(s *spec.KeySource, name string) (string, error) {
	key, err := s.Read(os.LookupEnv)
	if errors.Is(err, spec.ErrUnset) {
		return f.generated(name)
	}
	return key, err
}

// configure is what turns endpoints into what is served.
type configure func(context.Context, []*spec.Endpoint) error

// load reads the specification. Warnings are logged; the error has every finding.
func load(path string, log *slog.Logger) ([]*spec.Endpoint, error) {
	endpoints, findings := spec.Load(path)
	for _, e := range endpoints {
		findings = append(findings, e.Validate()...)
	}
	if err := findings.Err(); err != nil {
		return nil, err
	}
	for _, e := range endpoints {
		findings = append(findings, e.ClusterOnly()...)
		e.Default()
	}
	for _, w := range findings.Warnings() {
		log.Warn("specification", "finding", w.String())
	}
	if len(endpoints) == 0 {
		return nil, fmt.Errorf("%s has no endpoint", path)
	}
	return endpoints, nil
}

// run loads the specification, applies it again whenever it changes or SIGHUP
// comes, and returns when ctx ends or one of the servers fails.
func run(ctx context.Context, o Options, apply configure, started func(), failed <-chan error) error {
	endpoints, err := load(o.File, o.Log)
	if err != nil {
		return err
	}
	if err := apply(ctx, endpoints); err != nil {
		return err
	}
	started()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	changed := make(chan struct{})
	var keys atomic.Pointer[[]string]
	keys.Store(keyFiles(endpoints))
	go watch.Files(ctx, func() []string { return append([]string{o.File}, *keys.Load()...) }, func() {
		select {
		case changed <- struct{}{}:
		case <-ctx.Done():
		}
	})
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-hangup:
		case <-changed:
		}
		if endpoints := reload(ctx, o, apply); endpoints != nil {
			keys.Store(keyFiles(endpoints))
		}
	}
}

// keyFiles are the files of endpoints' keys.
func keyFiles(endpoints []*spec.Endpoint) *[]string {
	files := []string{}
	for _, e := range endpoints {
		for _, k := range []*spec.KeySource{e.Spec.Auth.Keys.Primary, e.Spec.Auth.Keys.Secondary} {
			if k != nil && k.File != "" {
				files = append(files, k.File)
			}
		}
	}
	return &files
}

// reload applies the specification anew. One that cannot be applied changes
// nothing, and nil is returned.
func reload(ctx context.Context, o Options, apply configure) []*spec.Endpoint {
	endpoints, err := load(o.File, o.Log)
	if err == nil {
		err = apply(ctx, endpoints)
	}
	if err != nil {
		o.Log.Error("specification not applied; what was served before goes on", "file", o.File, "error", err)
		return nil
	}
	o.Log.Info("specification applied", "file", o.File, "endpoints", len(endpoints))
	return endpoints
}

// server is something that serves a listener until it is shut down.
type server interface {
	Serve(net.Listener) error
}

// listen starts serving address in the background; an empty one is not served.
// Errors after that go to failed.
func listen(address string, s server, failed chan<- error) (net.Addr, error) {
	if address == "" {
		return nil, nil
	}
	network, address := split(address)
	if network == "unix" {
		_ = os.Remove(address) // what a process that was killed left behind
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	go func() {
		if err := s.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	}()
	return l.Addr(), nil
}

// split finds the network of an address: unix:///path, or host:port.
func split(address string) (network, rest string) {
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		return "unix", path
	}
	return "tcp", strings.TrimPrefix(address, "tcp://")
}

// admin is the server of metrics and health and, where models run, of what explains
// their batches.
func admin(r prometheus.Gatherer, ready func() bool, explain func() []model.Explained) *http.Server {
	routes := httpapi.Admin(r, ready)
	if explain != nil {
		routes = withBatching(routes, explain)
	}
	return &http.Server{Handler: routes, ReadHeaderTimeout: 10 * time.Second}
}

// drain ends the front: not ready, then no longer listening, then idle.
func (f *front) drain() error {
	f.o.Log.Info("draining", "in_flight", f.path.InFlight())
	f.http.Drain()
	time.Sleep(f.o.DrainDelay) // whoever routes here has this long to notice
	ctx, cancel := context.WithTimeout(context.Background(), f.o.DrainTimeout)
	defer cancel()
	if err := f.http.Shutdown(ctx); err != nil {
		return fmt.Errorf("drain: %w; %d requests were cut off", err, f.path.InFlight())
	}
	f.path.Close()
	f.compiler.Close()
	return nil
}
