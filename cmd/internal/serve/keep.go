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
	state state.Dir // empty keeps nothing
	file  string
	stale prometheus.Gauge
}

func newKeeper(r prometheus.Registerer, d state.Dir, file string) *keeper {
	k := &keeper{state: d, file: file, stale: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sluice_config_stale", Help: "1 while the specification cannot be applied, and what was good before is served.",
	})}
	r.MustRegister(k.stale)
	return k
}

// head is the first line of what is kept: another file's is not ours.
func (k *keeper) head() string {
	path, err := filepath.Abs(k.file)
	if err != nil {
		path = k.file
	}
	return fmt.Sprintf("# What was served last of %q.\n", path)
}

// applied keeps endpoints, which are served now.
func (k *keeper) applied(endpoints []*spec.Endpoint) error {
	k.stale.Set(0)
	if k.state == "" {
		return nil
	}
	var b bytes.Buffer
	b.WriteString(k.head())
	for _, e := range endpoints {
		text, err := json.Marshal(e) // which is YAML, too
		if err != nil {
			return fmt.Errorf("keep the specification: %w", err)
		}
		b.WriteString("---\n")
		b.Write(text)
		b.WriteByte('\n')
	}
	return k.state.KeepGood(b.Bytes())
}

// failed tells that the file could not be applied.
func (k *keeper) failed() { k.stale.Set(1) }

// last is what was served last of the file; nil if nothing is kept of it.
func (k *keeper) last() []*spec.Endpoint {
	if k.state == "" {
		return nil
	}
	text, err := k.state.LastGood()
	if err != nil || !bytes.HasPrefix(text, []byte(k.head())) {
		return nil
	}
	endpoints, findings := spec.Decode("what was served last", text)
	for _, e := range endpoints {
		findings = append(findings, e.ValidateRegistered()...)
		e.Default()
	}
	if findings.Err() != nil {
		return nil // of a release with other rules
	}
	return endpoints
}
