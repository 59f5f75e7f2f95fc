package spec

import (
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// walker fills a value from the nodes of one document. The value's type leads,
// so nodes that it has no place for are never entered, and the depth is that of
// the type; aliases can repeat nodes, which the budget bounds.
type walker struct {
	report  *report
	source  *source
	lenient bool // unknown fields are warnings
}

// value fills v, which is f of its struct, from n.
func (w *walker) value(path string, n *yaml.Node, v reflect.Value, f *field) {
	if !w.report.spend() {
		return
	}
	w.source.lines[path] = n.Line
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if isNull(n) && v.Type() != reflect.TypeFor[Accelerator]() {
		return // left out, as Kubernetes has it
	}
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		w.value(path, n, p.Elem(), f)
		if !w.source.faulty[path] {
			v.Set(p)
		}
	case reflect.Struct:
		w.fields(path, n, v)
	case reflect.Map:
		w.texts(path, n, v)
	case reflect.Slice:
		w.list(path, n, v, f)
	default:
		w.scalar(path, n, v, f)
	}
}

// fields fills the struct v.
func (w *walker) fields(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		w.mismatch(path, n, "fields")
		return
	}
	known := fieldsOf(v.Type())
	w.entries(path, n, func(key string, value *yaml.Node) {
		f, ok := known.find(key)
		if !ok {
			w.unknown(path, key, value.Line, known)
			return
		}
		w.value(join(path, key), value, v.FieldByIndex(f.index), &f)
	})
}

// texts fills the map[string]string v.
func (w *walker) texts(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		w.mismatch(path, n, "names with a text each")
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	w.entries(path, n, func(key string, value *yaml.Node) {
		var text string
		at := element(path, key)
		if isNull(value) {
			w.source.lines[at] = value.Line
			w.fault(at, `is empty; write "" for an empty text`)
			return
		}
		w.value(at, value, reflect.ValueOf(&text).Elem(), &field{})
		v.SetMapIndex(reflect.ValueOf(key), reflect.ValueOf(text))
	})
}

// entries calls do for each entry of a mapping whose key is a text that was not
// there before.
func (w *walker) entries(path string, n *yaml.Node, do func(key string, value *yaml.Node)) {
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		if !w.report.spend() {
			return
		}
		key, value := n.Content[i], n.Content[i+1]
		switch line, again := seen[key.Value]; {
		case key.ShortTag() == "!!merge":
			w.source.faulty[path] = true // what seems to be missing may be in there
			w.at(path, key.Line, "merge keys (<<) are not understood; write the fields out")
		case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str":
			w.at(path, key.Line, "a field's name must be text, but one is "+kind(key))
		case again:
			w.at(path, key.Line, fmt.Sprintf("%s is given twice, first in line %d; remove one", quote(key.Value), line))
		default:
			seen[key.Value] = key.Line
			do(key.Value, value)
		}
	}
}

// unknown reports a field that the type does not have. The one that was probably
// meant counts as read, so that nobody complains that it is missing.
func (w *walker) unknown(path, key string, line int, known fields) {
	message := fmt.Sprintf("there is no field %s here; ", quote(key))
	switch near := known.nearest(key); {
	case near != "":
		message += "did you mean " + near + "?"
		if !w.lenient {
			w.source.faulty[join(path, near)] = true
		}
	case w.lenient:
		message += "it has no effect"
	default:
		message += "remove it"
	}
	w.report.add(Finding{w.source.file, line, path, message, w.lenient})
}

// list fills the slice v.
func (w *walker) list(path string, n *yaml.Node, v reflect.Value, f *field) {
	if n.Kind != yaml.SequenceNode {
		w.mismatch(path, n, "a list")
		return
	}
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		if i == f.maxItems {
			w.source.lines[at] = item.Line
			w.fault(at, fmt.Sprintf("is too many: there are at most %d, and here are %d; remove %[3]d", i, len(n.Content), len(n.Content)-i))
			return
		}
		if !w.report.spend() {
			return
		}
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
		if isNull(item) {
			w.source.lines[at] = item.Line
			w.fault(at, "is empty; remove it or fill it in")
			continue
		}
		w.value(at, item, v.Index(i), f)
	}
}

// scalar fills v, a string, bool, int or float64.
func (w *walker) scalar(path string, n *yaml.Node, v reflect.Value, f *field) {
	before := w.report.count
	switch v.Kind() {
	case reflect.String:
		w.text(path, n, v)
	case reflect.Bool:
		w.boolean(path, n, v)
	case reflect.Int:
		w.integer(path, n, v)
	case reflect.Float64:
		w.float(path, n, v)
	}
	if w.report.count != before {
		return
	}
	if message := f.check(v); message != "" {
		w.fault(path, message)
	}
}

func (w *walker) text(path string, n *yaml.Node, v reflect.Value) {
	switch tag := n.ShortTag(); {
	case isNull(n):
		if n.Value == "null" { // only an Accelerator comes here
			w.fault(path, `null without quotes means nothing in YAML; write "null" for the null device, or remove the line`)
		}
	case n.Kind != yaml.ScalarNode:
		w.mismatch(path, n, "text")
	case tag == "!!str" || tag == "!!timestamp":
		v.SetString(n.Value)
	default:
		w.fault(path, fmt.Sprintf("is %s, where text is expected; put it in quotes", kind(n)))
	}
}

func (w *walker) boolean(path string, n *yaml.Node, v reflect.Value) {
	if n.ShortTag() != "!!bool" {
		w.mismatch(path, n, "true or false")
		return
	}
	v.SetBool(n.Value == "true" || n.Value == "True" || n.Value == "TRUE")
}

// decimal is a number as JSON has it. YAML's further notations (octal, hexadecimal,
// underscores) mean different things to its versions.
var decimal = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)

func (w *walker) integer(path string, n *yaml.Node, v reflect.Value) {
	x, ok := w.number(path, n)
	if !ok {
		return
	}
	if x != math.Trunc(x) || math.Abs(x) > math.MaxInt32 {
		w.fault(path, fmt.Sprintf("is %s; must be a whole number below 2147483648", quote(n.Value)))
		return
	}
	v.SetInt(int64(x))
}

func (w *walker) float(path string, n *yaml.Node, v reflect.Value) {
	if x, ok := w.number(path, n); ok {
		v.SetFloat(x)
	}
}

// number is the finite number that n says, or a finding.
func (w *walker) number(path string, n *yaml.Node) (float64, bool) {
	if tag := n.ShortTag(); n.Kind != yaml.ScalarNode || tag != "!!int" && tag != "!!float" {
		w.mismatch(path, n, "a number")
		return 0, false
	}
	x, err := strconv.ParseFloat(n.Value, 64)
	if err != nil || !decimal.MatchString(n.Value) {
		w.fault(path, fmt.Sprintf("is %s; must be a finite number, written like 12 or 0.5", quote(n.Value)))
		return 0, false
	}
	return x, true
}

// mismatch reports a node of the wrong kind.
func (w *walker) mismatch(path string, n *yaml.Node, want string) {
	w.fault(path, fmt.Sprintf("is %s, where %s must be", kind(n), want))
}

// fault reports that the value at path cannot be used.
func (w *walker) fault(path, message string) {
	w.source.faulty[path] = true
	w.report.add(w.source.finding(path, message))
}

// at reports what has a line but no value of its own.
func (w *walker) at(path string, line int, message string) {
	w.report.add(Finding{File: w.source.file, Line: line, Path: path, Message: message})
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// kind is what n is, in words. They never quote it: it may be a key that stands in
// the wrong place.
func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a group of fields"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.ShortTag() {
	case "!!str":
		return "text"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!null":
		return "empty"
	}
	return "a value with the tag " + quote(n.Tag)
}
