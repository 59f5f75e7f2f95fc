package repository

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice.dev/accel/tensor"
	"sluice.dev/deploy/spec"
)

// Config is what a model's folder says of it. It is a scorer/model.Plan: what the
// scorer needs to know that is not in the model's file. Immutable.
type Config struct {
	Name string
	// MaxBatch is the most rows of a run: 0 leaves it to the scorer, Unbatched runs
	// every request alone, as it is.
	MaxBatch    int
	Accelerator string        // cpu or cuda; empty leaves the choice to the scorer
	Threads     int           // of one run on a CPU; 0 is the default
	QueueWait   time.Duration // the longest that a request may wait before it is refused; 0 is not said
	Batching    spec.Batching // as a specification would say it

	file     string // of the model in a version's folder
	policy   policy
	inputs   []plan
	outputs  []plan
	labels   map[string][]string // of outputs
	explicit object              // as it was written
}

// Unbatched is the MaxBatch of a model whose requests are not put together.
const Unbatched = -1

// policy says which versions are served. The zero value is the latest.
type policy struct {
	latest int // how many; 0 is all, unless specific is set
	all    bool
	only   []int64
}

// plan is what is said of one tensor.
type plan struct {
	name    string
	dtype   tensor.DType // Invalid: not said
	dims    []int64      // as clients see it, without rows where the model is batched
	sized   bool         // dims are said
	reshape []int64      // as the model sees it
	shaped  bool         // reshape is said
	path    string       // in the configuration
}

// Bare is the configuration of a model of which nothing is said.
func Bare(name string) *Config { return &Config{Name: name} }

// dtypes are Triton's names of the element types.
var dtypes = map[string]tensor.DType{
	"TYPE_BOOL": tensor.Bool, "TYPE_UINT8": tensor.Uint8, "TYPE_UINT16": tensor.Uint16, "TYPE_UINT32": tensor.Uint32, "TYPE_UINT64": tensor.Uint64,
	"TYPE_INT8": tensor.Int8, "TYPE_INT16": tensor.Int16, "TYPE_INT32": tensor.Int32, "TYPE_INT64": tensor.Int64,
	"TYPE_FP16": tensor.Float16, "TYPE_BF16": tensor.BFloat16, "TYPE_FP32": tensor.Float32, "TYPE_FP64": tensor.Float64, "TYPE_STRING": tensor.Bytes,
}

// typeName is Triton's name of a type.
func typeName(t tensor.DType) string {
	for name, d := range dtypes {
		if d == t {
			return name
		}
	}
	return "TYPE_INVALID"
}

func (o object) text(name string) string { s, _ := o[name].(string); return s }
func (o object) integer(name string) int64 {
	switch v := o[name].(type) {
	case int64:
		return v
	case uint64:
		return int64(min(v, math.MaxInt64))
	}
	return 0
}

// micros is a time in microseconds, of at most an hour.
func (o object) micros(name string) int {
	return int(min(o.integer(name), int64(time.Hour/time.Microsecond)))
}
func (o object) message(name string) object { m, _ := o[name].(object); return m }
func (o object) list(name string) []any     { l, _ := o[name].([]any); return l }
func (o object) has(name string) bool       { _, ok := o[name]; return ok }

// integers are those of a repeated field.
func (o object) integers(name string) []int64 {
	list := []int64{}
	for _, v := range o.list(name) {
		n, _ := v.(int64)
		list = append(list, n)
	}
	return list
}

// config checks what was read, and takes what is honoured out of it.
func (r *reader) config(name string, o object) *Config {
	c := &Config{Name: name, explicit: o, labels: map[string][]string{}}
	r.fates("ModelConfig", "", o)
	if given := o.text("name"); given != "" && given != name {
		r.fail("name", "is %.64q, but the folder is %.64q; make them the same, or leave the name out", given, name)
	}
	if p := o.text("platform"); p != "" && p != "onnxruntime_onnx" {
		r.fail("platform", "is %.64q; this server runs onnxruntime_onnx only: export the model to ONNX", p)
	}
	if b := o.text("backend"); b != "" && b != "onnxruntime" {
		r.fail("backend", "is %.64q; this server has the backend onnxruntime only: export the model to ONNX", b)
	}
	c.file = cmp.Or(o.text("default_model_filename"), "model.onnx")
	if strings.ContainsAny(c.file, "/\\") || strings.HasPrefix(c.file, ".") {
		r.fail("default_model_filename", "is %.64q; must be the name of a file in the version's folder", c.file)
		c.file = "model.onnx"
	}
	c.inputs, c.outputs = r.tensors(o, "input"), r.tensors(o, "output")
	r.batching(c, o)
	r.instances(c, o.list("instance_group"))
	r.parameters(c, o.message("parameters"))
	c.policy = r.policy(o.message("version_policy"))
	return c
}

// fates warns of what has no effect, and refuses what the model cannot do without.
func (r *reader) fates(message, path string, o object) {
	for i := range messages[message] {
		f := &messages[message][i]
		v, at := o[f.name], join(path, f.name)
		if empty(v) {
			continue
		}
		switch f.fate {
		case "refused":
			r.fail(at, "is not supported by this server; leave it out, or serve the model elsewhere")
			continue
		case "kept":
			r.warn(at, "is shown to clients and has no effect: %s", cmp.Or(reasons[f.name], "this server has no such setting"))
			continue
		}
		switch v := v.(type) {
		case object:
			if !f.mapped {
				r.fates(f.kind, at, v)
			}
		case []any:
			for k, one := range v {
				if m, ok := one.(object); ok {
					r.fates(f.kind, fmt.Sprintf("%s[%d]", at, k), m)
				}
			}
		}
	}
}

// empty reports whether a value is its kind's default.
func empty(v any) bool {
	switch v := v.(type) {
	case []any:
		return len(v) == 0
	case object:
		return len(v) == 0
	case string:
		return v == "" || v == "REJECT"
	}
	return v == nil || v == false || v == int64(0) || v == uint64(0)
}

// reasons say why a setting has no effect.
var reasons = map[string]string{
	"preserve_ordering":     "an answer comes when it is ready",
	"priority_queue_policy": "all priorities have the default_queue_policy",
	"global":                "a resource is one device's",
	"model_warmup":          "every model is warmed up with zeros before it serves",
	"optimization":          "the runtime's own optimizations are always on",
	"optional":              "every input must be sent",
	"gpus":                  "the first device is used",
	"enable":                "answers are not cached",
}

// tensors reads the inputs or the outputs.
func (r *reader) tensors(o object, field string) (list []plan) {
	for i, v := range o.list(field) {
		m, _ := v.(object)
		p := plan{name: m.text("name"), path: fmt.Sprintf("%s[%d]", field, i), sized: m.has("dims")}
		p.dims = m.integers("dims")
		if t := m.text("data_type"); t != "" && t != "TYPE_INVALID" {
			p.dtype = dtypes[t]
		}
		if m.has("reshape") {
			p.reshape, p.shaped = m.message("reshape").integers("shape"), true
		}
		switch {
		case p.name == "":
			r.fail(p.path, "has no name")
		case slices.ContainsFunc(list, func(other plan) bool { return other.name == p.name }):
			r.fail(p.path, "has the name %.64q, as one before it", p.name)
		}
		for _, d := range append(slices.Clone(p.dims), p.reshape...) {
			if d < -1 || d == 0 {
				r.fail(p.path, "has a dimension of %d; must be a positive size, or -1 for any", d)
			}
		}
		r.reshaped(&p)
		list = append(list, p)
	}
	return list
}

// reshaped checks that a reshape keeps the number of elements, which must be known.
func (r *reader) reshaped(p *plan) {
	if !p.shaped {
		return
	}
	free := func(dims []int64) (n int) {
		for _, d := range dims {
			if d == -1 {
				n++
			}
		}
		return n
	}
	switch outer, inner := free(p.dims), free(p.reshape); {
	case !p.sized:
		r.fail(p.path, "has a reshape without dims")
	case outer > 1 || outer != inner:
		r.fail(p.path, "has a reshape of free dimensions that does not say which becomes which; at most one may be -1 on each side")
	case known(p.dims) != known(p.reshape):
		r.fail(p.path, "has dims of %d elements, and a reshape of %d; they must be the same", known(p.dims), known(p.reshape))
	}
}

// known is the product of the dimensions that are known.
func known(dims []int64) int64 {
	n := int64(1)
	for _, d := range dims {
		if d > 0 && n <= math.MaxInt64/d {
			n *= d
		}
	}
	return n
}

// batching reads how many rows run together, and how long a request may wait.
func (r *reader) batching(c *Config, o object) {
	n := o.integer("max_batch_size")
	c.MaxBatch = int(n)
	switch {
	case n < 0 || n > 1<<20:
		r.fail("max_batch_size", "is %d; must be 0 (no batching) to %d", n, 1<<20)
	case n == 0 && (o.has("max_batch_size") || len(c.inputs)+len(c.outputs) > 0):
		c.MaxBatch = Unbatched
	}
	if d := o.message("dynamic_batching"); d != nil {
		r.dynamic(c, d)
	}
}

// dynamic reads Triton's batcher.
func (r *reader) dynamic(c *Config, d object) {
	const at = "dynamic_batching."
	b := &c.Batching
	b.MaxQueueDelayMicroseconds = d.micros("max_queue_delay_microseconds")
	for i, n := range d.integers("preferred_batch_size") {
		if most := max(c.MaxBatch, 0); n < 1 || most > 0 && n > int64(most) {
			r.fail(fmt.Sprintf("%spreferred_batch_size[%d]", at, i), "is %d; must be 1 or more, and at most max_batch_size, which is %d", n, most)
		}
		b.PreferredBatchSizes = append(b.PreferredBatchSizes, int(n))
	}
	slices.Sort(b.PreferredBatchSizes)
	b.PreferredBatchSizes = slices.Compact(b.PreferredBatchSizes)
	if c.MaxBatch == Unbatched && (b.MaxQueueDelayMicroseconds > 0 || b.PreferredBatchSizes != nil) {
		r.warn("dynamic_batching", "forms no batches with a max_batch_size of 0")
		b.MaxQueueDelayMicroseconds, b.PreferredBatchSizes = 0, nil
	}
	const mostLevels = 1 << 20
	levels, otherwise := d.integer("priority_levels"), d.integer("default_priority_level")
	switch {
	case levels > mostLevels:
		r.fail(at+"priority_levels", "is %d; must be at most %d", levels, mostLevels)
	case otherwise > levels:
		r.fail(at+"default_priority_level", "is %d, more than priority_levels, which is %d", otherwise, levels)
	}
	b.PriorityLevels, b.DefaultPriorityLevel = int(levels), int(otherwise)
	r.queue(c, at+"default_queue_policy", d.message("default_queue_policy"))
}

// queue reads how many requests may wait, and for how long.
func (r *reader) queue(c *Config, at string, q object) {
	b := &c.Batching
	b.MaxQueueSize = int(min(q.integer("max_queue_size"), math.MaxInt32))
	b.DefaultTimeoutMicroseconds = q.micros("default_timeout_microseconds")
	b.AllowTimeoutOverride = q["allow_timeout_override"] == true
	if q.text("timeout_action") == "DELAY" {
		b.TimeoutAction = spec.TimeoutDelay
	}
	if b.DefaultTimeoutMicroseconds > 0 {
		if b.TimeoutAction == "" {
			c.QueueWait = time.Duration(b.DefaultTimeoutMicroseconds) * time.Microsecond
		}
		return
	}
	if b.AllowTimeoutOverride {
		r.warn(at+".allow_timeout_override", "has no effect without default_timeout_microseconds: a request's own timeout counts")
	}
}

// limiter reads what a run takes of its device.
func (r *reader) limiter(b *spec.Batching, at string, l object) {
	if p := l.integer("priority"); p > 0 {
		b.Share = 1 / float64(p)
	}
	for i, v := range l.list("resources") {
		one, _ := v.(object)
		s := spec.Resource{Name: one.text("name"), Count: int(min(one.integer("count"), math.MaxInt32))}
		switch at := fmt.Sprintf("%s.resources[%d]", at, i); {
		case s.Name == "":
			r.fail(at, "has no name")
		case s.Count == 0:
			r.warn(at, "has no effect with a count of 0")
			continue
		}
		b.Resources = append(b.Resources, s)
	}
}

// instances reads which device is meant.
func (r *reader) instances(c *Config, groups []any) {
	for i, v := range groups {
		g, _ := v.(object)
		at := fmt.Sprintf("instance_group[%d]", i)
		accelerator := map[string]string{"KIND_CPU": "cpu", "KIND_GPU": "cuda"}[g.text("kind")]
		switch n := g.integer("count"); {
		case n < 0:
			r.fail(at+".count", "is %d; must be 1 or more", n)
		case n > 1:
			r.warn(at+".count", "is shown to clients and has no effect: as many runs go side by side as the device has slots (--cpu-slots)")
		}
		if i > 0 && accelerator != c.Accelerator {
			r.warn(at+".kind", "has no effect: a model runs on one kind of device, that of the first group")
			continue
		}
		c.Accelerator = accelerator
		if l := g.message("rate_limiter"); i == 0 {
			r.limiter(&c.Batching, at+".rate_limiter", l)
		} else if len(l) > 0 {
			r.warn(at+".rate_limiter", "has no effect: that of the first group counts")
		}
	}
}

// runtimeParameters are those of Triton's ONNX Runtime backend that have no effect.
var runtimeParameters = []string{
	"execution_mode", "inter_op_thread_count", "cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy", "do_copy_in_default_stream",
	"cudnn_conv_use_max_workspace", "enable_mem_arena", "enable_mem_pattern", "memory.enable_memory_arena_shrinkage",
}

func (r *reader) parameters(c *Config, all object) {
	for name := range all {
		value := all.message(name).text("string_value")
		at := fmt.Sprintf("parameters[%.64s]", name)
		switch {
		case name == "intra_op_thread_count":
			n, err := strconv.Atoi(value)
			if err != nil || n < 0 || n > 1024 {
				r.fail(at, "is %.64q; must be a number of threads, 0 to 1024", value)
			}
			c.Threads = n
		case slices.Contains(runtimeParameters, name):
			r.warn(at, "is shown to clients and has no effect")
		}
	}
}

func (r *reader) policy(o object) policy {
	if len(o) > 1 {
		r.fail("version_policy", "has more than one of latest, all and specific; leave one")
	}
	switch {
	case o.has("all"):
		return policy{all: true}
	case o.has("specific"):
		only := o.message("specific").integers("versions")
		if len(only) == 0 {
			r.fail("version_policy.specific", "names no version")
		}
		return policy{only: only}
	}
	return policy{latest: int(min(o.message("latest").integer("num_versions"), math.MaxInt32))}
}

// choose is which of versions, in ascending order, are served, the highest first.
func (p *policy) choose(versions []int64) (chosen []int64, missing []int64) {
	switch {
	case p.all:
		chosen = slices.Clone(versions)
	case p.only != nil:
		for _, v := range p.only {
			if !slices.Contains(versions, v) {
				missing = append(missing, v)
			}
		}
		chosen = slices.DeleteFunc(slices.Clone(versions), func(v int64) bool { return !slices.Contains(p.only, v) })
	default:
		chosen = slices.Clone(versions[max(0, len(versions)-max(p.latest, 1)):])
	}
	slices.Reverse(chosen)
	return chosen, missing
}

// Labels are the classes of an output, by index; nil where they are not known.
func (c *Config) Labels(output string) []string { return c.labels[output] }
