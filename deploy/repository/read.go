package repository

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"sluice.dev/deploy/repository/pbtxt"
	"sluice.dev/deploy/spec"
)

// object is a message as it was written: fields by name, with values of the types
// string, bool, int64, uint64, float64, object and []any. Maps are objects.
type object map[string]any

// reader turns a text or JSON into an object, after the schema, and collects what
// is wrong with it.
type reader struct {
	file     string
	lines    map[string]int // of fields, by path
	findings spec.Findings
}

func (r *reader) add(warning bool, line int, path, format string, args ...any) {
	r.findings = append(r.findings, spec.Finding{File: r.file, Line: line, Path: path, Message: fmt.Sprintf(format, args...), Warning: warning})
}

// fail reports what is wrong with the field at path.
func (r *reader) fail(path, format string, args ...any) {
	r.add(false, r.lines[path], path, format, args...)
}

func (r *reader) warn(path, format string, args ...any) {
	r.add(true, r.lines[path], path, format, args...)
}

// readText reads protobuf's text format.
func (r *reader) readText(text []byte) object {
	m, err := pbtxt.Parse(text)
	if err != nil {
		wrong := (*pbtxt.Error)(nil)
		errors.As(err, &wrong)
		r.add(false, wrong.Line, "", "%s", wrong.Message)
		return nil
	}
	return r.message("ModelConfig", "", m)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// message reads the fields of a message.
func (r *reader) message(message, path string, m *pbtxt.Message) object {
	out := object{}
	count := map[string]int{}
	for i := range m.Fields {
		f := &m.Fields[i]
		at := join(path, f.Name)
		known := of(message, f.Name)
		if known == nil {
			r.add(true, f.Line, at, "is not a field that this release knows; it has no effect")
			continue
		}
		n := count[f.Name]
		count[f.Name]++
		if known.repeated {
			at = fmt.Sprintf("%s[%d]", at, n)
		}
		if n > 0 && !known.repeated && !known.mapped {
			r.add(false, f.Line, at, "is there twice")
			continue
		}
		r.lines[at] = f.Line
		if _, ok := r.lines[join(path, f.Name)]; !ok {
			r.lines[join(path, f.Name)] = f.Line
		}
		if known.mapped {
			r.entry(known, at, f, out)
			continue
		}
		r.put(out, known, r.value(known.kind, at, f))
	}
	return out
}

// put sets a field, or adds to a repeated one.
func (r *reader) put(out object, f *field, v any) {
	if f.repeated {
		list, _ := out[f.name].([]any)
		out[f.name] = append(list, v)
		return
	}
	out[f.name] = v
}

// entry reads an entry of a map: a message with key and value.
func (r *reader) entry(known *field, at string, f *pbtxt.Field, out object) {
	m := f.Value.Message
	if m == nil {
		r.fail(at, "must be { key: … value: … }")
		return
	}
	entries, _ := out[known.name].(object)
	if entries == nil {
		entries = object{}
		out[known.name] = entries
	}
	var key string
	var value *pbtxt.Field
	for i := range m.Fields {
		switch e := &m.Fields[i]; e.Name {
		case "key":
			key = e.Value.Text
		case "value":
			value = e
		default:
			r.add(true, e.Line, at, "%q is not key or value; it has no effect", e.Name)
		}
	}
	at = fmt.Sprintf("%s[%.64s]", at, key)
	r.lines[at] = f.Line
	if value == nil {
		value = &pbtxt.Field{Line: f.Line, Value: pbtxt.Value{Message: &pbtxt.Message{}}}
		if _, isMessage := messages[known.kind]; !isMessage {
			value.Value = pbtxt.Value{String: true}
		}
	}
	entries[key] = r.value(known.kind, at, value)
}

// value reads one value of a kind.
func (r *reader) value(kind, at string, f *pbtxt.Field) any {
	if _, isMessage := messages[kind]; isMessage || kind == "any" {
		if f.Value.Message == nil && kind == "any" {
			return f.Value.Text
		}
		if f.Value.Message == nil {
			r.fail(at, "must be a message in braces")
			return nil
		}
		if kind == "any" {
			return r.loose(f.Value.Message)
		}
		return r.message(kind, at, f.Value.Message)
	}
	if f.Value.Message != nil {
		r.fail(at, "must be %s, not a message", article(kind))
		return nil
	}
	if f.Value.String != (kind == "string") {
		r.fail(at, "is %.64q; must be %s", f.Value.Text, article(kind))
		return nil
	}
	return r.scalar(kind, at, f.Value.Text)
}

// loose reads a message without a schema; everything is text.
func (r *reader) loose(m *pbtxt.Message) object {
	out := object{}
	for _, f := range m.Fields {
		var v any = f.Value.Text
		if f.Value.Message != nil {
			v = r.loose(f.Value.Message)
		}
		if before, again := out[f.Name]; again {
			list, isList := before.([]any)
			if !isList {
				list = []any{before}
			}
			v = append(list, v)
		}
		out[f.Name] = v
	}
	return out
}

func article(kind string) string {
	if names := enums[kind]; names != nil {
		return "one of " + strings.Join(names, ", ")
	}
	switch kind {
	case "string":
		return "a string in quotes"
	case "bool":
		return "true or false"
	}
	return "a number of type " + kind
}

// scalar reads a value that is not a string in the text, as its kind.
func (r *reader) scalar(kind, at, text string) any {
	if kind == "string" {
		return text
	}
	if names := enums[kind]; names != nil {
		if i, err := strconv.Atoi(text); err == nil && i >= 0 && i < len(names) {
			return names[i]
		}
		if slices.Contains(names, text) {
			return text
		}
	}
	bits := map[string]int{"int32": 32, "int64": 64, "uint32": 32, "uint64": 64}[kind]
	var v any
	err := errors.New("not of the kind")
	switch {
	case kind == "bool" && (text == "true" || text == "True" || text == "t" || text == "1"):
		return true
	case kind == "bool" && (text == "false" || text == "False" || text == "f" || text == "0"):
		return false
	case strings.HasPrefix(kind, "int"):
		v, err = strconv.ParseInt(text, 0, bits)
	case strings.HasPrefix(kind, "uint"):
		v, err = strconv.ParseUint(text, 0, bits)
	}
	if err != nil || strings.Contains(text, "_") {
		r.fail(at, "is %.64q; must be %s", text, article(kind))
		return nil
	}
	return v
}

// readJSON reads the JSON form, with names in either style.
func (r *reader) readJSON(text []byte) object {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v map[string]any
	if err := d.Decode(&v); err != nil {
		r.add(false, 0, "", "the configuration is not JSON: %v", err)
		return nil
	}
	if d.More() {
		r.add(false, 0, "", "the configuration is followed by other values")
	}
	return r.jsonMessage("ModelConfig", "", v)
}

func (r *reader) jsonMessage(message, path string, m map[string]any) object {
	out := object{}
	for name, v := range m {
		name = snake(name)
		at := join(path, name)
		f := of(message, name)
		if f == nil {
			r.warn(at, "is not a field that this release knows; it has no effect")
			continue
		}
		list, isList := v.([]any)
		entries, isObject := v.(map[string]any)
		switch {
		case v == nil:
		case f.repeated && !isList:
			r.fail(at, "must be an array")
		case f.repeated:
			for i, one := range list {
				r.put(out, f, r.jsonValue(f.kind, fmt.Sprintf("%s[%d]", at, i), one))
			}
		case f.mapped && !isObject:
			r.fail(at, "must be an object")
		case f.mapped:
			all := object{}
			for key, one := range entries {
				all[key] = r.jsonValue(f.kind, fmt.Sprintf("%s[%.64s]", at, key), one)
			}
			out[name] = all
		default:
			out[name] = r.jsonValue(f.kind, at, v)
		}
	}
	return out
}

// snake is a field's name as the definition has it: maxBatchSize is max_batch_size.
func snake(name string) string {
	var b strings.Builder
	for _, c := range name {
		if 'A' <= c && c <= 'Z' {
			b.WriteByte('_')
			c |= 0x20
		}
		b.WriteRune(c)
	}
	return b.String()
}

func (r *reader) jsonValue(kind, at string, v any) any {
	if kind == "any" {
		return v
	}
	if _, isMessage := messages[kind]; isMessage {
		m, ok := v.(map[string]any)
		if !ok {
			r.fail(at, "must be an object")
			return nil
		}
		return r.jsonMessage(kind, at, m)
	}
	switch v := v.(type) {
	case string:
		return r.scalar(kind, at, v) // 64-bit numbers may be strings
	case bool:
		if kind == "bool" {
			return v
		}
	case json.Number:
		if f, err := v.Float64(); err == nil && kind != "bool" && kind != "string" && f == math.Trunc(f) {
			return r.scalar(kind, at, v.String())
		}
	}
	r.fail(at, "must be %s", article(kind))
	return nil
}
