// Package watch tells when configuration files change.
package watch

import (
	"context"
	"crypto/sha256"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// interval is how often the files are looked at. Polling content sees every way
// of changing a file, a swapped symbolic link of a Kubernetes volume included.
const interval = time.Second

// Seen is what the content of files was.
type Seen map[string][sha256.Size]byte // by path

// Now is the content of the files at paths, or of the YAML and JSON files in folders
// there. To look before they are read, and then to watch, misses nothing.
func Now(paths []string) Seen {
	s := Seen{}
	for _, path := range paths {
		s[path] = sum(path)
	}
	return s
}

// before reports whether now has other content than s, or of more files.
func (s Seen) before(now Seen) bool {
	for path, is := range now {
		if was, ok := s[path]; !ok || is != was {
			return true
		}
	}
	return false
}

// Files calls changed each time the content of the files at paths, which may become
// others, is another than it was seen, until ctx ends. One call at a time.
func Files(ctx context.Context, seen Seen, paths func() []string, changed func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := Now(paths())
		before := seen.before(now)
		if seen = now; before {
			changed()
		}
	}
}

// maxFile bounds what is read of one file in bytes.
const maxFile = 16 << 20

// sum stands for the content of the files at path, which may be a link to a folder.
func sum(path string) (s [sha256.Size]byte) {
	h := sha256.New()
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
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
	h.Sum(s[:0])
	return s
}
