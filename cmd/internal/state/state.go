// Package state keeps what a process must remember in its state directory.
package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Dir is a state directory. Only its owner may read it.
type Dir string

// Open makes the directory if it is not there.
func Open(path string) (Dir, error) {
	if err := os.MkdirAll(filepath.Join(path, "keys"), 0o700); err != nil {
		return "", fmt.Errorf("open state directory: %w", err)
	}
	return Dir(path), nil
}

// KeyFile is where the key called name is kept, in plain text.
func (d Dir) KeyFile(name string) string { return filepath.Join(string(d), "keys", name) }

// Key returns the kept key called name, or keeps and returns the one that
// generate makes; fresh says that it was made now.
func (d Dir) Key(name string, generate func() string) (key string, fresh bool, err error) {
	path := d.KeyFile(name)
	data, err := os.ReadFile(path)
	switch {
	case err == nil && len(strings.TrimSpace(string(data))) > 0:
		return strings.TrimSpace(string(data)), false, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", false, fmt.Errorf("read kept key: %w", err)
	}
	key = generate()
	return key, true, write(path, []byte(key+"\n"))
}

// write replaces a file as a whole, so that a crash leaves the old or the new one.
func write(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".part-*")
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	defer os.Remove(f.Name()) // no longer there after the rename
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}
