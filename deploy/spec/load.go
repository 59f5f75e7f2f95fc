package spec

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Load decodes the file at path, or all files of the folder at path that end in
// .yaml or .yml and do not start with a dot, in the order of their names. Paths of
// models, keys and certificates that are relative become absolute, taken from the folder of
// the file that says them. What cannot be read is a finding, as is an endpoint's
// name that another has before it.
//
// Load neither validates nor sets defaults: see Endpoint.Validate and Default.
func Load(path string) ([]*Endpoint, Findings) { return new(Loader).Load(path) }

// Loader loads a path again and again. What a file's content became is kept, and is
// the very same while the content is. The zero value is ready. Not safe for
// concurrent use.
type Loader struct {
	// Check is called with each endpoint that was decoded, and may set defaults. What
	// it finds is found with the endpoint. Nil finds nothing, and keeps lines for
	// findings to come; else only those of heads are kept.
	Check func(*Endpoint) Findings

	files   []*loaded // of the last load
	scratch []byte
}

// File is a file that was read. Its data is not to be modified.
type File struct {
	Path string // as it was given
	Data []byte
}

// loaded is what became of a file.
type loaded struct {
	File
	endpoints []*Endpoint
	findings  Findings
}

// Load is the function Load, checked. The endpoints are not to be modified.
func (l *Loader) Load(path string) ([]*Endpoint, Findings) {
	names, findings := filesAt(path)
	before := l.begin()
	for _, name := range names {
		data, err := readFile(name, l.scratch)
		l.scratch = data
		if err != nil {
			findings = append(findings, unreadable(name, err)...)
			continue
		}
		l.add(before, File{name, data})
	}
	endpoints, more := l.end()
	return endpoints, append(findings, more...)
}

// LoadFiles is Load of files that were read.
func (l *Loader) LoadFiles(files []File) ([]*Endpoint, Findings) {
	before := l.begin()
	for _, f := range files {
		l.add(before, f)
	}
	return l.end()
}

// begin starts a load, and is what there was before it.
func (l *Loader) begin() map[string]*loaded {
	before := make(map[string]*loaded, len(l.files))
	for _, f := range l.files {
		before[f.Path] = f
	}
	l.files = nil
	return before
}

// add takes a file whose data is lent: as it was before, or decoded.
func (l *Loader) add(before map[string]*loaded, file File) {
	f := before[file.Path]
	if f == nil || !bytes.Equal(f.Data, file.Data) {
		file.Data = bytes.Clone(file.Data)
		f = l.decode(file)
	}
	l.files = append(l.files, f)
}

// end is what the files became.
func (l *Loader) end() (endpoints []*Endpoint, findings Findings) {
	for _, f := range l.files {
		endpoints, findings = append(endpoints, f.endpoints...), append(findings, f.findings...)
	}
	return endpoints, append(findings, duplicates(endpoints)...)
}

// Files are those of the last load.
func (l *Loader) Files() []File {
	files := make([]File, len(l.files))
	for i, f := range l.files {
		files[i] = f.File
	}
	return files
}

// filesAt is the paths of what there is to load.
func filesAt(path string) ([]string, Findings) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, unreadable(path, err)
	case !info.IsDir():
		return []string{path}, nil
	}
	files, err := yamlFiles(path)
	switch {
	case err != nil:
		return nil, unreadable(path, err)
	case len(files) == 0:
		return nil, Findings{{File: path, Message: "the folder has no .yaml file; give the path of one"}}
	}
	return files, nil
}

// yamlFiles is the files of a folder to load. Links are followed, since that is
// how Kubernetes mounts its configuration; pipes and the like are passed over.
func yamlFiles(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, entry := range entries {
		name := entry.Name()
		if ext := filepath.Ext(name); strings.HasPrefix(name, ".") || ext != ".yaml" && ext != ".yml" {
			continue
		}
		file := filepath.Join(folder, name)
		if info, err := os.Stat(file); err != nil || info.Mode().IsRegular() {
			files = append(files, file) // one that is not there is a finding later
		}
	}
	return files, nil
}

func (l *Loader) decode(file File) *loaded {
	f := &loaded{File: file}
	folder, err := filepath.Abs(filepath.Dir(file.Path))
	if err != nil {
		f.findings = unreadable(file.Path, err)
		return f
	}
	f.endpoints, f.findings = decode(file.Path, file.Data)
	for _, e := range f.endpoints {
		e.resolve(folder)
		if l.Check != nil {
			f.findings = append(f.findings, l.Check(e)...)
			e.source = e.source.head()
		}
	}
	return f
}

// readFile reads one byte more than Decode takes, at most, into the room of scratch or
// more.
func readFile(file string, scratch []byte) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return scratch, err
	}
	defer f.Close()
	b := bytes.NewBuffer(scratch[:0])
	_, err = b.ReadFrom(io.LimitReader(f, MaxFile+1))
	return b.Bytes(), err
}

func unreadable(file string, err error) Findings {
	return Findings{{File: file, Message: fmt.Sprintf("cannot be read: %v", err)}}
}

// resolve makes e's relative paths absolute.
func (e *Endpoint) resolve(folder string) {
	for i := range e.Spec.Versions {
		v := &e.Spec.Versions[i]
		if ref, err := ParseModel(v.Model); err == nil && ref.Path != "" {
			v.Model = absolute(folder, v.Model)
		}
		if v.Upstream == nil {
			continue
		}
		for _, file := range v.Upstream.tlsFiles() {
			if *file != "" {
				*file = absolute(folder, *file)
			}
		}
	}
	for _, k := range []*KeySource{e.Spec.Auth.Keys.Primary, e.Spec.Auth.Keys.Secondary} {
		if k != nil && k.File != "" {
			k.File = absolute(folder, k.File)
		}
	}
	if t := e.Spec.Auth.Token; t != nil && t.JWKS.File != "" {
		t.JWKS.File = absolute(folder, t.JWKS.File)
	}
}

func absolute(folder, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(folder, path)
}
