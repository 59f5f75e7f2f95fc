// Package watch tells when configuration files change.
package watch

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// interval is how often the files are looked at. Polling content sees every way
// of changing a file, a swapped symbolic link of a Kubernetes volume included.
const interval = time.Second

// Files calls changed each time the content of the files at paths, which may become
// others, or of the YAML and JSON files in folders there, is another than before,
// until ctx ends. One call at a time.
func Files(ctx context.Context, paths func() []string, changed func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	last := sum(paths())
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now := sum(paths()); now != last {
			last = now
			changed()
		}
	}
}

// maxFile bounds what is read of one file in bytes.
const maxFile = 16 << 20

// sum stands for the content of the files at paths.
func sum(paths []string) (s [sha256.Size]byte) {
	h := sha256.New()
	for _, path := range paths {
		add(h, path)
	}
	h.Sum(s[:0])
	return s
}

// add hashes the files at path.
func add(h hash.Hash, path string) {
	_ = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // what cannot be read now may be there next time
		}
		if ext := filepath.Ext(name); name != path && ext != ".yaml" && ext != ".yml" && ext != ".json" {
			return nil
		}
		info, err := os.Stat(name)
		if err != nil || info.Size() > maxFile {
			return nil
		}
		f, err := os.Open(name)
		if err != nil {
			return nil
		}
		defer f.Close()
		h.Write([]byte(name))
		_, _ = io.Copy(h, io.LimitReader(f, maxFile)) // as above
		return nil
	})
}
