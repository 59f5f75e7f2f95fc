// Package state keeps what a process must remember in its state directory.
package state

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sluice.dev/router"
)

// Dir is a state directory. Only its owner may read it.
type Dir string

// Open makes the directory if it is not there.
func Open(path string) (Dir, error) {
	for _, folder := range []string{"keys", "slots", "costs"} {
		if err := os.MkdirAll(filepath.Join(path, folder), 0o700); err != nil {
			return "", fmt.Errorf("open state directory: %w", err)
		}
	}
	return Dir(path), nil
}

// KeyFile is where the key called name is kept, in plain text.
func (d Dir) KeyFile(name string) string { return filepath.Join(string(d), "keys", name) }

// Key returns the kept key called name, or keeps and returns the one that
// generate makes; fresh says that it was made now, and lasts once Sync was called.
func (d Dir) Key(name string, generate func() string) (key string, fresh bool, err error) {
	return kept(d.KeyFile(name), generate, replace)
}

// Sync has keys that were generated outlast a crash of the machine: all at once, since
// each by itself takes a thousand times as long as writing it.
func (d Dir) Sync() error {
	if err := syncAll(filepath.Join(string(d), "keys")); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// SetKey keeps a key under a name, in place of the one that was.
func (d Dir) SetKey(name, key string) error { return write(d.KeyFile(name), []byte(key+"\n")) }

// AdminFile is where the management key is kept, in plain text.
func (d Dir) AdminFile() string { return filepath.Join(string(d), "admin-key") }

// Admin returns the kept management key, or keeps and returns the one that generate
// makes; fresh says that it was made now.
func (d Dir) Admin(generate func() string) (key string, fresh bool, err error) {
	return kept(d.AdminFile(), generate, write)
}

// kept is the text in a file, or what generate makes and store puts there.
func kept(path string, generate func() string, store func(path string, pieces ...[]byte) error) (text string, fresh bool, err error) {
	data, err := os.ReadFile(path)
	text = strings.TrimSpace(string(data))
	switch {
	case err == nil && text != "":
		return text, false, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", false, fmt.Errorf("read what is kept: %w", err)
	}
	text = generate()
	return text, true, store(path, []byte(text+"\n"))
}

// minSecret is the fewest bytes of a secret.
const minSecret = 32

// Secret is the content of file; of an empty name, a secret that is generated once
// and kept.
func (d Dir) Secret(file string) ([]byte, error) {
	if file == "" {
		text, _, err := kept(filepath.Join(string(d), "secret"), func() string { return rand.Text() + rand.Text() }, write)
		return []byte(text), err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the gateways' secret: %w", err)
	}
	secret := bytes.TrimSpace(data)
	if len(secret) < minSecret {
		return nil, fmt.Errorf("the gateways' secret in %s has %d bytes; it must have at least %d (openssl rand -hex 32)", file, len(secret), minSecret)
	}
	return secret, nil
}

func (d Dir) slotFile(endpoint string) string {
	return filepath.Join(string(d), "slots", endpoint)
}

// LoadSlots is the sticky slots that were kept for an endpoint; nil if there are none.
func (d Dir) LoadSlots(endpoint string) (*router.Slots, error) {
	text, err := os.ReadFile(d.slotFile(endpoint))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	s := new(router.Slots)
	if err == nil {
		err = s.UnmarshalText(text)
	}
	if err != nil {
		return nil, fmt.Errorf("read sticky slots from %s: %w; remove the file to assign all clients anew", d.slotFile(endpoint), err)
	}
	return s, nil
}

// SaveSlots keeps an endpoint's sticky slots.
func (d Dir) SaveSlots(endpoint string, s *router.Slots) error {
	text, err := s.MarshalText()
	if err != nil {
		return err
	}
	return write(d.slotFile(endpoint), append(text, '\n'))
}

func (d Dir) goodFile() string { return filepath.Join(string(d), "last-good") }

// KeepGood keeps the specification that is served, in pieces.
func (d Dir) KeepGood(pieces ...[]byte) error { return write(d.goodFile(), pieces...) }

// LastGood is what was kept last.
func (d Dir) LastGood() ([]byte, error) { return os.ReadFile(d.goodFile()) }

// LoadCosts is what was kept under a name of what runs cost; nothing if it never was.
func (d Dir) LoadCosts(name string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(string(d), "costs", name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// SaveCosts keeps what runs cost.
func (d Dir) SaveCosts(name string, data []byte) error {
	return write(filepath.Join(string(d), "costs", name), data)
}

// write replaces a file as a whole, so that a crash leaves the old or the new one.
func write(path string, pieces ...[]byte) error { return put(path, pieces, (*os.File).Sync) }

// replace is write that a crash of the machine may undo.
func replace(path string, pieces ...[]byte) error {
	return put(path, pieces, func(*os.File) error { return nil })
}

func put(path string, pieces [][]byte, sync func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".part-*")
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	for _, p := range pieces {
		if _, err = f.Write(p); err != nil {
			break
		}
	}
	if err = errors.Join(err, sync(f), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the first error tells
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}
