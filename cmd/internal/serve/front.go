// Package serve assembles the processes: what listens, what is loaded, how a
// changed file becomes what requests see, and how it all ends.
package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"sluice.dev/cmd/internal/certs"
	"sluice.dev/cmd/internal/logfile"
	"sluice.dev/cmd/internal/state"
	"sluice.dev/cmd/internal/watch"
	"sluice.dev/deploy/spec"
	"sluice.dev/gateway"
	"sluice.dev/gateway/grpcapi"
	"sluice.dev/gateway/httpapi"
	"sluice.dev/gateway/metrics"
	"sluice.dev/gateway/snapshot"
	"sluice.dev/gateway/triton"
	"sluice.dev/scorer/model"
	"sluice.dev/scorer/shm"
)

// Options of a process. Each uses those that it needs.
type Options struct {
	File         string        // specification: a file or a folder
	HTTP         string        // scoring over HTTP
	GRPC         string        // scoring over gRPC; empty for none
	TLS          certs.Files   // of HTTP, GRPC, Management, and Metrics with tls://
	LaneTLS      certs.Files   // of lanes with tls://, and Metrics of a scorer
	Management   string        // keys and tokens; empty for none
	Metrics      string        // metrics and health; empty for none
	State        string        // state directory
	Secret       string        // file of the secret that gateways share; empty keeps one in State
	Library      string        // path of the ONNX Runtime library; empty looks for it
	CPUSlots     int           // runs side by side on the CPU; 0 means as many as cores
	Listen       string        // the lane, of a scorer
	Scorers      []string      // the lanes, of a gateway
	Repository   Repository    // of models that Sluice serves beside File's
	OpenManage   bool          // Triton's management calls need no credential
	NVMetrics    bool          // metrics have Triton's names, too
	ClientMemory bool          // tensors may be in clients' shared memory
	MaxBody      int           // bytes of a request's body
	AccessLog    string        // file of the access log; - is standard output, empty is none
	AccessShare  float64       // of the served requests that are written there
	MaxLarge     int64         // bytes of bodies over 64 KiB at a time
	HTTPLimits   HTTPLimits    // of scoring over HTTP
	DrainDelay   time.Duration // from not ready to no longer listening
	DrainTimeout time.Duration // for what runs then
	Version      string        // of the build
	Out          io.Writer     // for people
	Log          *slog.Logger
	Levels       *Levels // of Log
}

// HTTPLimits are what one client may take of scoring over HTTP before it is known
// who it is. Zero is the default of each.
type HTTPLimits struct {
	Connections          int           // at a time
	ConnectionsPerClient int           // of one address
	Head                 int           // bytes of a request's head
	Handshake            time.Duration // for a TLS handshake
	Read                 time.Duration // for a whole request once it began
	Write                time.Duration // to take what is written at once of an answer
	Idle                 time.Duration // between requests
}

// front is the gateway half of a process.
type front struct {
	o        Options
	state    state.Dir
	registry *prometheus.Registry
	path     *gateway.Path
	compiler *snapshot.Compiler
	http     *httpapi.Server
	grpc     *grpcapi.Server
	access   *logfile.File // nil is none
	keeper   *keeper
	others   *upstreams
	certs    *certs.Certs // nil serves in plain text
	keys     *keyring
	models   *models
	explain  func() []model.Explained                  // of the models of this process; nil if it has none
	memory   *shm.Regions                              // nil allows none
	admin    string                                    // the management key; empty for none
	managed  string                                    // URL of the management API; empty for none
	manager  *http.Server                              // serves it; nil for none
	specs    atomic.Pointer[map[string]*spec.Endpoint] // what is served now
}

// compile makes the next snapshot, whose keys are kept.
func (f *front) compile(endpoints []*spec.Endpoint) (*gateway.Snapshot, error) {
	s, err := f.compiler.Compile(endpoints)
	if err != nil {
		return nil, err
	}
	return s, f.keys.keep()
}

// apply makes s, compiled from endpoints, what requests see.
func (f *front) apply(s *gateway.Snapshot, endpoints []*spec.Endpoint) {
	if err := f.compiler.Apply(s); err != nil {
		f.o.Log.Error("sticky clients may move after a restart", "error", err)
	}
	specs := map[string]*spec.Endpoint{}
	for _, e := range endpoints {
		specs[e.Metadata.Name] = e
	}
	f.specs.Store(&specs)
	f.keys.forget(specs)
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
	f.keeper = newKeeper(f.registry, f.state, o.File)
	f.keys = newKeyring(f.state, o.Out)
	m := metrics.New(f.registry)
	secret, err := f.state.Secret(o.Secret)
	if err != nil {
		return nil, err
	}
	f.path = gateway.NewPath(gateway.Config{Refused: m.Refused(""), Secret: secret})
	f.registry.MustRegister(f.path)
	f.others = newUpstreams(f.path, o)
	f.compiler = snapshot.NewCompiler(snapshot.Config{Path: f.path, Metrics: m, Keys: f.keys.find, Secret: secret, Slots: f.state, Log: o.Log})
	if o.TLS != (certs.Files{}) {
		if f.certs, err = certs.Load(o.TLS); err != nil {
			return nil, fmt.Errorf("--tls-cert: %w", err)
		}
	}
	c := httpapi.Config{
		MaxBody: o.MaxBody, MaxLarge: o.MaxLarge, MaxHeader: o.HTTPLimits.Head, MaxConnections: o.HTTPLimits.Connections,
		MaxConnectionsPerClient: o.HTTPLimits.ConnectionsPerClient, HandshakeTimeout: o.HTTPLimits.Handshake, ReadTimeout: o.HTTPLimits.Read,
		WriteTimeout: o.HTTPLimits.Write, IdleTimeout: o.HTTPLimits.Idle, Version: o.Version, Log: o.Log,
	}
	g := grpcapi.Config{MaxBody: o.MaxBody, MaxReceiving: o.MaxLarge, Version: o.Version, Log: o.Log}
	if f.certs != nil {
		if c.TLS, err = f.certs.Server("http/1.1"); err != nil {
			return nil, fmt.Errorf("--tls-cert: %w", err)
		}
		if g.TLS, err = f.certs.Server("h2"); err != nil {
			return nil, fmt.Errorf("--tls-cert: %w", err)
		}
	}
	if c.Access, err = f.accessLog(); err != nil {
		return nil, err
	}
	g.Access = c.Access
	extensions, err := f.extensions()
	if err != nil {
		return nil, err
	}
	c.Triton, g.Triton = extensions(o.HTTP), extensions(o.GRPC)
	f.http, f.grpc = httpapi.New(f.path, c), grpcapi.New(f.path, g)
	f.registry.MustRegister(f.http, f.grpc)
	return f, nil
}

// extensions makes what Triton's clients may ask beside scoring, for those that
// connect to an address. What is about the process takes the management key, and
// nobody needs it where all who can connect are on this machine and a model
// repository is served, or where that is wanted.
func (f *front) extensions() (at func(address string) *triton.Extensions, err error) {
	if f.admin, err = f.managementKey(); err != nil {
		return nil, err
	}
	f.models = newModels(f.o.Repository, f.o.Log)
	c := triton.Config{Path: f.path, Key: f.admin, Log: f.o.Levels}
	if f.o.Repository.Dir != "" {
		c.Models = f.models
	}
	if f.o.ClientMemory {
		f.memory = shm.New()
		c.Regions = f.memory
	}
	return func(address string) *triton.Extensions {
		c.Open = f.o.OpenManage || c.Models != nil && local(address)
		return triton.New(c)
	}, nil
}

// local reports whether only this machine can connect to an address.
func local(address string) bool {
	network, rest, _ := split(address)
	host, _, err := net.SplitHostPort(rest)
	return network == "unix" || err == nil && (host == "localhost" || net.ParseIP(host).IsLoopback())
}

// accessLog opens the access log, if there is to be one. It is appended to, and
// SIGHUP opens its file anew.
func (f *front) accessLog() (a gateway.AccessLog, err error) {
	switch f.o.AccessLog {
	case "":
		return a, nil
	case "-":
		f.access = logfile.To(os.Stdout, f.o.Log)
	default:
		hangup := make(chan os.Signal, 1)
		signal.Notify(hangup, syscall.SIGHUP)
		if f.access, err = logfile.Open(f.o.AccessLog, hangup, f.o.Log); err != nil {
			return a, fmt.Errorf("open the access log: %w", err)
		}
	}
	f.registry.MustRegister(f.access)
	return gateway.AccessLog{Log: slog.New(slog.NewJSONHandler(f.access, nil)), Share: f.o.AccessShare}, nil
}

// start serves clients, says so, and keeps what that needs up to date until ctx
// ends. Metrics, which tell whether the process is ready, come last: whoever hears
// that it is finds all the others. Errors go to failed.
func (f *front) start(ctx context.Context, failed chan<- error) {
	if f.certs != nil {
		go f.certs.Watch(ctx, f.o.Log)
	}
	http, err := listen(f.o.HTTP, nil, f.http, failed)
	var grpc, management, metrics net.Addr
	if err == nil {
		grpc, err = listen(f.o.GRPC, nil, f.grpc, failed)
	}
	if err == nil {
		management, err = f.manage(failed)
	}
	if err == nil {
		metrics, err = listen(f.o.Metrics, f.certs, admin(f.registry, f.http.Ready, f.explain), failed)
	}
	if err != nil {
		failed <- err
		return
	}
	f.announce(http, grpc, metrics, management)
}

// configure is what turns endpoints into what is served.
type configure func(context.Context, []*spec.Endpoint) error

// check finds what is wrong with an endpoint, and sets its defaults.
func check(e *spec.Endpoint, validate func(*spec.Endpoint) spec.Findings) spec.Findings {
	findings := validate(e)
	if findings.Err() == nil {
		findings = append(findings, e.ClusterOnly()...)
		e.Default()
	}
	return findings
}

// load reads the specification, of which files may be as l knows them. Warnings are
// logged; the error has every finding.
func load(o Options, l *spec.Loader) ([]*spec.Endpoint, error) {
	if o.File == "" {
		return nil, nil // there is a model repository
	}
	validate := (*spec.Endpoint).Validate
	if o.Repository.Dir != "" {
		validate = (*spec.Endpoint).ValidateRegistered
	}
	l.Check = func(e *spec.Endpoint) spec.Findings { return check(e, validate) }
	endpoints, findings := l.Load(o.File)
	if err := findings.Err(); err != nil {
		return nil, err
	}
	for _, w := range findings.Warnings() {
		o.Log.Warn("specification", "finding", w.String())
	}
	if len(endpoints) == 0 {
		return nil, fmt.Errorf("%s has no endpoint", o.File)
	}
	return endpoints, nil
}

// first applies the specification; where that cannot be done, what was served last.
func first(ctx context.Context, o Options, k *keeper, apply configure) ([]*spec.Endpoint, error) {
	endpoints, err := load(o, &k.loader)
	if err == nil {
		if err = apply(ctx, endpoints); err == nil {
			return endpoints, k.applied()
		}
	}
	k.failed()
	kept := k.last()
	if kept == nil {
		return nil, err
	}
	o.Log.Error("specification not applied; what was served last is", "file", o.File, "error", err)
	if again := apply(ctx, kept); again != nil {
		return nil, errors.Join(err, fmt.Errorf("what was served last: %w", again))
	}
	return kept, nil
}

// run applies the specification, applies it again whenever it changes or SIGHUP
// comes, and returns when ctx ends or one of the servers fails.
func run(ctx context.Context, o Options, k *keeper, apply configure, started func(), failed <-chan error) error {
	seen := watch.Now([]string{o.File})
	endpoints, err := first(ctx, o, k, apply)
	if err != nil {
		return err
	}
	started()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	changed := make(chan struct{})
	var keys atomic.Pointer[[]string]
	keys.Store(keyFiles(endpoints))
	maps.Copy(seen, watch.Now(*keys.Load()))
	go watch.Files(ctx, seen, func() []string { return append([]string{o.File}, *keys.Load()...) }, func() {
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
		if endpoints := reload(ctx, o, k, apply); endpoints != nil {
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
func reload(ctx context.Context, o Options, k *keeper, apply configure) []*spec.Endpoint {
	endpoints, err := load(o, &k.loader)
	if err == nil {
		err = apply(ctx, endpoints)
	}
	if err != nil {
		k.failed()
		o.Log.Error("specification not applied; what was served before goes on", "file", o.File, "error", err)
		return nil
	}
	if err := k.applied(); err != nil {
		o.Log.Error("specification served, and not kept for the next start", "error", err)
	}
	o.Log.Info("specification applied", "file", o.File, "endpoints", len(endpoints))
	return endpoints
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
	f.grpc.Drain()
	if f.access != nil {
		defer func() {
			if err := f.access.Close(time.Second); err != nil {
				f.o.Log.Error("access log not closed", "error", err)
			}
		}()
	}
	time.Sleep(f.o.DrainDelay) // whoever routes here has this long to notice
	ctx, cancel := context.WithTimeout(context.Background(), f.o.DrainTimeout)
	defer cancel()
	ended := make(chan error, 2)
	go func() { ended <- f.grpc.Shutdown(ctx) }()
	go func() { ended <- f.endManagement(ctx) }()
	if err := errors.Join(f.http.Shutdown(ctx), <-ended, <-ended); err != nil {
		return fmt.Errorf("drain: %w; %d requests were cut off", err, f.path.InFlight())
	}
	f.compiler.Close()
	f.others.close()
	f.path.Close()
	return nil
}
