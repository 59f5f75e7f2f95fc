package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.dev/accel/tensor"
	"sluice.dev/bench/onnx"
	"sluice.dev/scorer/model"
)

// same writes a model that gives rows of one string back.
func same(t *testing.T, path string) {
	t.Helper()
	var g onnx.Graph
	g.Input("x", tensor.Bytes, 1)
	g.Node("Identity", "y", "x")
	g.Output("y", tensor.Bytes, 1)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, g.Model("same"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// batched is a repository with dynamic batchers, each of which says more of itself.
type batched struct {
	tritonLike
	admin string
	ctx   context.Context // of its clients
}

func serveBatched(t *testing.T, batchers map[string]string) batched {
	t.Helper()
	dir := t.TempDir()
	for name, text := range batchers {
		put(t, dir, map[string]string{name + "/config.pbtxt": "max_batch_size: 3 dynamic_batching { " + text + " }"})
		same(t, filepath.Join(dir, name, "1", "model.onnx"))
	}
	admin := free(t)
	return batched{serveRepository(t, dir, "--metrics", admin), admin, t.Context()}
}

// waiting is how many requests wait for a model's device.
func (b batched) waiting(name string) int {
	a, err := call(http.MethodGet, "http://"+b.admin+"/batching", nil)
	var list []model.Explained
	if err != nil || json.Unmarshal(a.body, &list) != nil {
		b.t.Fatalf("batching: %v, %s", err, a.body)
	}
	for i := range list {
		if list[i].Endpoint == name {
			return list[i].Waiting
		}
	}
	return -1
}

// sluiceCommand is what a command that must end well writes.
func sluiceCommand(t *testing.T, args ...string) []byte {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(dir, "sluice"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("sluice %v: %v, %s", args, err, out)
	}
	return out
}

// texts is a request of n rows.
func texts(n int, parameters string) []byte {
	return fmt.Appendf(nil, `{"parameters":{%s},"inputs":[{"name":"x","datatype":"BYTES","shape":[%d,1],"data":["a\u0000b"%s]}]}`, parameters, n, strings.Repeat(`,""`, n-1))
}

// ask sends a request, whose answer comes later.
func (b batched) ask(name string, n int, parameters string) chan answer {
	answers := make(chan answer, 1)
	req, err := http.NewRequestWithContext(b.ctx, http.MethodPost, b.url+"/v2/models/"+name+"/infer", bytes.NewReader(texts(n, parameters)))
	if err != nil {
		b.t.Fatal(err)
	}
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			answers <- answer{body: []byte(err.Error())}
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answers <- answer{resp.StatusCode, resp.Header, body}
	}()
	return answers
}

// wait sends a request, and returns when it waits as the nth.
func (b batched) wait(name string, n int, parameters string, nth int) chan answer {
	b.t.Helper()
	answers := b.ask(name, n, parameters)
	eventually(b.t, "waiting", func() bool { return b.waiting(name) == nth })
	return answers
}

// got holds an answer that must come against what it is.
func (b batched) got(answers chan answer, status int, text string) {
	b.t.Helper()
	select {
	case a := <-answers:
		if a.status != status || !strings.Contains(string(a.body), text) {
			b.t.Errorf("answered %d %s; want %d with %s", a.status, a.body, status, text)
		}
	case <-time.After(30 * time.Second):
		b.t.Errorf("no answer; want %d with %s", status, text)
	}
}

// The settings of Triton's dynamic batcher do here what they do there. The delay is
// so long that nothing runs but by the rule.
func TestTritonsDynamicBatcher(t *testing.T) {
	t.Parallel()
	const long = "max_queue_delay_microseconds: 3600000000 "
	b := serveBatched(t, map[string]string{
		"delay":  "max_queue_delay_microseconds: 200000",
		"full":   long + "default_queue_policy { max_queue_size: 2 }",
		"order":  long + "preferred_batch_size: [ 3 ] priority_levels: 10",
		"refuse": long + "default_queue_policy { default_timeout_microseconds: 3600000000 allow_timeout_override: true }",
		"strict": long + "default_queue_policy { default_timeout_microseconds: 1000 }",
	})
	for name, want := range map[string]string{
		"delay":  "batches are formed by Triton's rule, after 200ms\n",
		"full":   "after 1h0m0s; at most 2 requests wait\n",
		"order":  "or at [3] rows; 10 priorities, 5 where a request has none\n",
		"refuse": "who waited for 1h0m0s is refused; or for its own shorter timeout\n",
	} {
		out := string(sluiceCommand(t, "explain", "batching", name, "--metrics", b.admin))
		if !strings.Contains(out, want) || !strings.Contains(out, ": 3 rows per run at most") {
			t.Errorf("%s is explained as\n%s\nwithout %s", name, out, want)
		}
	}

	began := time.Now()
	b.got(b.ask("delay", 1, ""), 200, `"data":["a\u0000b"]`)
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("a lone request was answered after %v, before the delay was over", took)
	}

	leaving := b
	var leave context.CancelFunc
	leaving.ctx, leave = context.WithCancel(b.ctx)
	first, second := leaving.wait("full", 1, "", 1), leaving.wait("full", 1, "", 2)
	b.got(b.ask("full", 1, ""), 503, "Exceeds maximum queue size")
	leave()
	b.got(first, 0, "canceled")
	b.got(second, 0, "canceled")
	eventually(t, "left", func() bool { return b.waiting("full") == 0 })

	low, lower := b.wait("order", 1, `"priority":10`, 1), b.wait("order", 1, `"priority":10`, 2)
	b.got(b.ask("order", 2, `"priority":1`), 200, `"shape":[2,1]`) // with the first of the low ones
	b.got(low, 200, `"shape":[1,1]`)
	if n := b.waiting("order"); n != 1 {
		t.Errorf("%d requests wait behind the one of the highest priority; want 1", n)
	}
	b.got(b.ask("order", 2, ""), 200, `"shape":[2,1]`)
	b.got(lower, 200, `"shape":[1,1]`)

	b.got(b.ask("refuse", 1, `"timeout":1000`), 504, "Request timeout expired")
	b.got(b.ask("strict", 1, ""), 504, "Request timeout expired")
	b.stop()
}
