package repository

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice.dev/accel/tensor"
	"sluice.dev/deploy/spec"
)

// folder makes a repository of files; what a path is mapped to is its content.
func folder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// read reads model m of a repository with one version and a configuration.
func read(t testing.TB, config string) (*Model, []string) {
	t.Helper()
	dir := folder(t, map[string]string{"m/1/model.onnx": "", "m/config.pbtxt": config, "m/labels.txt": "zero\r\none\n\nthree\n"})
	m, findings := Read(dir, "m", nil)
	var list []string
	for _, f := range findings {
		list = append(list, strings.ReplaceAll(f.String(), dir+"/m/", ""))
	}
	return m, list
}

func TestEverythingThatIsWrongIsToldAtOnce(t *testing.T) {
	f := func(config string, served bool, want ...string) {
		t.Helper()
		m, got := read(t, config)
		if (m != nil) != served || !reflect.DeepEqual(got, want) {
			t.Errorf("%s\nserved: %v, with findings\n  %s\nwant\n  %s", config, m != nil, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
		}
	}
	f("", true)
	f("name: \"m\"\nplatform: \"onnxruntime_onnx\"\nbackend: 'onnxruntime'\nmax_batch_size: 8", true)
	f("max_batch_size: 8\nmax_batches: 7\ninput { name: 'x', colour: RED }", true,
		"config.pbtxt:2: warning: max_batches: is not a field that this release knows; it has no effect",
		"config.pbtxt:3: warning: input[0].colour: is not a field that this release knows; it has no effect")
	f("name: 'other'\nbackend: 'python'\nplatform: 'tensorrt_plan'\nmax_batch_size: 'x'\ninput { data_type: TYPE_FLOAT dims: [ 0 ] }\nversion_policy: 7", false,
		"config.pbtxt:1: name: is \"other\", but the folder is \"m\"; make them the same, or leave the name out",
		"config.pbtxt:2: backend: is \"python\"; this server has the backend onnxruntime only: export the model to ONNX",
		"config.pbtxt:3: platform: is \"tensorrt_plan\"; this server runs onnxruntime_onnx only: export the model to ONNX",
		"config.pbtxt:4: max_batch_size: is \"x\"; must be a number of type int32",
		"config.pbtxt:5: input[0].data_type: is \"TYPE_FLOAT\"; must be one of "+strings.Join(enums["DataType"], ", "),
		"config.pbtxt:5: input[0]: has no name",
		"config.pbtxt:5: input[0]: has a dimension of 0; must be a positive size, or -1 for any",
		"config.pbtxt:6: version_policy: must be a message in braces")
	f("max_batch_size: 4\nresponse_cache { enable: true }\noptimization { graph { level: 1 } }\nmodel_warmup { name: 'w' }", true,
		"config.pbtxt:2: warning: response_cache.enable: is shown to clients and has no effect: answers are not cached",
		"config.pbtxt:3: warning: optimization: is shown to clients and has no effect: the runtime's own optimizations are always on",
		"config.pbtxt:4: warning: model_warmup: is shown to clients and has no effect: every model is warmed up with zeros before it serves")
	f("max_batch_size: 4\ndynamic_batching {\n preserve_ordering: true\n priority_levels: 2\n priority_queue_policy {\n key: 1 value { max_queue_size: 1 } }\n"+
		"default_queue_policy {\n allow_timeout_override: true } }", true,
		"config.pbtxt:3: warning: dynamic_batching.preserve_ordering: is shown to clients and has no effect: an answer comes when it is ready",
		"config.pbtxt:5: warning: dynamic_batching.priority_queue_policy: is shown to clients and has no effect: all priorities have the default_queue_policy",
		"config.pbtxt:8: warning: dynamic_batching.default_queue_policy.allow_timeout_override: has no effect without default_timeout_microseconds: a request's own timeout counts")
	f("instance_group [ { count: 2\n rate_limiter { resources [ { name: 'r' global: true count: 1 }, {\n name: 'none' } ] } },\n{ rate_limiter { priority: 2 } } ]", true,
		"config.pbtxt:1: warning: instance_group[0].count: is shown to clients and has no effect: as many runs go side by side as the device has slots (--cpu-slots)",
		"config.pbtxt:2: warning: instance_group[0].rate_limiter.resources[0].global: is shown to clients and has no effect: a resource is one device's",
		"config.pbtxt:2: warning: instance_group[0].rate_limiter.resources[1]: has no effect with a count of 0",
		"config.pbtxt:4: warning: instance_group[1].rate_limiter: has no effect: that of the first group counts")
	f("max_batch_size: 4\ndynamic_batching { preferred_batch_size: [ 2, 0,\n 5 ]\npriority_levels: 2\ndefault_priority_level: 3 }\n"+
		"instance_group { rate_limiter { resources { count: 1 } } }", false,
		"config.pbtxt:2: dynamic_batching.preferred_batch_size[1]: is 0; must be 1 or more, and at most max_batch_size, which is 4",
		"config.pbtxt:3: dynamic_batching.preferred_batch_size[2]: is 5; must be 1 or more, and at most max_batch_size, which is 4",
		"config.pbtxt:5: dynamic_batching.default_priority_level: is 3, more than priority_levels, which is 2",
		"config.pbtxt:6: instance_group[0].rate_limiter.resources[0]: has no name")
	f("max_batch_size: 0\ndynamic_batching { max_queue_delay_microseconds: 5 }\n", true,
		"config.pbtxt:2: warning: dynamic_batching: forms no batches with a max_batch_size of 0")
	f("ensemble_scheduling { step { model_name: 'a' } step { model_name: 'b' } }", false,
		"config.pbtxt:1: ensemble_scheduling: is not supported by this server; leave it out, or serve the model elsewhere")
	f("max_batch_size: 1\nmax_batch_size: 2", false, "config.pbtxt:2: max_batch_size: is there twice")
	f("name: 'm'\ninput {", false, "config.pbtxt:2: the message that begins in line 2 has no closing }")
	f("input { name: 'x' dims: [ 4 ] reshape { shape: [ 2, 3 ] } }", false, "config.pbtxt:1: input[0]: has dims of 4 elements, and a reshape of 6; they must be the same")
	f("output { name: 'y' label_filename: '../../etc/passwd' }", false, `config.pbtxt:1: output[0].label_filename: is "../../etc/passwd"; must be a file in the model's folder`)
	f("default_model_filename: '../x'", false, `config.pbtxt:1: default_model_filename: is "../x"; must be the name of a file in the version's folder`)
	f("version_policy { specific { versions: [ 1, 7 ] } }", false, "config.pbtxt:1: version_policy.specific: names version 7, which has no folder")
	f("parameters { key: 'intra_op_thread_count' value { string_value: 'many' } }", false,
		`config.pbtxt:1: parameters[intra_op_thread_count]: is "many"; must be a number of threads, 0 to 1024`)
}

func TestWhatIsHonoured(t *testing.T) {
	m, findings := read(t, `
max_batch_size: 8
output { name: "y" label_filename: "labels.txt" }
instance_group { kind: KIND_CPU }
dynamic_batching { default_queue_policy { default_timeout_microseconds: 2500 } }
parameters { key: "intra_op_thread_count" value { string_value: "3" } }`)
	if findings != nil {
		t.Fatal(findings)
	}
	c := m.Config
	if c.MaxBatch != 8 || c.Accelerator != "cpu" || c.Threads != 3 || c.QueueWait != 2500*time.Microsecond {
		t.Errorf("%+v", c)
	}
	if want := (spec.Batching{DefaultTimeoutMicroseconds: 2500}); !reflect.DeepEqual(c.Batching, want) {
		t.Errorf("batching %+v; want %+v", c.Batching, want)
	}
	if got := c.Labels("y"); !reflect.DeepEqual(got, []string{"zero", "one", "", "three"}) {
		t.Errorf("labels %q", got)
	}
	m, findings = read(t, `
max_batch_size: 8
instance_group { rate_limiter { priority: 4 resources [ { name: "memory" count: 3 } ] } }
dynamic_batching {
  preferred_batch_size: [ 8, 4, 8 ] max_queue_delay_microseconds: 100 priority_levels: 3 default_priority_level: 2
  default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 7200000000 allow_timeout_override: true max_queue_size: 5 }
}`)
	want := spec.Batching{
		PreferredBatchSizes: []int{4, 8}, MaxQueueDelayMicroseconds: 100, PriorityLevels: 3, DefaultPriorityLevel: 2,
		TimeoutAction: spec.TimeoutDelay, DefaultTimeoutMicroseconds: 3_600_000_000, AllowTimeoutOverride: true, MaxQueueSize: 5,
		Share: 0.25, Resources: []spec.Resource{{Name: "memory", Count: 3}},
	}
	if findings != nil || !reflect.DeepEqual(m.Config.Batching, want) || m.Config.QueueWait != 0 {
		t.Errorf("batching %+v, wait %v, %v; want %+v", m.Config.Batching, m.Config.QueueWait, findings, want)
	}
	f := func(config string, want int) {
		t.Helper()
		if m, findings := read(t, config); m == nil || m.Config.MaxBatch != want {
			t.Errorf("%s: %+v %v; want %d", config, m, findings, want)
		}
	}
	f("", 0)
	f("max_batch_size: 0", Unbatched)
	f("input { name: 'x' data_type: TYPE_FP32 dims: [ -1, 4 ] }", Unbatched)
	f("version_policy { all {} }", 0)
}

func TestVersions(t *testing.T) {
	files := map[string]string{"m/x/model.onnx": "", "m/07/model.onnx": "", "m/0/model.onnx": ""}
	for n := 1; n <= 12; n++ {
		files[fmt.Sprintf("m/%d/model.onnx", n)] = ""
	}
	dir := folder(t, files)
	f := func(policy string, want ...string) {
		t.Helper()
		m, findings := Read(dir, "m", []byte(policy))
		if m == nil {
			t.Fatal(findings)
		}
		var got []string
		for i := range m.Versions {
			got = append(got, m.Versions[i].Name())
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v; want %v", policy, got, want)
		}
	}
	f(`{}`, "12")
	f(`{"version_policy":{"latest":{"num_versions":3}}}`, "12", "11", "10")
	f(`{"versionPolicy":{"latest":{"numVersions":2}}}`, "12", "11")
	f(`{"version_policy":{"specific":{"versions":["2",10]}}}`, "10", "2")
	f(`{"version_policy":{"all":{}}}`, "12", "11", "10", "9", "8", "7", "6", "5", "4", "3", "2", "1")
	if _, findings := Read(dir, "n", nil); findings.Err() == nil {
		t.Error("a model without a folder was read")
	}
	if _, findings := Read(dir, "m", []byte(`{"max_batch_size":"many","input":{},"parameters":[]} x`)); len(findings) != 4 {
		t.Errorf("findings %v", findings)
	}
	names, err := Names(dir)
	if err != nil || !reflect.DeepEqual(names, []string{"m"}) {
		t.Errorf("names %v, %v", names, err)
	}
	before := Stamp(dir, "m")
	if err := os.WriteFile(filepath.Join(dir, "m", "config.pbtxt"), []byte("#"), 0o600); err != nil {
		t.Fatal(err)
	}
	if Stamp(dir, "m") == before {
		t.Error("a new file does not show")
	}
}

// own is a signature that a model may have.
func own(in, out []int64) *tensor.Signature {
	return &tensor.Signature{
		Inputs:  []tensor.Info{{Name: "x", DType: tensor.Float32, Shape: in}},
		Outputs: []tensor.Info{{Name: "y", DType: tensor.Int64, Shape: out}},
	}
}

func TestFit(t *testing.T) {
	f := func(config string, sig *tensor.Signature, in, out []int64, batchable bool) {
		t.Helper()
		m, findings := read(t, config)
		if m == nil {
			t.Fatal(findings)
		}
		seen, err := m.Config.Fit(sig)
		if err != nil {
			t.Errorf("%s: %v", config, err)
			return
		}
		if !reflect.DeepEqual(seen.Inputs[0].Shape, in) || !reflect.DeepEqual(seen.Outputs[0].Shape, out) || seen.Batchable() != batchable {
			t.Errorf("%s: %v to %v, batchable: %v; want %v to %v, %v", config, seen.Inputs[0].Shape, seen.Outputs[0].Shape, seen.Batchable(), in, out, batchable)
		}
	}
	f("", own([]int64{-1, 4}, []int64{-1}), []int64{-1, 4}, []int64{-1}, true)
	f("max_batch_size: 0", own([]int64{-1, 4}, []int64{-1}), []int64{-1, 4}, []int64{-1}, false)
	f("max_batch_size: 8 input { name: 'x' data_type: TYPE_FP32 dims: [4] }", own([]int64{-1, -1}, []int64{-1}), []int64{-1, 4}, []int64{-1}, true)
	f("max_batch_size: 8 input { name: 'x' dims: [2, 2] reshape { shape: [4] } }", own([]int64{-1, 4}, []int64{-1}), []int64{-1, 2, 2}, []int64{-1}, true)
	f("max_batch_size: 8 output { name: 'y' dims: [1] reshape { shape: [] } }", own([]int64{-1, 4}, []int64{-1}), []int64{-1, 4}, []int64{-1, 1}, true)
	f("max_batch_size: 0 input { name: 'x' dims: [3, 4] }", own([]int64{-1, 4}, []int64{-1}), []int64{3, 4}, []int64{-1}, false)

	refuse := func(config string, sig *tensor.Signature, want string) {
		t.Helper()
		m, findings := read(t, config)
		if m == nil {
			t.Fatal(findings)
		}
		if _, err := m.Config.Fit(sig); err == nil || err.Error() != want {
			t.Errorf("%s: %v; want %s", config, err, want)
		}
	}
	sig := own([]int64{-1, 4}, []int64{-1})
	refuse("max_batch_size: 8", own([]int64{1, 4}, []int64{1}), "max_batch_size is 8, but the model cannot be batched: the first dimension of every input and output must be free; set max_batch_size: 0")
	refuse("max_batch_size: 8 input { name: 'z' }", sig, "input[0]: the model has no input 'z'; it has 'x'")
	refuse("max_batch_size: 8 input { name: 'x' data_type: TYPE_INT8 }", sig, "input[0]: the data_type of 'x' is TYPE_INT8, but the model has TYPE_FP32")
	refuse("max_batch_size: 8 input { name: 'x' dims: [5] }", sig, "input[0]: the dims of 'x' are [5] after the rows, but the model has [-1 4]")
	refuse("max_batch_size: 8 output { name: 'y' dims: [-1] }", sig, "output[0]: the dims of 'y' are [-1] after the rows, but the model has [-1]")
}

func TestTheDocumentIsComplete(t *testing.T) {
	f := func(config string, limit int, want string) {
		t.Helper()
		m, findings := read(t, config)
		if m == nil {
			t.Fatal(findings)
		}
		seen, err := m.Config.Fit(own([]int64{-1, 4}, []int64{-1}))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(m.Config.Document(seen, limit)); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", config, got, want)
		}
	}
	f("", 16, `{"name":"m","platform":"onnxruntime_onnx","backend":"onnxruntime","version_policy":{"latest":{"num_versions":1}},"max_batch_size":16,`+
		`"input":[{"name":"x","data_type":"TYPE_FP32","format":"FORMAT_NONE","dims":[4],"is_shape_tensor":false,"allow_ragged_batch":false,"optional":false}],`+
		`"output":[{"name":"y","data_type":"TYPE_INT64","dims":[],"label_filename":"","is_shape_tensor":false}],"batch_input":[],"batch_output":[],`+
		`"dynamic_batching":{"preferred_batch_size":[],"max_queue_delay_microseconds":0,"preserve_ordering":false},"instance_group":[],`+
		`"default_model_filename":"model.onnx","cc_model_filenames":{},"metric_tags":{},"parameters":{},"model_warmup":[]}`)
	f("max_batch_size: 0 input { name: 'x' format: FORMAT_NHWC dims: [-1, 4] } parameters { key: 'b' value { string_value: '2' } } parameters { key: 'a\"' value {} }", 1,
		`{"name":"m","platform":"onnxruntime_onnx","backend":"onnxruntime","version_policy":{"latest":{"num_versions":1}},"max_batch_size":0,`+
			`"input":[{"name":"x","data_type":"TYPE_FP32","format":"FORMAT_NHWC","dims":[-1,4],"is_shape_tensor":false,"allow_ragged_batch":false,"optional":false}],`+
			`"output":[{"name":"y","data_type":"TYPE_INT64","dims":[-1],"label_filename":"","is_shape_tensor":false}],"batch_input":[],"batch_output":[],`+
			`"instance_group":[],"default_model_filename":"model.onnx","cc_model_filenames":{},"metric_tags":{},"parameters":{"a\"":{},"b":{"string_value":"2"}},"model_warmup":[]}`)
}

func TestNamesOfModels(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", `a\b`, ".hidden", "a..b", "a\nb", strings.Repeat("a", 256)} {
		if CheckName(name) == nil {
			t.Errorf("%q is a good name", name)
		}
	}
	if err := CheckName("ResNet-50 v1.5"); err != nil {
		t.Error(err)
	}
}

// Neither form of a configuration, however wrong, panics, and what is read of one
// fits or does not.
func FuzzConfig(f *testing.F) {
	for _, seed := range []string{
		"max_batch_size: 8 input { name: 'x' data_type: TYPE_FP32 dims: [2,2] reshape { shape: 4 } } version_policy { all {} }",
		`{"max_batch_size":8,"input":[{"name":"x","dims":["4"]}],"parameters":{"a":{"string_value":"b"}},"dynamicBatching":{"preferredBatchSize":[1]}}`,
		"parameters { key: 'a' } instance_group [ { kind: KIND_GPU gpus: 0 } ] dynamic_batching { priority_queue_policy { key: 1 value { timeout_action: DELAY } } }",
		`{"a":1,"input":[null,7],"version_policy":{"latest":[]}}`, "input: 5 output < name: 1 >",
	} {
		f.Add([]byte(seed))
	}
	dir := folder(f, map[string]string{"m/1/model.onnx": ""})
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, asJSON := range []bool{true, false} {
			r := &reader{lines: map[string]int{}}
			var o object
			if asJSON {
				o = r.readJSON(text)
			} else {
				o = r.readText(text)
			}
			if o == nil {
				if r.findings.Err() == nil {
					t.Fatal("nothing was read, and nothing is wrong")
				}
				continue
			}
			c := r.config("m", o)
			r.versions(c, filepath.Join(dir, "m"))
			if r.findings.Err() != nil {
				continue
			}
			if seen, err := c.Fit(own([]int64{-1, 4}, []int64{-1})); err == nil {
				c.Document(seen, 8)
			}
		}
	})
}
