// Package repository reads Triton's model repository: from a folder, or one model
// of it, to what is to be served, with everything that is wrong told at once.
//
//	DIR/MODEL/config.pbtxt      what is said of the model; need not be there
//	DIR/MODEL/1/model.onnx      its versions, by number
package repository

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"sluice.dev/deploy/spec"
)

// Model is one model of a repository.
type Model struct {
	Config   *Config
	Versions []Version // that are served, the highest, which is the default, first
}

// Version is one version of a model.
type Version struct {
	Number int64
	Path   string // of its file
}

// Name is the version's name in URLs.
func (v *Version) Name() string { return strconv.FormatInt(v.Number, 10) }

// Version is the version with a number, or nil.
func (m *Model) Version(n int64) *Version {
	for i := range m.Versions {
		if m.Versions[i].Number == n {
			return &m.Versions[i]
		}
	}
	return nil
}

// maxFile bounds a configuration, or a file of labels, in bytes.
const maxFile = 4 << 20

// Names are the models of a repository, in order.
func Names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the model repository: %w", err)
	}
	var list []string
	for _, e := range entries {
		if info, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && info.IsDir() && CheckName(e.Name()) == nil {
			list = append(list, e.Name())
		}
	}
	return list, nil
}

const noName = "Model name cannot be empty. Please enter a valid name to deploy." // in Triton's words

// CheckName says what is wrong with a model's name, which is also a folder's.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%s", noName)
	case strings.ContainsAny(name, `/\`) || strings.HasPrefix(name, ".") || strings.Contains(name, ".."):
		return fmt.Errorf("model name must not contain path traversal characters")
	case len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool { return unicode.IsControl(r) || r == unicode.ReplacementChar }):
		return fmt.Errorf("model name must be at most 255 printable characters")
	}
	return nil
}

// Read reads one model of the repository at dir. override, where it is not empty,
// replaces its config.pbtxt, as JSON. The model is nil if the findings have an error.
func Read(dir, name string, override []byte) (*Model, spec.Findings) {
	folder := filepath.Join(dir, name)
	file := filepath.Join(folder, "config.pbtxt")
	r := &reader{file: file, lines: map[string]int{}}
	o, ok := r.written(file, override)
	if !ok {
		return nil, r.findings
	}
	c := r.config(name, o)
	r.labels(c, folder)
	m := &Model{Config: c, Versions: r.versions(c, folder)}
	slices.SortStableFunc(r.findings, func(a, b spec.Finding) int { return a.Line - b.Line })
	if r.findings.Err() != nil {
		return nil, r.findings
	}
	return m, r.findings
}

// written is what is said of the model. False: it cannot be read.
func (r *reader) written(file string, override []byte) (object, bool) {
	if len(override) > 0 {
		r.file = "config"
		o := r.readJSON(override)
		return o, o != nil
	}
	text, err := readFile(file)
	switch {
	case os.IsNotExist(err):
		r.file = filepath.Dir(file)
		return object{}, true
	case err != nil:
		r.add(false, 0, "", "cannot be read: %v", err)
		return nil, false
	}
	o := r.readText(text)
	return o, o != nil
}

// readFile reads a file that is not too large.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("it has more than %d bytes", maxFile)
	}
	return text, err
}

// labels reads the classes of outputs.
func (r *reader) labels(c *Config, folder string) {
	for i, v := range c.explicit.list("output") {
		m, _ := v.(object)
		name := m.text("label_filename")
		if name == "" {
			continue
		}
		at := fmt.Sprintf("output[%d].label_filename", i)
		if !filepath.IsLocal(name) {
			r.fail(at, "is %.64q; must be a file in the model's folder", name)
			continue
		}
		text, err := readFile(filepath.Join(folder, name))
		if err != nil {
			r.fail(at, "cannot be read: %v", err)
			continue
		}
		lines := strings.Split(strings.TrimRight(string(text), "\r\n"), "\n")
		for k := range lines {
			lines[k] = strings.TrimSuffix(lines[k], "\r")
		}
		c.labels[m.text("name")] = lines
	}
}

// versions finds those that the policy chooses.
func (r *reader) versions(c *Config, folder string) (list []Version) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		r.add(false, 0, "", "the model's folder cannot be read: %v", err)
		return nil
	}
	paths := map[int64]string{}
	for _, e := range entries {
		n, err := strconv.ParseInt(e.Name(), 10, 64)
		if err != nil || n < 1 || e.Name() != strconv.FormatInt(n, 10) {
			continue
		}
		if info, err := os.Stat(filepath.Join(folder, e.Name())); err == nil && info.IsDir() {
			paths[n] = filepath.Join(folder, e.Name(), c.file)
		}
	}
	chosen, missing := c.policy.choose(slices.Sorted(maps.Keys(paths)))
	for _, n := range missing {
		r.fail("version_policy.specific", "names version %d, which has no folder", n)
	}
	if len(chosen) == 0 {
		r.add(false, 0, "", "the model %.64q has no version: make a folder with a number as its name, such as 1, with %s in it", c.Name, c.file)
	}
	for _, n := range chosen {
		info, err := os.Stat(paths[n])
		if err == nil && info.IsDir() { // a model with its weights in files beside it
			paths[n] = filepath.Join(paths[n], c.file)
			_, err = os.Stat(paths[n])
		}
		if err != nil {
			r.add(false, 0, "", "version %d has no file %s", n, c.file)
		}
		list = append(list, Version{n, paths[n]})
	}
	return list
}

// Stamp changes when something of a model's folder does that Read looks at.
func Stamp(dir, name string) string {
	var b strings.Builder
	_ = filepath.WalkDir(filepath.Join(dir, name), func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return nil // what cannot be read now may be there next time
		}
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintf(&b, "%s %d %d\n", path, info.Size(), info.ModTime().UnixNano())
		}
		return nil
	})
	return b.String()
}

func sortedKeys(o object) []string { return slices.Sorted(maps.Keys(o)) }
