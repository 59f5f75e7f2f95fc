package serve

import (
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

// lastGood is what is kept: the files that were served, since what they became is many
// times as large.
type lastGood struct {
	Of    string      `json:"of"` // path of the specification: another's is not ours
	Files []spec.File `json:"files"`
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
	files := k.loader.Files()
	for i := range files {
		path, err := filepath.Abs(files[i].Path)
		if err != nil {
			return fmt.Errorf("keep the specification: %w", err)
		}
		files[i].Path = path
	}
	text, err := json.Marshal(lastGood{k.path(), files})
	if err != nil {
		return fmt.Errorf("keep the specification: %w", err)
	}
	return k.state.KeepGood(append(text, '\n'))
}

// failed tells that the file could not be applied.
func (k *keeper) failed() { k.stale.Set(1) }

// last is what was served last of the file; nil if nothing is kept of it.
func (k *keeper) last() []*spec.Endpoint {
	if k.state == "" {
		return nil
	}
	text, err := k.state.LastGood()
	var kept lastGood
	if err != nil || json.Unmarshal(text, &kept) != nil || kept.Of != k.path() {
		return nil
	}
	loader := spec.Loader{Check: func(e *spec.Endpoint) spec.Findings { return check(e, (*spec.Endpoint).ValidateRegistered) }}
	endpoints, findings := loader.LoadFiles(kept.Files)
	if findings.Err() != nil {
		return nil // of a release with other rules
	}
	return endpoints
}
