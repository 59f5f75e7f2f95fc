package repository

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"sluice.dev/accel/tensor"
)

// Fit holds a model's own signature against the configuration, and returns the one
// that clients see: the same tensors in the same order, each with as many elements,
// perhaps in other dimensions.
func (c *Config) Fit(own *tensor.Signature) (*tensor.Signature, error) {
	seen := &tensor.Signature{Inputs: slices.Clone(own.Inputs), Outputs: slices.Clone(own.Outputs), Alone: c.MaxBatch == Unbatched}
	if c.MaxBatch > 0 && !own.Batchable() {
		return nil, fmt.Errorf("max_batch_size is %d, but the model cannot be batched: the first dimension of every input and output must be free; set max_batch_size: 0", c.MaxBatch)
	}
	batched := !seen.Alone && own.Batchable()
	if err := fit("input", c.inputs, seen.Inputs, batched); err != nil {
		return nil, err
	}
	return seen, fit("output", c.outputs, seen.Outputs, batched)
}

// fit changes infos to what plans say.
func fit(kind string, plans []plan, infos []tensor.Info, batched bool) error {
	for i := range plans {
		p := &plans[i]
		k := slices.IndexFunc(infos, func(info tensor.Info) bool { return info.Name == p.name })
		if k < 0 {
			return fmt.Errorf("%s: the model has no %s '%.64s'; it has %s", p.path, kind, p.name, names(infos))
		}
		info := &infos[k]
		if p.dtype != tensor.Invalid && p.dtype != info.DType {
			return fmt.Errorf("%s: the data_type of '%s' is %s, but the model has %s", p.path, p.name, typeName(p.dtype), typeName(info.DType))
		}
		if !p.sized {
			continue
		}
		inner := p.dims
		if p.shaped {
			inner = p.reshape
		}
		var rows []int64
		if batched {
			rows = []int64{-1}
		}
		want := slices.Concat(rows, inner)
		fits := len(want) == len(info.Shape)
		for d := 0; fits && d < len(want); d++ {
			fits = info.Shape[d] == -1 || info.Shape[d] == want[d]
		}
		if !fits {
			return fmt.Errorf("%s: the dims of '%s' are %v%s, but the model has %v", p.path, p.name, inner, map[bool]string{true: " after the rows"}[batched], info.Shape)
		}
		info.Shape = slices.Concat(rows, p.dims)
	}
	return nil
}

func names(infos []tensor.Info) (all string) {
	for i := range infos {
		if i > 0 {
			all += ", "
		}
		all += "'" + infos[i].Name + "'"
	}
	return all
}

// Document is Triton's ModelConfig of the model, completed: seen is the signature
// that clients see, and limit the most rows of a run. Names are those of the
// definition, and 64-bit numbers are numbers.
func (c *Config) Document(seen *tensor.Signature, limit int) json.RawMessage {
	o := object{}
	for name, v := range c.explicit {
		o[name] = v
	}
	o["name"], o["platform"], o["backend"], o["default_model_filename"] = c.Name, "onnxruntime_onnx", "onnxruntime", c.file
	if c.file == "" {
		o["default_model_filename"] = "model.onnx"
	}
	batched := seen.Batchable()
	o["max_batch_size"] = int64(0)
	if batched {
		o["max_batch_size"] = int64(limit)
	}
	if batched && !o.has("dynamic_batching") {
		o["dynamic_batching"] = object{"preferred_batch_size": []any{}, "max_queue_delay_microseconds": uint64(0), "preserve_ordering": false}
	}
	if len(o.message("version_policy")) == 0 {
		o["version_policy"] = object{"latest": object{"num_versions": uint64(1)}}
	}
	o["input"] = described(seen.Inputs, o.list("input"), batched, object{"format": "FORMAT_NONE", "is_shape_tensor": false, "allow_ragged_batch": false, "optional": false})
	o["output"] = described(seen.Outputs, o.list("output"), batched, object{"label_filename": "", "is_shape_tensor": false})
	for _, name := range []string{"instance_group", "batch_input", "batch_output", "model_warmup"} {
		if !o.has(name) {
			o[name] = []any{}
		}
	}
	for _, name := range []string{"cc_model_filenames", "metric_tags", "parameters"} {
		if !o.has(name) {
			o[name] = object{}
		}
	}
	return appendJSON(nil, "ModelConfig", o)
}

// described are tensors with what is said of them, and otherwise what defaults say.
func described(infos []tensor.Info, given []any, batched bool, defaults object) []any {
	list := []any{}
	for i := range infos {
		one := object{}
		for name, v := range defaults {
			one[name] = v
		}
		for _, g := range given {
			if m, _ := g.(object); m.text("name") == infos[i].Name {
				for name, v := range m {
					one[name] = v
				}
			}
		}
		shape := infos[i].Shape
		if batched {
			shape = shape[1:]
		}
		dims := []any{}
		for _, d := range shape {
			dims = append(dims, d)
		}
		one["name"], one["data_type"], one["dims"] = infos[i].Name, typeName(infos[i].DType), dims
		list = append(list, one)
	}
	return list
}

// appendJSON writes a value of a kind of the schema, fields in its order.
func appendJSON(dst []byte, kind string, v any) []byte {
	switch v := v.(type) {
	case []any:
		dst = append(dst, '[')
		for i, one := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSON(dst, kind, one)
		}
		return append(dst, ']')
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case uint64:
		return strconv.AppendUint(dst, v, 10)
	case object:
		if fields, ok := messages[kind]; ok {
			return appendMessage(dst, fields, v)
		}
	}
	plain, _ := json.Marshal(v) // of plain values: cannot fail
	return append(dst, plain...)
}

func appendMessage(dst []byte, fields []field, o object) []byte {
	dst = append(dst, '{')
	first := true
	for i := range fields {
		f := &fields[i]
		v, ok := o[f.name]
		if !ok {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(strconv.AppendQuote(dst, f.name), ':')
		m, isObject := v.(object)
		if !f.mapped || !isObject {
			dst = appendJSON(dst, f.kind, v)
			continue
		}
		dst = appendMap(dst, f.kind, m)
	}
	return append(dst, '}')
}

// appendMap writes a map in the order of its keys.
func appendMap(dst []byte, kind string, m object) []byte {
	dst = append(dst, '{')
	keys := sortedKeys(m)
	for i, key := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		quoted, _ := json.Marshal(key)
		dst = append(append(dst, quoted...), ':')
		dst = appendJSON(dst, kind, m[key])
	}
	return append(dst, '}')
}
