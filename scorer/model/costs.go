package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"sluice.dev/accel"
	"sluice.dev/scorer/batch"
)

// Costs keeps what was learnt of what runs cost from one process to the next. A name
// is a file's. Load of a name that was never saved is nothing.
type Costs interface {
	LoadCosts(name string) ([]byte, error)
	SaveCosts(name string, data []byte) error
}

// costs are what was learnt of a version, and of which arrangement of its runs.
type costs struct {
	Threads int                `json:"threads"` // of a run
	Shapes  []batch.ShapeCosts `json:"shapes"`
}

// Keep has what is learnt kept in store. To be called before the first Stage.
func (s *Set) Keep(store Costs) { s.store = store }

// Save keeps what was learnt until now. For any goroutine.
func (s *Set) Save() { s.save(maps.Values(*s.serving.Load())) }

// save keeps what versions learnt: of those that are alike what one of them did.
func (s *Set) save(versions iter.Seq[*Version]) {
	if s.store == nil {
		return
	}
	saved := map[string]bool{}
	for v := range versions {
		if saved[v.kept] {
			continue
		}
		if learnt := v.queue.Explain().Shapes; len(learnt) > 0 {
			saved[v.kept] = true
			s.saveOne(v, learnt)
		}
	}
}

func (s *Set) saveOne(v *Version, learnt []batch.ShapeCosts) {
	data, err := json.Marshal(costs{v.threads, learnt})
	if err == nil {
		err = s.store.SaveCosts(v.kept, data)
	}
	if err != nil {
		s.log.Warn("what runs cost is learnt anew after a restart", "endpoint", v.config.Endpoint, "version", v.config.Version, "error", err)
	}
}

// restore is what was kept; what cannot be read is learnt anew.
func (s *Set) restore(name string) (kept costs) {
	if s.store == nil {
		return costs{}
	}
	data, err := s.store.LoadCosts(name)
	if err == nil && len(data) > 0 {
		if err = json.Unmarshal(data, &kept); err == nil && kept.Threads < 1 {
			err = errors.New("it does not say how many threads a run had")
		}
	}
	if err != nil {
		s.log.Warn("what runs cost is learnt anew", "file", name, "error", err)
		return costs{}
	}
	return kept
}

// costsKey names what is kept of a model on a device: all that changes what a run
// costs, or which sizes were tried. 0 threads are those that were chosen.
func costsKey(digest, driver string, d accel.Device, threads, maxBatch int) string {
	clean := func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return '-'
	}
	return strings.Map(clean, fmt.Sprintf("%s %s %s %s %d %d %d", strings.TrimPrefix(digest, "sha256:"), driver, d.ID, d.Name, d.Slots, threads, maxBatch)) + ".json"
}

// Explained is a version's name and what it knows of its runs.
type Explained struct {
	Endpoint string `json:"endpoint"`
	Version  string `json:"version"`
	Device   string `json:"device"`
	Slots    int    `json:"slots"` // runs side by side
	batch.Explained
}

// Explain tells of every version why its last batches are as they are, by name.
func (s *Set) Explain() []Explained {
	versions := *s.serving.Load()
	list := make([]Explained, 0, len(versions))
	for _, k := range slices.SortedFunc(maps.Keys(versions), func(a, b Key) int {
		return strings.Compare(a.Endpoint+"/"+a.Version, b.Endpoint+"/"+b.Version)
	}) {
		v := versions[k]
		list = append(list, Explained{Endpoint: k.Endpoint, Version: k.Version, Device: v.device.Name, Slots: v.device.Slots, Explained: v.queue.Explain()})
	}
	return list
}
