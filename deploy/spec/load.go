package spec

import (
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
func Load(path string) ([]*Endpoint, Findings) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	files := []string{path}
	if info.IsDir() {
		if files, err = yamlFiles(path); err != nil {
			return nil, unreadable(path, err)
		}
		if len(files) == 0 {
			return nil, Findings{{File: path, Message: "the folder has no .yaml file; give the path of one"}}
		}
	}
	var endpoints []*Endpoint
	var findings Findings
	for _, file := range files {
		more, found := loadFile(file)
		endpoints, findings = append(endpoints, more...), append(findings, found...)
	}
	return endpoints, append(findings, duplicates(endpoints)...)
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

func loadFile(file string) ([]*Endpoint, Findings) {
	data, err := readFile(file)
	if err != nil {
		return nil, unreadable(file, err)
	}
	folder, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return nil, unreadable(file, err)
	}
	endpoints, findings := decode(file, data)
	for _, e := range endpoints {
		e.resolve(folder)
	}
	return endpoints, findings
}

// readFile reads one byte more than Decode takes, at most.
func readFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxFile+1))
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
