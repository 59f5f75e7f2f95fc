package spec

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Finding is one thing that is wrong with a document.
type Finding struct {
	File    string // as given to Decode or Load; empty if not read from anywhere
	Line    int    // from 1; 0 if unknown
	Path    string // the field, as in spec.versions[1].trafficPercentile; empty for the whole
	Message string // what is wrong and what to do
	Warning bool   // the document can be used all the same
}

// String is "file:line: path: message", less what is not known.
func (f Finding) String() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d", f.Line)
		}
		b.WriteString(": ")
	}
	if f.Warning {
		b.WriteString("warning: ")
	}
	if f.Path != "" {
		b.WriteString(f.Path)
		b.WriteString(": ")
	}
	b.WriteString(f.Message)
	return b.String()
}

// Findings is everything that is wrong, in the order of the document.
type Findings []Finding

// Err joins what is not a warning, one finding a line. It is nil if there is
// nothing else.
func (f Findings) Err() error {
	var lines []string
	for _, finding := range f {
		if !finding.Warning {
			lines = append(lines, finding.String())
		}
	}
	if lines == nil {
		return nil
	}
	return errors.New(strings.Join(lines, "\n"))
}

// Warnings is what does not keep the documents from being used.
func (f Findings) Warnings() Findings {
	var warnings Findings
	for _, finding := range f {
		if finding.Warning {
			warnings = append(warnings, finding)
		}
	}
	return warnings
}

// sort puts the findings of one file into the order of their lines.
func (f Findings) sort() {
	slices.SortStableFunc(f, func(a, b Finding) int { return a.Line - b.Line })
}

// source remembers where the fields of one document stand, and which of them
// Decode has already found fault with. A nil source knows nothing. Immutable once
// the document is decoded.
type source struct {
	file   string
	lines  map[string]int  // by path; "" is the document's first line
	faulty map[string]bool // by path
}

// head is what s knows of a document's head, which is less to keep.
func (s *source) head() *source {
	return &source{file: s.file, lines: map[string]int{"": s.lines[""], "metadata.name": s.lines["metadata.name"]}}
}

// finding is a Finding at path, or at what holds it.
func (s *source) finding(path, message string) Finding {
	f := Finding{Path: path, Message: message}
	if s == nil {
		return f
	}
	f.File = s.file
	for at := path; ; at = parent(at) {
		if line, ok := s.lines[at]; ok || at == "" {
			f.Line = line
			return f
		}
	}
}

// isFaulty reports whether the value at path, or what holds it, could not be
// read: rules about it would only repeat that.
func (s *source) isFaulty(path string) bool {
	for s != nil && path != "" {
		if s.faulty[path] {
			return true
		}
		path = parent(path)
	}
	return false
}

// parent is the path of what holds path; "" for the whole document.
func parent(path string) string {
	return path[:max(strings.LastIndexAny(path, ".["), 0)]
}

// join is the path of the field called name in path.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// element is the path of a map's element.
func element(path, key string) string {
	if len(key) > maxLabelKey || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		key = quote(key)
	}
	return path + "[" + key + "]"
}

// quote shows text from a document in a message: printable and of bounded length.
func quote(s string) string {
	const most = 60 // bytes
	if len(s) > most {
		return fmt.Sprintf("%q...", s[:most])
	}
	return fmt.Sprintf("%q", s)
}
