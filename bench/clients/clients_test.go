// Package clients runs the clients that other servers' users have, unchanged, against
// the commands: tritonclient over gRPC and HTTP, ovmsclient for TF Serving, grpcurl.
package clients

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	"sluice.dev/accel/tensor"
	"sluice.dev/bench/onnx"
	"sluice.dev/gateway/grpcapi/inferencepb"
)

const (
	key     = "a-key-for-tests-0123456789"
	grpcurl = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4"
)

// python is the interpreter that has the clients.
func python(t *testing.T) string {
	t.Helper()
	return filepath.Join(installed(t, "clients", "requirements.txt"), "bin", "python")
}

// installed is the folder of what the Makefile's target clients makes of a list.
func installed(t *testing.T, name, list string) string {
	t.Helper()
	data, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(cache, "sluice", "tools", fmt.Sprintf("%s-%.6x", name, sha256.Sum256(data)))
	if _, err := os.Stat(filepath.Join(folder, "done")); err != nil {
		t.Skipf("%s is not installed; `make clients` fetches it", name)
	}
	return folder
}

// echo gives each of its inputs back, one of every type, [N,2].
func echo() []byte {
	var g onnx.Graph
	for d := tensor.Bool; d <= tensor.Bytes; d++ {
		if onnx.Types[d] > 0 {
			in, out := "in_"+d.String(), "out_"+d.String()
			g.Node("Identity", out, in)
			g.Input(in, d, 2)
			g.Output(out, d, 2)
		}
	}
	return g.Model("echo")
}

// slow takes a row of one number, and milliseconds to answer: it multiplies with one
// matrix again and again.
func slow() []byte {
	const width, times = 1024, 40
	var g onnx.Graph
	g.Weights("first", tensor.Float32, make([]byte, 4*width), 1, width)
	g.Weights("more", tensor.Float32, make([]byte, 4*width*width), width, width)
	g.Node("MatMul", "y0", "x", "first")
	for i := range times {
		g.Node("MatMul", fmt.Sprint("y", i+1), fmt.Sprint("y", i), "more")
	}
	g.Input("x", tensor.Float32, 1)
	g.Output(fmt.Sprint("y", times), tensor.Float32, width)
	return g.Model("slow")
}

// people gives back what it takes as classes and their scores.
func people() []byte {
	var g onnx.Graph
	g.Node("Identity", "classes", "name")
	g.Node("Identity", "scores", "size")
	g.Input("name", tensor.Bytes, 2)
	g.Input("size", tensor.Float32, 2)
	g.Output("classes", tensor.Bytes, 2)
	g.Output("scores", tensor.Float32, 2)
	return g.Model("people")
}

// sum adds a number and an integer.
func sum() []byte {
	var g onnx.Graph
	g.Node("CastLike", "number", "b", "a")
	g.Node("Add", "y", "a", "number")
	g.Input("a", tensor.Float32, 1)
	g.Input("b", tensor.Int64, 1)
	g.Output("y", tensor.Float32, 1)
	return g.Model("sum")
}

// specification is the digits example with a key, models that echo and that are slow, and
// models that take examples.
const specification = `apiVersion: sluice.dev/v1alpha1
kind: Endpoint
metadata: {name: digits}
spec:
  auth: {mode: key, keys: {primary: {value: ` + key + `}}}
  versions:
    - {name: linear, model: DIGITS/linear.onnx, trafficPercentile: 90, default: true, type: control}
    - {name: mlp, model: DIGITS/mlp.onnx, trafficPercentile: 10, type: treatment}
---
apiVersion: sluice.dev/v1alpha1
kind: Endpoint
metadata: {name: numbered}
spec:
  auth: {mode: key, keys: {primary: {value: ` + key + `}}}
  versions: [{name: "1", model: DIGITS/mlp.onnx}]
---
apiVersion: sluice.dev/v1alpha1
kind: Endpoint
metadata: {name: echo}
spec:
  auth: {mode: none}
  versions: [{name: "1", model: echo.onnx}]
---
apiVersion: sluice.dev/v1alpha1
kind: Endpoint
metadata: {name: slow}
spec:
  auth: {mode: none}
  versions: [{name: "1", model: slow.onnx}]
---
apiVersion: sluice.dev/v1alpha1
kind: Endpoint
metadata: {name: people}
spec:
  auth: {mode: none}
  versions: [{name: "1", model: people.onnx}]
---
apiVersion: sluice.dev/v1alpha1
kind: Endpoint
metadata: {name: sum}
spec:
  auth: {mode: none}
  versions: [{name: "1", model: sum.onnx}]
`

// server is a running command and where it listens.
type server struct{ http, grpc, metrics string }

// binary is the command, where TestMain has a folder for it, once build has made it.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "sluice-clients-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "sluice")
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// build makes the command for the first test that asks for it.
var build = sync.OnceValue(func() error {
	if out, err := exec.Command("go", "build", "-o", binary, "sluice.dev/cmd/sluice").CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w: %s", err, out)
	}
	return nil
})

// serve runs the command on a fresh specification, until the test ends.
func serve(t *testing.T) server {
	t.Helper()
	dir := t.TempDir()
	digits, err := filepath.Abs("../../examples/digits")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"endpoints.yaml": []byte(strings.ReplaceAll(specification, "DIGITS", digits)),
		"echo.onnx":      echo(), "slow.onnx": slow(), "people.onnx": people(), "sum.onnx": sum(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return start(t, "serve", "--file", filepath.Join(dir, "endpoints.yaml"), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--management", "",
		"--state", filepath.Join(dir, "state"), "--drain-delay", "10ms")
}

var serving = regexp.MustCompile(`msg=serving http=(\S+) grpc=(\S+) metrics=(\S+) `)

// start runs the command, and reads from its log where it serves.
func start(t *testing.T, args ...string) server {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	log := &lines{found: make(chan []string, 1)}
	cmd := exec.Command(binary, args...)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil || t.Failed() {
			t.Errorf("the server ended with %v:\n%s", err, &log.all)
		}
	})
	select {
	case at := <-log.found:
		return server{http: at[1], grpc: at[2], metrics: at[3]}
	case err := <-ended:
		ended <- err
		t.Fatal("the server ended before it served")
	case <-time.After(time.Minute):
		t.Fatal("the server does not serve")
	}
	return server{}
}

// lines are a log that is looked through as it is written, by one goroutine.
type lines struct {
	all   bytes.Buffer
	found chan []string // capacity 1
	done  bool
}

func (l *lines) Write(p []byte) (int, error) {
	l.all.Write(p)
	if at := serving.FindStringSubmatch(l.all.String()); at != nil && !l.done {
		l.done = true
		l.found <- at
	}
	return len(p), nil
}

func TestClients(t *testing.T) {
	interpreter := python(t)
	s, messages := serve(t), writeMessages(t)
	for _, script := range []string{"triton_grpc.py", "triton_aio.py", "triton_http.py", "tfserving.py", "messages.py", "kserve_client.py", "tfserving_api.py"} {
		t.Run(strings.TrimSuffix(script, ".py"), func(t *testing.T) { call(t, interpreter, s, script, "SLUICE_MESSAGES="+messages) })
	}
}

// call runs a script of tests against s.
func call(t *testing.T, interpreter string, s server, script string, env ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, interpreter, "-m", "unittest", "-v", script)
	cmd.Env = append(append(os.Environ(), "SLUICE_HTTP="+s.http, "SLUICE_GRPC="+s.grpc, "SLUICE_KEY="+key, "PYTHONDONTWRITEBYTECODE=1"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}

// A repository of which nothing is loaded.
func TestClientsManage(t *testing.T) {
	interpreter := python(t)
	call(t, interpreter, repository(t), "triton_manage.py")
}

// repository serves the digits example from a model repository, in a process that lets
// clients share memory.
func repository(t *testing.T, args ...string) server {
	t.Helper()
	dir := t.TempDir()
	model, err := os.ReadFile("../../examples/digits/linear.onnx")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"digits/1/model.onnx": model,
		"digits/labels.txt":   []byte("zero\none\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\n"),
		"digits/config.pbtxt": []byte("max_batch_size: 8\noutput { name: 'probabilities' data_type: TYPE_FP32 dims: [ 10 ] label_filename: 'labels.txt' }"),
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return start(t, append([]string{"serve", "--model-repository", dir, "--model-control-mode", "explicit", "--allow-client-shm", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0",
		"--metrics", "127.0.0.1:0", "--management", "", "--state", filepath.Join(t.TempDir(), "state"), "--drain-delay", "10ms"}, args...)...)
}

// writeMessages writes what the .proto files of the Open Inference Protocol say.
func writeMessages(t *testing.T) string {
	t.Helper()
	set := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{
		protodesc.ToFileDescriptorProto(inferencepb.File_gateway_grpcapi_inferencepb_inference_proto),
		protodesc.ToFileDescriptorProto(inferencepb.File_gateway_grpcapi_inferencepb_model_config_proto),
	}}
	data, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "messages")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestGrpcurl(t *testing.T) {
	s := serve(t)
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("go", append([]string{"run", grpcurl, "-plaintext"}, args...)...)
		cmd.Dir = t.TempDir() // of no module
		out, err := cmd.CombinedOutput()
		if err != nil {
			if strings.Contains(string(out), "dial tcp: lookup") || strings.Contains(string(out), "module lookup disabled") {
				t.Skipf("grpcurl cannot be fetched: %s", out)
			}
			t.Fatalf("grpcurl %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	if out := run(s.grpc, "list"); !strings.Contains(out, "inference.GRPCInferenceService") || !strings.Contains(out, "tensorflow.serving.PredictionService") {
		t.Errorf("list: %s", out)
	}
	if out := run("-d", `{"name":"echo"}`, s.grpc, "inference.GRPCInferenceService/ModelReady"); !strings.Contains(out, `"ready": true`) {
		t.Errorf("ready: %s", out)
	}
	pixels := strings.TrimSuffix(strings.Repeat("0,", 64), ",")
	body := `{"model_name":"digits","inputs":[{"name":"input","datatype":"FP32","shape":[1,64],"contents":{"fp32_contents":[` + pixels + `]}}]}`
	if out := run("-H", "authorization: Bearer "+key, "-d", body, s.grpc, "inference.GRPCInferenceService/ModelInfer"); !strings.Contains(out, `"rawOutputContents"`) {
		t.Errorf("infer: %s", out)
	}
	if out := run(s.grpc, "grpc.health.v1.Health/Check"); !strings.Contains(out, "SERVING") {
		t.Errorf("health: %s", out)
	}
}
