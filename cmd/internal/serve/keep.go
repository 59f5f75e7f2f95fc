package serve

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"sluice.dev/cmd/internal/state"
	"sluice.dev/deploy/spec"
)

// keeper keeps the specification that was served last, for a start while the file
// cannot be used, and tells whether what is served is what the file says.
type keeper struct {
	state  state.Dir // empty keeps nothing
	file   string
	loader spec.Loader // of file
	stale  prometheus.Gauge
}

func newKeeper(r prometheus.Registerer, d state.Dir, file string) *keeper {
	k := &keeper{state: d, file: file, stale: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sluice_config_stale", Help: "1 while the specification cannot be applied, and what was good before is served.",
	})}
	r.MustRegister(k.stale)
	return k
}

// lastGood is the first line of what is kept: the files that were served follow it, as
// they were. What they became is many times as large.
type lastGood struct {
	Of    string     `json:"of"` // path of the specification: another's is not ours
	Files []goodFile `json:"files"`
}

type goodFile struct {
	Path string `json:"path"`
	Size int    `json:"size"` // bytes
}

// files are what follows, in rest.
func (g *lastGood) files(rest []byte) (list []spec.File) {
	for _, f := range g.Files {
		n := max(min(f.Size, len(rest)), 0)
		list = append(list, spec.File{Path: f.Path, Data: rest[:n]})
		rest = rest[n:]
	}
	return list
}

func (k *keeper) path() string {
	path, err := filepath.Abs(k.file)
	if err != nil {
		return k.file
	}
	return path
}

// applied keeps what was loaded last, which is served now.
func (k *keeper) applied() error {
	k.stale.Set(0)
	if k.state == "" {
		return nil
	}
	head := lastGood{Of: k.path()}
	pieces := [][]byte{nil}
	for _, f := range k.loader.Files() {
		path, err := filepath.Abs(f.Path)
		if err != nil {
			return fmt.Errorf("keep the specification: %w", err)
		}
		head.Files = append(head.Files, goodFile{path, len(f.Data)})
		pieces = append(pieces, f.Data)
	}
	line, err := json.Marshal(head)
	if err != nil {
		return fmt.Errorf("keep the specification: %w", err)
	}
	pieces[0] = append(line, '\n')
	return k.state.KeepGood(pieces...)
}

// failed tells that the file could not be applied.
func (k *keeper) failed() { k.stale.Set(1) }

// last is what was served last of the file; nil if nothing is kept of it.
func (k *keeper) last() []*spec.Endpoint {
	if k.state == "" {
		return nil
	}
	text, err := k.state.LastGood()
	line, rest, _ := bytes.Cut(text, []byte("\n"))
	var kept lastGood
	if err != nil || json.Unmarshal(line, &kept) != nil || kept.Of != k.path() {
		return nil
	}
	loader := spec.Loader{Check: func(e *spec.Endpoint) spec.Findings { return check(e, (*spec.Endpoint).ValidateRegistered) }}
	endpoints, findings := loader.LoadFiles(kept.files(rest))
	if findings.Err() != nil {
		return nil // of a release with other rules
	}
	return endpoints
}
