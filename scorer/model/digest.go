package model

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"time"
)

// digests are those of models' files that were read, so that a change of one model
// does not read all others again. A file is the same while its size and time are,
// if that time was not the present when it was read.
type digests map[string]digest

type digest struct {
	size    int64
	changed time.Time
	text    string
}

// settled is how old a file's time must be for a later change to show in it.
const settled = 2 * time.Second

// of names the content of the file at path: "sha256:" and hex.
func (d digests) of(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("open model: %w", err)
	}
	if known, ok := d[path]; ok && known.size == info.Size() && known.changed.Equal(info.ModTime()) {
		return known.text, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("open model: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read model: %w", err)
	}
	text := "sha256:" + hex.EncodeToString(h.Sum(nil))
	delete(d, path)
	if time.Since(info.ModTime()) > settled {
		d[path] = digest{info.Size(), info.ModTime(), text}
	}
	return text, nil
}
