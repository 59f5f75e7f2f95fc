package httpapi

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"sluice.dev/gateway"
	"sluice.dev/gateway/triton"
	"sluice.dev/scorer"
)

// repository is a model repository of one model, m.
type repository struct {
	config string
	loaded bool
}

func (r *repository) Index() []triton.Entry {
	return []triton.Entry{{Name: "m", Version: "1", State: triton.Ready}, {Name: "n", State: triton.Unavailable, Reason: "unloaded"}}
}

func (r *repository) Load(_ context.Context, name string, config []byte) error {
	if name != "m" {
		return scorer.Errorf(scorer.NotFound, "failed to load '%s', failed to poll from model repository", name)
	}
	r.config, r.loaded = string(config), true
	return nil
}

func (r *repository) Unload(context.Context, string) error { r.loaded = false; return nil }

// logger keeps settings.
type logger struct{ triton.LogSettings }

func (l *logger) Settings() triton.LogSettings { return l.LogSettings }
func (l *logger) Set(s triton.LogSettings)     { l.LogSettings = s }

// regions is shared memory of one region, r.
type regions struct{ registered []scorer.Region }

func (r *regions) Register(name, key string, offset, size uint64) error {
	r.registered = append(r.registered, scorer.Region{Name: name, Key: key, Offset: offset, Size: size})
	return nil
}
func (r *regions) Unregister(string) { r.registered = nil }
func (r *regions) Status(name string) ([]scorer.Region, error) {
	if name != "" {
		return nil, scorer.Errorf(scorer.NotFound, "Unable to find system shared memory region: '%s'", name)
	}
	return append([]scorer.Region{}, r.registered...), nil
}

// asks calls an HTTP server.
func asks(t *testing.T, method, url, body string, header ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(got), resp.Header
}

func TestTritonsExtensionsAnswerAsTriton(t *testing.T) {
	repo, log, memory := &repository{}, &logger{triton.LogSettings{Info: true, Warning: true, Error: true, Format: "default"}}, &regions{}
	address, _ := serve(t, Config{}, func(p *gateway.Path, c *Config) {
		c.Triton = triton.New(triton.Config{Path: p, Models: repo, Log: log, Regions: memory, Open: true})
	})
	f := func(method, path, body string, status int, want string) {
		t.Helper()
		got, answer, _ := asks(t, method, "http://"+address+path, body)
		if got != status || answer != want {
			t.Errorf("%s %s %s: answered\n%d %s\nwant\n%d %s", method, path, body, got, answer, status, want)
		}
	}
	stats := `{"model_stats":[{"name":"e","version":"v","last_inference":0,"inference_count":7,"execution_count":0,"inference_stats":{"success":{"count":3,"ns":50},` +
		`"fail":{"count":0,"ns":0},"queue":{"count":0,"ns":0},"compute_input":{"count":0,"ns":0},"compute_infer":{"count":0,"ns":0},"compute_output":{"count":0,"ns":0},` +
		`"cache_hit":{"count":0,"ns":0},"cache_miss":{"count":0,"ns":0}},"batch_stats":[{"batch_size":2,"compute_input":{"count":0,"ns":0},"compute_infer":{"count":0,"ns":0},` +
		`"compute_output":{"count":0,"ns":0}}],"response_stats":{},"memory_usage":[]}]}`
	f("GET", "/v2/models/stats", "", 200, stats)
	f("GET", "/v2/models/e/stats", "", 200, stats)
	f("GET", "/v2/models/e/versions/v/stats", "", 200, stats)
	f("GET", "/v2/models/nope/stats", "", 400, `{"error":"requested model 'nope' is not available"}`)
	f("GET", "/v2/models/e/versions/9/stats", "", 400, `{"error":"requested model 'e', version 9 is not available"}`)
	f("POST", "/v2/models/e/stats", "", 405, `{"error":"Method Not Allowed"}`)
	f("GET", "/v2/models/e/config", "", 200, `{"name":"e","max_batch_size":4}`)
	f("GET", "/v2/models/nope/config", "", 404, `{"error":"Request for unknown model: 'nope' is not found"}`)
	f("GET", "/v2/models/e/versions/99/config", "", 404, `{"error":"Request for unknown model: 'e' version 99 is not found"}`)
	f("POST", "/v2/models/e/generate", "{}", 501, `{"error":"generate and generate_stream are not offered: no model of this server produces text; use infer"}`)

	f("POST", "/v2/repository/index", "", 200, `[{"name":"m","version":"1","state":"READY"},{"name":"n","state":"UNAVAILABLE","reason":"unloaded"},{"name":"e","version":"v","state":"READY"}]`)
	f("POST", "/v2/repository/index", `{"ready":true}`, 200, `[{"name":"m","version":"1","state":"READY"},{"name":"e","version":"v","state":"READY"}]`)
	f("POST", "/v2/repository/index", `{"ready":1}`, 400, `{"error":"Invalid value for 'ready': expected a boolean"}`)
	f("POST", "/v2/repository/index", `{"ready":null}`, 400, `{"error":"Invalid value for 'ready': expected a boolean"}`)
	f("POST", "/v2/repository/index", `null`, 400, `{"error":"failed to parse the request JSON buffer: null is no object"}`)
	f("GET", "/v2/repository/index", "", 405, `{"error":"Method Not Allowed"}`)
	f("POST", "/v2/repository/models/m/load", `{"parameters":{"config":"{\"max_batch_size\":2}"}}`, 200, "")
	if !repo.loaded || repo.config != `{"max_batch_size":2}` {
		t.Errorf("loaded: %v, with %q", repo.loaded, repo.config)
	}
	f("POST", "/v2/repository/models/m/load", `{"parameters":{"file:1/model.onnx":"AAAA"}}`, 501,
		`{"error":"a model's files are not taken from a request; put them into the model repository, and load the model without 'file:' parameters"}`)
	f("POST", "/v2/repository/models/m/load", `{"parameters":{"x":1}}`, 400, `{"error":"unrecognized load parameter 'x'"}`)
	f("POST", "/v2/repository/models/m/load", `{"parameters":[]}`, 400, `{"error":"Unable to parse 'parameters': attempt to access JSON non-object as object"}`)
	f("POST", "/v2/repository/models/m/load", `{"parameters":null}`, 400, `{"error":"Unable to parse 'parameters': attempt to access JSON non-object as object"}`)
	f("POST", "/v2/repository/models/m/load", `{"parameters":{"config":null}}`, 400, `{"error":"Unable to parse 'config': it must be a string with the configuration's JSON"}`)
	f("POST", "/v2/repository/models/m/unload", `{"parameters":{"unload_dependents":null}}`, 400, `{"error":"Unable to parse 'unload_dependents': attempt to access JSON non-boolean as boolean"}`)
	f("POST", "/v2/repository/models/nope/load", "", 404, `{"error":"failed to load 'nope', failed to poll from model repository"}`)
	f("POST", "/v2/repository/models/m/unload", `{"parameters":{"unload_dependents":true}}`, 200, "")
	if repo.loaded {
		t.Error("not unloaded")
	}

	f("GET", "/v2/logging", "", 200, `{"log_file":"","log_info":true,"log_warning":true,"log_error":true,"log_verbose_level":0,"log_format":"default"}`)
	f("POST", "/v2/logging", `{"log_verbose_level":1,"log_info":false,"more":1}`, 200,
		`{"log_file":"","log_info":false,"log_warning":true,"log_error":true,"log_verbose_level":1,"log_format":"default"}`)
	f("POST", "/v2/logging", `{"log_info":1}`, 400, `{"error":"Unable to parse 'log_info': it has another type"}`)
	f("POST", "/v2/logging", `{"log_warning":null}`, 400, `{"error":"Unable to parse 'log_warning': it must be a boolean, a number or a string"}`)
	f("POST", "/v2/logging", `{"log_file":"/etc/passwd"}`, 400, `{"error":"log file location can not be updated through network protocol"}`)

	trace := `{"trace_level":["OFF"],"trace_rate":"1000","trace_count":"-1","log_frequency":"0","trace_file":"","trace_mode":"triton"}`
	f("GET", "/v2/trace/setting", "", 200, trace)
	f("GET", "/v2/models/e/trace/setting", "", 200, trace)
	f("POST", "/v2/trace/setting", `{"trace_level":null,"trace_rate":"1000","unknown":"x"}`, 200, trace)
	f("POST", "/v2/trace/setting", `{"trace_level":[null]}`, 400, `{"error":"Unable to parse 'trace_level': it must be a string, or an array of strings"}`)
	f("POST", "/v2/trace/setting", `{"trace_rate":"x"}`, 400, `{"error":"Unable to parse 'trace_rate', got: x"}`)
	f("POST", "/v2/trace/setting", `{"trace_level":["TIMESTAMPS"]}`, 501,
		`{"error":"trace_level [\"TIMESTAMPS\"]: this server does not trace requests; it passes the trace context on"}`)

	f("GET", "/v2/systemsharedmemory/status", "", 200, `[]`)
	f("POST", "/v2/systemsharedmemory/region/r/register", `{"key":"/k","offset":4,"byte_size":64}`, 200, "")
	f("GET", "/v2/systemsharedmemory/status", "", 200, `[{"name":"r","key":"/k","offset":4,"byte_size":64}]`)
	f("POST", "/v2/systemsharedmemory/region/r/register", `{"key":"/k","byte_size":-1}`, 400, `{"error":"Unable to parse 'byte_size': it must be a number of bytes, got: \"-1\""}`)
	f("GET", "/v2/systemsharedmemory/region/x/status", "", 404, `{"error":"Unable to find system shared memory region: 'x'"}`)
	f("POST", "/v2/systemsharedmemory/unregister", "", 200, "")
	f("POST", "/v2/systemsharedmemory/register", "{}", 404, `{"error":"Not Found"}`)
	f("GET", "/v2/cudasharedmemory/status", "", 200, `[]`)
	f("POST", "/v2/cudasharedmemory/region/r/register", "{}", 501,
		`{"error":"CUDA shared memory is not supported; use system shared memory, or send the tensors with the request"}`)
	f("POST", "/v2/cudasharedmemory/unregister", "", 200, "")
	f("POST", "/v2/repository/models/m/load", strings.Repeat(" ", maxManagement+1), 413, `{"error":"the request's body exceeds 65536 bytes"}`)
}

func TestExtensionsSayWhichMethodsTheyTake(t *testing.T) {
	address := listen(t, Config{})
	for path, want := range map[string]string{"/v2/models/e/stats": "GET", "/v2/repository/index": "POST", "/v2/logging": "GET, POST"} {
		status, _, h := asks(t, "PUT", "http://"+address+path, "")
		if got := h.Get("Allow"); status != http.StatusMethodNotAllowed || got != want {
			t.Errorf("PUT %s: answered %d, allowing %q; want %q", path, status, got, want)
		}
	}
}

func TestWhatIsAboutTheProcessNeedsItsKey(t *testing.T) {
	const key = "the-key-of-management"
	page := []string{"Origin", "https://example.com"}
	none, wrong, right := []string{}, []string{"X-Api-Key", "another"}, []string{"Authorization", "Bearer " + key}
	f := func(c triton.Config, want int, header ...string) {
		t.Helper()
		address, _ := serve(t, Config{}, func(p *gateway.Path, config *Config) {
			c.Path, c.Models = p, &repository{}
			config.Triton = triton.New(c)
		})
		got, body, h := asks(t, "POST", "http://"+address+"/v2/repository/index", "", header...)
		if challenge := h.Get("Www-Authenticate"); (challenge == `Bearer realm="sluice"`) != (got == 401) {
			t.Errorf("key %q, open: %v, with %v: answered %d with challenge %q", c.Key, c.Open, header, got, challenge)
		}
		if got != want || got != 200 && !strings.HasPrefix(body, `{"error":"This API is restricted`) {
			t.Errorf("key %q, open: %v, with %v: answered %d %s", c.Key, c.Open, header, got, body)
		}
	}
	for _, h := range [][]string{none, wrong, right, page} {
		f(triton.Config{}, http.StatusForbidden, h...)
	}
	for _, h := range [][]string{none, wrong, page} {
		f(triton.Config{Key: key}, http.StatusUnauthorized, h...)
	}
	f(triton.Config{Key: key}, http.StatusOK, right...)
	f(triton.Config{Key: key}, http.StatusOK, append(right, page...)...)
	for _, h := range [][]string{none, wrong, right} {
		f(triton.Config{Key: key, Open: true}, http.StatusOK, h...)
	}
	f(triton.Config{Key: key, Open: true}, http.StatusUnauthorized, page...)
	f(triton.Config{Open: true}, http.StatusForbidden, page...)
}
