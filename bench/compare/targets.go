package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sluice.dev/bench/load"
)

const benchKey = "a-key-for-benchmarks-0123456789"

// target is something that is measured.
type target struct {
	name     string
	address  string
	request  *load.Request
	pids     []int // whose CPU time counts
	baseline int   // index of the echo with the same bodies
	goal     float64
	varies   bool // the answers differ in more than their length
}

// processes are those that were started.
type processes []*exec.Cmd

func (p *processes) start(name string, args ...string) (int, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "BENCH_KEY="+benchKey)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second // a child may outlive its parent, and hold its output
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start %s: %w", name, err)
	}
	*p = append(*p, cmd)
	return cmd.Process.Pid, nil
}

func (p *processes) stop() {
	for _, cmd := range *p {
		_ = cmd.Process.Signal(syscall.SIGTERM) // a peer ends its own children
	}
	for _, cmd := range *p {
		end := time.AfterFunc(2*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		end.Stop()
	}
}

// free is an address that nobody listens on.
func free() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err) // the loopback has ports
	}
	defer l.Close()
	return l.Addr().String()
}

// listening waits until address accepts.
func listening(address string) error {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", address); err == nil {
			return c.Close()
		}
	}
	return fmt.Errorf("nobody listens on %s", address)
}

// requests are one row in JSON and in raw tensors.
func requests(endpoint, input string, width int) (jsonReq, rawReq *load.Request) {
	row, values := make([]byte, 0, 4*width), make([]int, width)
	for i := range width {
		values[i] = i * 7 % 17
		row = binary.LittleEndian.AppendUint32(row, math.Float32bits(float32(values[i])))
	}
	data, _ := json.Marshal(values) // of integers: cannot fail
	path, auth := "/v2/models/"+endpoint+"/infer", "Authorization: Bearer "+benchKey
	jsonReq = &load.Request{Path: path, Headers: []string{auth, "Content-Type: application/json"},
		Body: fmt.Appendf(nil, `{"inputs":[{"name":%q,"shape":[1,%d],"datatype":"FP32","data":%s}]}`, input, width, data)}
	head := fmt.Appendf(nil, `{"inputs":[{"name":%q,"shape":[1,%d],"datatype":"FP32","parameters":{"binary_data_size":%d}}],"parameters":{"binary_data_output":true}}`, input, width, len(row))
	rawReq = &load.Request{Path: path, Headers: []string{auth, "Inference-Header-Content-Length: " + strconv.Itoa(len(head))}, Body: append(head, row...)}
	return jsonReq, rawReq
}

// start starts everything. stop ends it, also after an error.
func start(dir string) (list []*target, stop func(), err error) {
	p := &processes{}
	model, err := filepath.Abs("examples/digits/mlp.onnx")
	if err != nil {
		return nil, p.stop, err
	}
	one, err := p.sluice(dir, "digits", model, "")
	if err != nil {
		return nil, p.stop, err
	}
	two, err := p.pair(dir, model)
	if err != nil {
		return nil, p.stop, err
	}
	jsonReq, rawReq := requests("digits", "input", 64)
	nullJSON, nullRaw := requests("null", "input", 64)
	for i, q := range []*load.Request{jsonReq, rawReq} {
		kind := []string{"JSON", "binary"}[i]
		pid, address, err := p.echo(dir, kind, one.address, q, 0)
		if err != nil {
			return nil, p.stop, err
		}
		base := len(list)
		list = append(list,
			&target{name: "echo, " + kind, address: address, request: q, pids: []int{pid}, baseline: base},
			&target{name: "sluice serve, digits mlp, " + kind, address: one.address, request: q, pids: one.pids, baseline: base, goal: []float64{1.8, 1.5}[i]},
			&target{name: "gateway + scorer, null, " + kind, address: two.address, request: []*load.Request{nullJSON, nullRaw}[i], pids: two.pids, baseline: base, goal: 1.7})
		for _, proxy := range []func(*processes, string, string) (int, string, error){haproxy, nginx} {
			proxyPid, at, err := proxy(p, dir, address)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				continue
			}
			list = append(list, &target{name: peerName(proxyPid) + " + echo, " + kind, address: at, request: q, pids: append(children(proxyPid), proxyPid, pid), baseline: base})
		}
	}
	return list, p.stop, nil
}

// sluice starts sluice serve with one version of model.
func (p *processes) sluice(dir, name, model, more string, flags ...string) (*target, error) {
	file, err := endpoint(dir, name, model, more)
	if err != nil {
		return nil, err
	}
	http, admin := free(), free()
	args := append([]string{"serve", "--file", file, "--http", http, "--grpc", "", "--metrics", admin, "--management", "", "--state", dir}, flags...)
	pid, err := p.start(filepath.Join(*binaries, "sluice"), args...)
	if err != nil {
		return nil, err
	}
	return &target{address: http, pids: []int{pid}}, ready("http://" + admin + "/readyz")
}

// pair starts a scorer of a null model, and its gateway.
func (p *processes) pair(dir, model string) (*target, error) {
	file, err := endpoint(dir, "null", model, `, accelerator: "null"`)
	if err != nil {
		return nil, err
	}
	http, admin, lane := free(), free(), "unix://"+filepath.Join(dir, "lane")
	scorer, err := p.start(filepath.Join(*binaries, "scorer"), "--file", file, "--listen", lane, "--metrics", "")
	if err != nil {
		return nil, err
	}
	gateway, err := p.start(filepath.Join(*binaries, "gateway"), "--file", file, "--scorer", lane, "--http", http, "--grpc", "", "--metrics", admin, "--management", "", "--state", dir)
	if err != nil {
		return nil, err
	}
	return &target{address: http, pids: []int{gateway, scorer}}, ready("http://" + admin + "/readyz")
}

// echo starts the baseline for a request: it answers with the bytes of like, after
// computing for as long as work.
func (p *processes) echo(dir, kind, like string, q *load.Request, work time.Duration) (int, string, error) {
	body, err := load.Once(like, q)
	if err != nil {
		return 0, "", fmt.Errorf("%s: %w", kind, err)
	}
	path := filepath.Join(dir, "echo-"+kind)
	if err := os.WriteFile(path, body, 0o600); err != nil {
		return 0, "", err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, "", err
	}
	address := free()
	pid, err := p.start(self, "-echo", address, "-echo-body", path, "-echo-work", work.String())
	if err != nil {
		return 0, "", err
	}
	return pid, address, listening(address)
}

func haproxy(p *processes, dir, upstream string) (int, string, error) {
	at := free()
	return p.proxy(dir, "haproxy", at, []string{"-f"}, fmt.Sprintf(`global
  nbthread 1
  maxconn 1000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend in
  bind %s
  default_backend out
backend out
  server s %s
`, at, upstream))
}

func nginx(p *processes, dir, upstream string) (int, string, error) {
	at := free()
	return p.proxy(dir, "nginx", at, []string{"-g", "daemon off; pid " + filepath.Join(dir, "nginx.pid."+strings.TrimPrefix(at, "127.0.0.1:")) + ";", "-e", "stderr", "-c"}, fmt.Sprintf(`worker_processes 1;
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

// proxy starts a peer with a configuration file as its last argument.
func (p *processes) proxy(dir, name, at string, args []string, config string) (int, string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return 0, "", fmt.Errorf("%s is not installed: no row (apt-get install %s)", name, name)
	}
	file := filepath.Join(dir, name+strings.TrimPrefix(at, "127.0.0.1:")+".conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return 0, "", err
	}
	pid, err := p.start(path, append(args, file)...)
	if err != nil {
		return 0, "", err
	}
	return pid, at, listening(at)
}
