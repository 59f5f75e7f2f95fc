package spec

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Bounds of a key's length in characters. Azure ML's keys have 32, so that people
// can bring theirs; fewer than 16 can be guessed.
const (
	MinKey = 16
	MaxKey = 256
)

// CheckKey says what is wrong with a key, never quoting it. Keys travel in HTTP
// headers, so they are printable ASCII without spaces.
func CheckKey(key string) error {
	if len(key) < MinKey || len(key) > MaxKey {
		return fmt.Errorf("the key is %d characters long; must be %d to %d", len(key), MinKey, MaxKey)
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] > '~' {
			return fmt.Errorf("character %d of the key is a space or not printable ASCII; choose another key", i+1)
		}
	}
	return nil
}

// ErrUnset means that the environment variable that a key is to come from is not
// set, or empty.
var ErrUnset = errors.New("is not set; set it to the key")

// Read fetches the key and checks it. The environment is what lookup says, such as
// os.LookupEnv. Errors say where the key was sought, and never quote it.
func (k *KeySource) Read(lookup func(name string) (string, bool)) (string, error) {
	switch {
	case k.Env != "":
		key, _ := lookup(k.Env)
		if key == "" {
			return "", fmt.Errorf("environment variable %s %w", k.Env, ErrUnset)
		}
		if err := CheckKey(key); err != nil {
			return "", fmt.Errorf("environment variable %s: %w", k.Env, err)
		}
		return key, nil
	case k.File != "":
		key, err := readKey(k.File)
		if err != nil {
			return "", fmt.Errorf("key file: %w", err)
		}
		return key, nil
	}
	return k.Value, CheckKey(k.Value)
}

// readKey reads no more of the file than a key can be long.
func readKey(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	const room = MaxKey + 64 // for space at the end, and to see that a key is too long
	data, err := io.ReadAll(io.LimitReader(f, room))
	if err != nil {
		return "", err
	}
	key := strings.TrimRight(string(data), " \t\r\n")
	if err := CheckKey(key); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// sources is how many of value, env and file are given.
func (k *KeySource) sources() int {
	n := 0
	for _, s := range []string{k.Value, k.Env, k.File} {
		if s != "" {
			n++
		}
	}
	return n
}
