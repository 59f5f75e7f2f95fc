package spec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// What is refused without being looked at any further.
const (
	MaxFile     = 1 << 20 // bytes of one file
	maxNodes    = 200_000 // values of one file, those repeated by aliases included
	maxFindings = 100     // findings of one file; then one that says that there are more
)

// report collects the findings of one file within its limits.
type report struct {
	file     string
	findings Findings
	count    int // of findings, those that were not kept included
	nodes    int // left to spend
}

func newReport(file string) *report { return &report{file: file, nodes: maxNodes} }

func (r *report) add(f Finding) {
	r.count++
	if r.count <= maxFindings {
		r.findings = append(r.findings, f)
	}
}

// done is the findings in the order of their lines.
func (r *report) done() Findings {
	r.findings.sort()
	if r.count > maxFindings {
		r.findings = append(r.findings, Finding{File: r.file, Message: fmt.Sprintf("%d more; correct these first", r.count-maxFindings)})
	}
	return r.findings
}

// spend takes one value out of the budget. False means that it is used up, which
// is reported once.
func (r *report) spend() bool {
	r.nodes--
	if r.nodes == -1 {
		r.add(Finding{File: r.file, Message: fmt.Sprintf("more than %d values, aliases included; split the file", maxNodes)})
	}
	return r.nodes >= 0
}

// Decode reads all documents of a YAML or JSON file called name. It finds what is
// wrong with their form: syntax, unknown fields, wrong types, single values out of
// range, a field or an endpoint given twice. What could be read is there even if
// something else could not; Validate finds the rest. Documents of another kind are
// findings; empty ones are passed over.
func Decode(name string, data []byte) ([]*Endpoint, Findings) {
	endpoints, findings := decode(name, data)
	return endpoints, append(findings, duplicates(endpoints)...)
}

// decode is Decode without the comparison of endpoints.
func decode(name string, data []byte) ([]*Endpoint, Findings) {
	r := newReport(name)
	var endpoints []*Endpoint
	for _, root := range r.documents(data) {
		if e := r.endpoint(root); e != nil {
			endpoints = append(endpoints, e)
		}
	}
	return endpoints, r.done()
}

// tagDirective is a YAML directive whose handling takes quadratic time.
var tagDirective = regexp.MustCompile(`(?m)^%TAG`)

// documents is the root nodes of all documents that are not empty, up to the
// first syntax error.
func (r *report) documents(data []byte) []*yaml.Node {
	if len(data) > MaxFile {
		r.add(Finding{File: r.file, Message: fmt.Sprintf("longer than %d bytes; split the file", MaxFile)})
		return nil
	}
	if tagDirective.Match(data) {
		r.add(Finding{File: r.file, Message: "%TAG directives are not understood; remove them"})
		return nil
	}
	var roots []*yaml.Node
	for decoder := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var document yaml.Node
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return roots
		}
		if err != nil {
			r.add(r.syntax(err))
			return roots
		}
		if len(document.Content) == 1 && !isNull(document.Content[0]) {
			roots = append(roots, document.Content[0])
		}
	}
}

var yamlError = regexp.MustCompile(`(?s)^yaml: (?:line ([0-9]+): )?(.*)$`)

// syntax is a finding for an error of the YAML reader. It gives no line where the
// error is in the first one, and for some others.
func (r *report) syntax(err error) Finding {
	f := Finding{File: r.file, Message: err.Error()}
	if parts := yamlError.FindStringSubmatch(err.Error()); parts != nil {
		f.Line, _ = strconv.Atoi(parts[1])
		f.Message = "not YAML: " + quote(parts[2]) + "; check indentation, quotes and brackets"
	}
	return f
}

// endpoint decodes one document; nil if it is not an Endpoint.
func (r *report) endpoint(root *yaml.Node) *Endpoint {
	w := &walker{report: r, source: newSource(r.file, root.Line)}
	if root.Kind != yaml.MappingNode {
		w.mismatch("", root, "apiVersion, kind, metadata and spec")
		return nil
	}
	if kind := entry(root, "kind"); kind != nil && kind.Kind == yaml.ScalarNode && kind.Value != KindEndpoint {
		w.at("kind", kind.Line, fmt.Sprintf("is %s; must be %s", quote(kind.Value), KindEndpoint))
		return nil
	}
	e := &Endpoint{source: w.source}
	w.fields("", root, reflect.ValueOf(e).Elem())
	w.required("apiVersion", e.APIVersion, APIVersion)
	w.required("kind", e.Kind, KindEndpoint)
	return e
}

// required reports a head field that is not there.
func (w *walker) required(path, have, want string) {
	if have == "" && !w.source.isFaulty(path) {
		w.fault(path, "is missing; write "+path+": "+want)
	}
}

func newSource(file string, line int) *source {
	return &source{file: file, lines: map[string]int{"": line}, faulty: map[string]bool{}}
}

// entry is the value of key in a mapping, or nil.
func entry(mapping *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

// duplicates is a finding for each endpoint whose name another has before it.
func duplicates(endpoints []*Endpoint) Findings {
	type name struct{ namespace, name string }
	first := make(map[name]*Endpoint)
	var findings Findings
	for _, e := range endpoints {
		n := name{e.Metadata.Namespace, e.Metadata.Name}
		if n.name == "" {
			continue
		}
		other, again := first[n]
		if !again {
			first[n] = e
			continue
		}
		at := other.source.finding("metadata.name", "")
		findings = append(findings, e.source.finding("metadata.name",
			fmt.Sprintf("%s is already the name of the endpoint in %s:%d; rename or remove one", quote(n.name), at.File, at.Line)))
	}
	return findings
}
