package cmd

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Tests against genuine servers, which 'make peers' installs: each runs where an
// environment variable names the server's command.

// peer runs the command that variable names in a folder with files, until the test ends.
func peer(t *testing.T, variable string, files map[string]string, args ...string) {
	t.Helper()
	command := os.Getenv(variable)
	if command == "" {
		t.Skipf("%s is not set; run 'make peers'", variable)
	}
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, command, args...)
	cmd.Dir = dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends its own children
	cmd.WaitDelay = 10 * time.Second
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was interrupted
		if t.Failed() {
			t.Log(log.String())
		}
	})
}

func listening(address string) func() bool {
	return func() bool {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		return c.Close() == nil
	}
}

func TestTheGenuineAzureMLServer(t *testing.T) {
	old := &container{address: free(t)}
	peer(t, "SLUICE_AZMLINFSRV", map[string]string{"score.py": `
import json
def init(): pass
def run(raw):
    return {"label": [-1] * len(json.loads(raw)["data"])}
`}, "--entry_script", "score.py", "--port", old.address[strings.LastIndex(old.address, ":")+1:])
	eventually(t, "listening", listening(old.address))
	_, base := serveMixed(t, writeMixed(t, "", old.spec()))
	pinned := append(bearer, "Azureml-Model-Deployment", "old")
	aml := read(t, digits+"requests/aml.json")
	eventually(t, "served by it", func() bool { return must(t, "POST", base+scoreDigits, aml, pinned...).status == 200 })
	served := map[string]int{}
	for range 200 {
		a := must(t, "POST", base+scoreDigits, aml, bearer...)
		version := a.header.Get("X-Sluice-Version")
		served[version]++
		if wanted := map[string]string{"old": `{"label": [-1]}`, "new": `{"label":[2]`}[version]; a.status != 200 || !strings.HasPrefix(string(a.body), wanted) || a.header.Get("X-Ms-Run-Fn-Exec-Ms") == "" {
			t.Fatalf("%s: %d %s %v", version, a.status, a.body, a.header)
		}
	}
	if served["old"] < 176 || served["old"] > 184 {
		t.Errorf("of 200 requests %v; want 180 and 20", served)
	}
	if a := must(t, "POST", base+scoreDigits, []byte(`{}`), pinned...); a.status != 502 || !strings.Contains(string(a.body), "An unexpected error occurred in scoring script") {
		t.Errorf("a script that fails: %d %s", a.status, a.body)
	}
}

func TestTheGenuineMLServer(t *testing.T) {
	rest, grpc, metrics := free(t), free(t), free(t)
	port := func(address string) string { return address[strings.LastIndex(address, ":")+1:] }
	peer(t, "SLUICE_MLSERVER", map[string]string{
		"m.py": `
import numpy
from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput
class M(MLModel):
    async def load(self): return True
    async def predict(self, r):
        x = numpy.array(r.inputs[0].data, dtype=numpy.float32).reshape(r.inputs[0].shape)
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[
            ResponseOutput(name="sum", shape=[len(x)], datatype="INT64", data=[int(v) for v in x.sum(axis=1)])])
`,
		"settings.json": fmt.Sprintf(`{"host":"127.0.0.1","http_port":%s,"grpc_port":%s,"metrics_port":%s,"parallel_workers":0}`, port(rest), port(grpc), port(metrics)),
		"model-settings.json": `{"name":"sums","implementation":"m.M","platform":"numpy","inputs":[{"name":"x","datatype":"FP32","shape":[-1,2]}],
			"outputs":[{"name":"sum","datatype":"INT64","shape":[-1]}]}`,
	}, "start", ".")
	eventually(t, "listening", listening(rest))
	dir, http, admin := t.TempDir(), free(t), free(t)
	file := filepath.Join(dir, "endpoint.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, `apiVersion: sluice.dev/v1alpha1
kind: Endpoint
metadata: {name: digits}
spec:
  auth: {mode: none}
  versions:
    - {name: rest, trafficPercentile: 50, upstream: {http: {urls: ["http://%s"], protocol: oip, model: sums}}}
    - {name: grpc, trafficPercentile: 50, upstream: {grpc: {addresses: ["%s"], model: sums}}}
`, rest, grpc), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "sluice", "serve", "--file", file, "--http", http, "--metrics", admin, "--state", filepath.Join(dir, "state"), "--drain-delay", "10ms")
	t.Cleanup(p.stop)
	base := "http://" + http
	eventually(t, "ready", func() bool {
		a, err := call("GET", base+"/v2/models/digits/ready", nil)
		return err == nil && a.status == 200
	})
	infer := []byte(`{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,2,3,4]}]}`)
	for range 50 {
		if a := must(t, "POST", base+"/v2/models/digits/infer", infer); a.status != 200 || !strings.Contains(string(a.body), `"data":[3,7]`) {
			t.Fatalf("%s: %d %s", a.header.Get("X-Sluice-Version"), a.status, a.body)
		}
	}
	a := must(t, "POST", base+scoreDigits, []byte(`{"data":[[1,2],[3,4]]}`), "Azureml-Model-Deployment", "grpc")
	if a.status != 200 || string(a.body) != `{"sum":[3,7]}` {
		t.Errorf("Azure ML's protocol over gRPC: %d %s", a.status, a.body)
	}
	a = must(t, "GET", base+"/v2/models/digits/versions/rest", nil)
	if a.status != 200 || !strings.Contains(string(a.body), `{"name":"x","datatype":"FP32","shape":[-1,2]}`) {
		t.Errorf("metadata: %d %s", a.status, a.body)
	}
}
