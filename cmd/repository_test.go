package cmd

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "sluice.dev/gateway/grpcapi/inferencepb"
)

// put writes files into a model repository; content that names one of the example's
// models is that model.
func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		data := []byte(content)
		if strings.HasSuffix(content, ".onnx") {
			data = read(t, digits+content)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// tritonLike is a process that serves a repository.
type tritonLike struct {
	*process
	url string
}

func serveRepository(t *testing.T, dir string, args ...string) tritonLike {
	t.Helper()
	at := free(t)
	p := start(t, "sluice", append([]string{"serve", "--model-repository", dir, "--http", at, "--metrics", "", "--state", filepath.Join(t.TempDir(), "state"), "--drain-delay", "10ms"}, args...)...)
	s := tritonLike{p, "http://" + at}
	eventually(t, "live", func() bool {
		a, err := call(http.MethodGet, s.url+"/v2/health/live", nil)
		return err == nil && a.status == http.StatusOK
	})
	return s
}

// wants calls the process and holds the answer against status and body.
func (s tritonLike) wants(method, path, body string, status int, want string) {
	s.t.Helper()
	a, err := call(method, s.url+path, []byte(body))
	if err != nil || a.status != status || string(a.body) != want {
		s.t.Errorf("%s %s: answered\n%d %s %v\nwant\n%d %s", method, path, a.status, a.body, err, status, want)
	}
}

// one is a request of one row of the digits example.
func one(t *testing.T) []byte {
	t.Helper()
	return read(t, digits+"requests/one.json")
}

// version is the version that serves a model, or how the call ended.
func (s tritonLike) version(path string) string {
	s.t.Helper()
	a, err := call(http.MethodPost, s.url+"/v2/models/"+path+"/infer", one(s.t))
	if err != nil {
		return err.Error()
	}
	if a.status != http.StatusOK {
		return fmt.Sprint(a.status)
	}
	var got struct {
		Version string `json:"model_version"`
	}
	if err := json.Unmarshal(a.body, &got); err != nil {
		s.t.Error(err)
	}
	return got.Version
}

func (s tritonLike) serves(path, want string) {
	s.t.Helper()
	if got := s.version(path); got != want {
		s.t.Errorf("%s was answered by version %s; want %s", path, got, want)
	}
}

func TestAModelRepositoryIsServed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := map[string]string{"Many.v1/config.pbtxt": "max_batch_size: 4\nversion_policy { all {} }", "latest/1/model.onnx": "linear.onnx", "latest/3/model.onnx": "mlp.onnx"}
	for n := 1; n <= 8; n++ {
		files[fmt.Sprintf("Many.v1/%d/model.onnx", n)] = "linear.onnx"
	}
	put(t, dir, files)
	admin := free(t)
	s := serveRepository(t, dir, "--metrics", admin, "--triton-metrics")
	s.serves("latest", "3")
	s.serves("latest/versions/1", "404") // the version policy leaves it out
	s.serves("Many.v1", "8")
	for n := 1; n <= 8; n++ {
		s.serves(fmt.Sprintf("Many.v1/versions/%d", n), fmt.Sprint(n))
	}
	s.serves("Many.v1/versions/9", "404")
	a, _ := call(http.MethodGet, s.url+"/v2/models/Many.v1/config", nil)
	if !bytes.Contains(a.body, []byte(`"version_policy":{"all":{}},"max_batch_size":4,"input":[{"name":"input","data_type":"TYPE_FP32","format":"FORMAT_NONE","dims":[64],`)) {
		t.Errorf("config %s", a.body)
	}
	eventually(t, "counted", func() bool {
		a, err := call(http.MethodGet, s.url+"/v2/models/Many.v1/versions/8/stats", nil)
		return err == nil && bytes.Contains(a.body, []byte(`"inference_count":2,"execution_count":2,"inference_stats":{"success":{"count":2,`))
	})
	a, _ = call(http.MethodGet, "http://"+admin+"/metrics", nil)
	for _, line := range []string{
		`nv_inference_request_success{model="Many.v1",version="8"} 2`, `nv_inference_count{model="Many.v1",version="8"} 2`,
		`nv_inference_exec_count{model="Many.v1",version="8"} 2`, `nv_inference_request_failure{model="Many.v1",reason="BACKEND",version="8"} 0`,
		`nv_inference_pending_request_count{model="Many.v1",version="8"} 0`, `nv_inference_compute_infer_duration_us{model="Many.v1",version="8"} `,
		`nv_model_load_duration_secs{model="latest",version="3"} `,
	} {
		if !bytes.Contains(a.body, []byte("\n"+line)) {
			t.Errorf("metrics lack %s", line)
		}
	}
	s.wants("POST", "/v2/repository/models/latest/load", "", 400, `{"error":"explicit model load / unload is not allowed if polling is enabled"}`)
	s.stop()
}

func TestModelsAreLoadedAndUnloadedByRequest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, dir, map[string]string{"a/1/model.onnx": "linear.onnx", "b/1/model.onnx": "mlp.onnx"})
	s := serveRepository(t, dir, "--model-control-mode", "explicit", "--load-model", "a")
	index := func(want string) { t.Helper(); s.wants("POST", "/v2/repository/index", "", 200, want) }
	load := func(name, body string, status int, want string) {
		t.Helper()
		s.wants("POST", "/v2/repository/models/"+name+"/load", body, status, want)
	}
	index(`[{"name":"a","version":"1","state":"READY"},{"name":"b"}]`)
	s.serves("b", "404")
	load("b", "", 200, "")
	s.serves("b", "1")
	load("nope", "", 404, `{"error":"failed to load 'nope', failed to poll from model repository"}`)
	load("..", "", 400, `{"error":"the request's path is not in plain form: no dot segments, no encoded slashes, nothing that is not properly percent-encoded"}`)

	// A load that fails leaves what was served.
	put(t, dir, map[string]string{"b/2/model.onnx": "no model"})
	a, _ := call(http.MethodPost, s.url+"/v2/repository/models/b/load", nil)
	if a.status != http.StatusBadRequest || !bytes.HasPrefix(a.body, []byte(`{"error":"load failed for model 'b': endpoint b, version 2: load b/2/model.onnx: `)) || bytes.Contains(a.body, []byte(dir)) {
		t.Errorf("a broken model was answered %d %s", a.status, a.body)
	}
	s.serves("b", "1")
	load("b", `{"parameters":{"config":"{\"backend\":\"python\"}"}}`, 400,
		`{"error":"load failed for model 'b': config: backend: is \"python\"; this server has the backend onnxruntime only: export the model to ONNX"}`)
	put(t, dir, map[string]string{"b/2/model.onnx": "linear.onnx"})
	load("b", "", 200, "")
	s.serves("b", "2")

	// A configuration that comes with the load is used, until the next load.
	load("b", `{"parameters":{"config":"{\"max_batch_size\":3,\"version_policy\":{\"specific\":{\"versions\":[1]}}}"}}`, 200, "")
	s.serves("b", "1")
	a, _ = call(http.MethodGet, s.url+"/v2/models/b/config", nil)
	if !bytes.Contains(a.body, []byte(`"max_batch_size":3,`)) {
		t.Errorf("config %s", a.body)
	}
	s.wants("POST", "/v2/repository/models/b/unload", "", 200, "")
	s.wants("POST", "/v2/repository/models/nope/unload", "", 200, "")
	s.serves("b", "404")
	index(`[{"name":"a","version":"1","state":"READY"},{"name":"b","version":"1","state":"UNAVAILABLE","reason":"unloaded"}]`)
	s.stop()
}

// Loads neither disturb requests nor each other: what is asked for several times at
// a time is loaded once.
func TestLoadsDisturbNobody(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, dir, map[string]string{"a/1/model.onnx": "linear.onnx", "b/1/model.onnx": "mlp.onnx"})
	s := serveRepository(t, dir, "--model-control-mode", "explicit", "--load-model", "a")
	var failed atomic.Int64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if s.version("a") != "1" {
					failed.Add(1)
				}
			}
		})
	}
	for range 5 {
		var loads sync.WaitGroup
		for range 4 {
			loads.Go(func() {
				if a, err := call(http.MethodPost, s.url+"/v2/repository/models/b/load", nil); err != nil || a.status != http.StatusOK {
					t.Errorf("load: %d %s, %v", a.status, a.body, err)
				}
			})
		}
		loads.Wait()
		s.wants("POST", "/v2/repository/models/b/unload", "", 200, "")
	}
	close(stop)
	clients.Wait()
	if n := failed.Load(); n > 0 {
		t.Errorf("%d requests for a model that stayed were not answered", n)
	}
	s.stop()
	if n := strings.Count(s.log.String(), `msg="model loaded" endpoint=b `); n != 5 {
		t.Errorf("loaded %d times; want 5", n)
	}
}

func TestARepositoryIsFollowed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, dir, map[string]string{"a/1/model.onnx": "linear.onnx", "gone/1/model.onnx": "linear.onnx"})
	s := serveRepository(t, dir, "--model-control-mode", "poll", "--repository-poll-secs", "1")
	s.serves("a", "1")
	put(t, dir, map[string]string{"new/7/model.onnx": "mlp.onnx", "broken/1/model.onnx": "no model"})
	if err := os.RemoveAll(filepath.Join(dir, "gone")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "a", "part"), 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, dir, map[string]string{"a/part/model.onnx": "mlp.onnx"})
	if err := os.Rename(filepath.Join(dir, "a", "part"), filepath.Join(dir, "a", "2")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "served anew", func() bool { return s.version("a") == "2" && s.version("new") == "7" && s.version("gone") == "404" })
	s.serves("broken", "404")
	s.stop()
}

// A specification of a model's name says how it is served.
func TestASpecificationNamesVersionsOfTheRepository(t *testing.T) {
	t.Parallel()
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "a.yaml")
	put(t, dir, map[string]string{"a/1/model.onnx": "linear.onnx", "a/2/model.onnx": "mlp.onnx", "a/config.pbtxt": "max_batch_size: 2 version_policy { all {} }", "b/1/model.onnx": "mlp.onnx"})
	text := fmt.Sprintf("apiVersion: sluice.dev/v1alpha1\nkind: Endpoint\nmetadata: {name: a}\nspec:\n  auth: {mode: key, keys: {primary: {value: %s}}}\n"+
		"  versions:\n    - {name: old, model: 'a:1', default: true}\n    - {name: new, model: 'a:2'}\n    - {name: never, model: 'a:9'}\n", key)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serveRepository(t, dir, "--file", file)
	s.serves("a", "401")
	s.serves("b", "1")
	for pin, want := range map[string]int{"old": 200, "new": 200, "never": 503, "1": 404} {
		a, err := call(http.MethodPost, s.url+"/v2/models/a/versions/"+pin+"/infer", one(t), "Authorization", "Bearer "+key)
		if err != nil || a.status != want {
			t.Errorf("version %s: answered %d %s, %v; want %d", pin, a.status, a.body, err, want)
		}
	}
	a, _ := call(http.MethodGet, s.url+"/v2/models/a/config", nil, "X-Api-Key", key)
	if !bytes.HasPrefix(a.body, []byte(`{"name":"a","platform":"onnxruntime_onnx"`)) || !bytes.Contains(a.body, []byte(`"max_batch_size":2,`)) {
		t.Errorf("config %s", a.body)
	}
	a, _ = call(http.MethodGet, s.url+"/v2/models/stats", nil)
	if bytes.Contains(a.body, []byte(`"name":"a"`)) || !bytes.Contains(a.body, []byte(`"name":"b"`)) {
		t.Errorf("without a key, statistics are %s", a.body)
	}
	s.stop()
}

// Classes with labels, tensors in shared memory, and KServe's first protocol, on a
// real model.
func TestWhatTritonsAndKServesClientsSend(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	labels := "zero\none\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\n"
	put(t, dir, map[string]string{
		"d/1/model.onnx": "linear.onnx", "d/digits.txt": labels,
		"d/config.pbtxt":      "max_batch_size: 4\noutput { name: 'probabilities' data_type: TYPE_FP32 dims: [ 10 ] label_filename: 'digits.txt' }",
		"square/1/model.onnx": "linear.onnx", "square/config.pbtxt": "max_batch_size: 4 input { name: 'input' data_type: TYPE_FP32 dims: [ 8, 8 ] reshape { shape: [ 64 ] } }",
		"alone/1/model.onnx": "linear.onnx", "alone/config.pbtxt": "max_batch_size: 0",
	})
	s := serveRepository(t, dir, "--allow-client-shm")
	var request struct {
		Inputs []struct {
			Data []float32 `json:"data"`
		} `json:"inputs"`
	}
	if err := json.Unmarshal(one(t), &request); err != nil {
		t.Fatal(err)
	}
	row, err := json.Marshal(request.Inputs[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	outputs := func(model, shape, more string) map[string][]any {
		t.Helper()
		body := fmt.Sprintf(`{"inputs":[{"name":"input","shape":%s,"datatype":"FP32","data":%s}]%s}`, shape, row, more)
		a := must(t, http.MethodPost, s.url+"/v2/models/"+model+"/infer", []byte(body))
		var answer struct {
			Outputs []struct {
				Name string
				Data []any
			}
		}
		if err := json.Unmarshal(a.body, &answer); err != nil || a.status != http.StatusOK {
			t.Fatalf("%s: %d %s %v", model, a.status, a.body, err)
		}
		all := map[string][]any{}
		for _, o := range answer.Outputs {
			all[o.Name] = o.Data
		}
		return all
	}
	label := int(outputs("d", "[1,64]", "")["label"][0].(float64))
	best := fmt.Sprint(outputs("d", "[1,64]", `,"outputs":[{"name":"probabilities","parameters":{"classification":1}}]`)["probabilities"][0])
	if name := strings.Split(labels, "\n")[label]; !strings.HasSuffix(best, fmt.Sprintf(":%d:%s", label, name)) {
		t.Errorf("the best class is %s; want %d, %s", best, label, name)
	}
	if got := outputs("square", "[1,8,8]", "")["label"][0]; got != float64(label) {
		t.Errorf("reshaped, the label is %v; want %d", got, label)
	}
	if got := outputs("alone", "[1,64]", "")["label"][0]; got != float64(label) {
		t.Errorf("alone, the label is %v; want %d", got, label)
	}

	// More rows than a batch may have are answered, in several.
	rows := strings.TrimSuffix(strings.Repeat(string(row)+",", 5), ",")
	a := must(t, http.MethodPost, s.url+"/v1/models/d:predict", []byte(`{"instances":[`+rows+`]}`))
	var v1 struct{ Predictions []struct{ Label int } }
	if err := json.Unmarshal(a.body, &v1); err != nil || len(v1.Predictions) != 5 || v1.Predictions[4].Label != label {
		t.Errorf("v1: %d %s %v", a.status, a.body, err)
	}
	s.memory(t, request.Inputs[0].Data, label)
	s.stop()
}

// memory scores a row in shared memory.
func (s tritonLike) memory(t *testing.T, row []float32, label int) {
	t.Helper()
	f, err := os.CreateTemp("/dev/shm", "sluice-test-")
	if err != nil {
		t.Skip("this machine has no shared memory: ", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := binary.Write(f, binary.LittleEndian, row); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(300); err != nil {
		t.Fatal(err)
	}
	register := fmt.Sprintf(`{"key":"/%s","offset":0,"byte_size":300}`, filepath.Base(f.Name()))
	s.wants("POST", "/v2/systemsharedmemory/region/r/register", register, 200, "")
	s.wants("POST", "/v2/systemsharedmemory/region/r/register", register, 400, `{"error":"shared memory region 'r' already in manager"}`)
	infer := `{"inputs":[{"name":"input","shape":[1,64],"datatype":"FP32","parameters":{"shared_memory_region":"r","shared_memory_byte_size":256}}],` +
		`"outputs":[{"name":"label","parameters":{"shared_memory_region":"r","shared_memory_offset":256,"shared_memory_byte_size":8}}]}`
	s.wants("POST", "/v2/models/d/infer", infer, 200, `{"model_name":"d","model_version":"1","outputs":[{"name":"label","datatype":"INT64","shape":[1]}]}`)
	var got int64
	if _, err := f.Seek(256, 0); err != nil {
		t.Fatal(err)
	}
	if err := binary.Read(f, binary.LittleEndian, &got); err != nil || got != int64(label) {
		t.Errorf("label %d, %v; want %d", got, err, label)
	}
	if err := f.Truncate(100); err != nil { // which ends other servers
		t.Fatal(err)
	}
	s.wants("POST", "/v2/models/d/infer", infer, 400, `{"error":"shared memory region 'r' needs 256 bytes from 0 of an object that has 100"}`)
	s.wants("POST", "/v2/systemsharedmemory/region/r/unregister", "", 200, "")
	s.wants("POST", "/v2/models/d/infer", infer, 400, `{"error":"Unable to find shared memory region: 'r'"}`)
}

// A gateway tells what its scorers, which are other processes, know of a model.
func TestAGatewayTellsWhatItsScorersKnow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket, at, rpc := filepath.Join(dir, "lane"), free(t), free(t)
	start(t, "scorer", "--file", digits+"endpoint.yaml", "--listen", "unix://"+socket, "--metrics", "")
	p := start(t, "gateway", "--file", digits+"endpoint.yaml", "--scorer", "unix://"+socket, "--http", at, "--grpc", rpc, "--metrics", "", "--state", filepath.Join(dir, "state"))
	s := tritonLike{p, "http://" + at}
	infer := s.url + "/v2/models/digits/versions/mlp/infer"
	eventually(t, "ready", func() bool {
		a, err := call(http.MethodPost, infer, one(t), bearer...)
		return err == nil && a.status == http.StatusOK
	})
	must(t, http.MethodPost, infer, one(t), bearer...)
	eventually(t, "counted", func() bool {
		a := must(t, http.MethodGet, s.url+"/v2/models/digits/versions/mlp/stats", nil, bearer...)
		return bytes.Contains(a.body, []byte(`"name":"digits","version":"mlp","last_inference":1`)) && bytes.Contains(a.body, []byte(`"inference_count":2,"execution_count":2,`))
	})
	a := must(t, http.MethodGet, s.url+"/v2/models/digits/versions/mlp/config", nil, bearer...)
	if a.status != http.StatusOK || !bytes.HasPrefix(a.body, []byte(`{"name":"digits","platform":"onnxruntime_onnx","backend":"onnxruntime",`)) {
		t.Errorf("config %d %s", a.status, a.body)
	}
	s.wants("GET", "/v2/models/digits/stats", "", 401, `{"error":"no valid credential; send the endpoint's key, or a token, as 'Authorization: Bearer KEY'"}`)
	s.wants("POST", "/v2/repository/index", "", 403,
		`{"error":"This API is restricted: start the server with --management and call with its key, or, in a network that is trusted, with --open-management"}`)

	client, ctx := over(t, rpc)
	stats, err := client.ModelStatistics(ctx, &pb.ModelStatisticsRequest{Name: "digits", Version: "mlp"})
	if err != nil || len(stats.ModelStats) != 1 || stats.ModelStats[0].InferenceCount != 2 {
		t.Errorf("over gRPC, statistics are %v, %v", stats, err)
	}
	config, err := client.ModelConfig(ctx, &pb.ModelConfigRequest{Name: "digits", Version: "mlp"})
	if err != nil || config.Config.Name != "digits" || config.Config.Backend != "onnxruntime" {
		t.Errorf("over gRPC, config %v, %v", config, err)
	}
	if _, err := client.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("over gRPC, index %v", err)
	}
}

// Who may manage without a key is a matter of the address, of HTTP and of gRPC.
func TestAnAddressOfTheNetworkIsNotManagedWithoutAKey(t *testing.T) {
	t.Parallel()
	dir, rpc := t.TempDir(), free(t)
	put(t, dir, map[string]string{"d/1/model.onnx": "linear.onnx"})
	s := serveRepository(t, dir, "--grpc", strings.Replace(rpc, "127.0.0.1", "0.0.0.0", 1))
	s.wants("POST", "/v2/repository/index", "", 200, `[{"name":"d","version":"1","state":"READY"}]`)
	client, ctx := over(t, rpc)
	if _, err := client.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("index over the network: %v", err)
	}
	s.stop()
}
