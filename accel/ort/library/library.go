// Package library finds and installs ONNX Runtime's shared library.
//
// It comes in the wheel that its makers publish for Python, fetched by pip, which
// knows the machine's index, mirror, proxy and certificates. Nothing of Python is
// installed or run at serving time.
package library

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
	"runtime"
	"strings"
)

// Version is the release that Install installs.
const Version = "1.32.0"

// pin is what a platform gets.
type pin struct {
	wheel    string // file name
	wheelSum string // sha256
	platform string // pip's
	member   string // within the wheel
	sum      string // sha256 of the member
}

var pins = map[string]pin{
	"linux/amd64": {
		"onnxruntime-1.32.0-cp312-cp312-manylinux_2_28_x86_64.whl", "99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8",
		"manylinux_2_28_x86_64", "onnxruntime/capi/libonnxruntime.so.1.32.0", "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f",
	},
	"linux/arm64": {
		"onnxruntime-1.32.0-cp312-cp312-manylinux_2_28_aarch64.whl", "e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054",
		"manylinux_2_28_aarch64", "onnxruntime/capi/libonnxruntime.so.1.32.0", "49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a",
	},
	"darwin/arm64": {
		"onnxruntime-1.32.0-cp312-cp312-macosx_14_0_arm64.whl", "d52510bbbcc880c13b826f7d75cdf33ac5cf0bb864d960000fc29ce73f0cb83e",
		"macosx_14_0_arm64", "onnxruntime/capi/libonnxruntime.1.32.0.dylib", "fa585fabbea65b823b9a8f7e27d46aee3989d1be7e36b528203d3a1fd613aae7",
	},
}

// Config says where to look. The zero value is the default.
type Config struct {
	Path string // of the library; given, nothing else is looked at
	Dir  string // where Install puts it; empty is a folder in the user's cache
}

// dir is the folder of this Version.
func (c Config) dir() (string, error) {
	if c.Dir != "" {
		return c.Dir, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache folder: %w", err)
	}
	return filepath.Join(cache, "sluice", "onnxruntime", Version), nil
}

// Find is the path of the library: the one given, else the one installed.
func Find(c Config) (string, error) {
	if c.Path != "" {
		if _, err := os.Stat(c.Path); err != nil {
			return "", fmt.Errorf("no ONNX Runtime library at %s; correct the path, or run 'sluice runtime install' and leave it out", c.Path)
		}
		return c.Path, nil
	}
	p, dir, err := where(c)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, filepath.Base(p.member))
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("ONNX Runtime is not installed; run 'sluice runtime install', or set the library's path with --ort-library")
	}
	return path, nil
}

func where(c Config) (pin, string, error) {
	p, ok := pins[runtime.GOOS+"/"+runtime.GOARCH]
	if !ok {
		return p, "", fmt.Errorf("no ONNX Runtime is pinned for %s/%s; set the library's path with --ort-library", runtime.GOOS, runtime.GOARCH)
	}
	dir, err := c.dir()
	return p, dir, err
}

// Options of Install. The zero value is the default.
type Options struct {
	Config
	From     string    // the wheel, fetched elsewhere; empty lets pip fetch it
	Progress io.Writer // for people; nil is silent
}

// Install makes sure that the library is there, and returns its path. What is
// there and right is not fetched again; every file is checked against its pinned
// sum, and the library appears as a whole.
func Install(ctx context.Context, o Options) (string, error) {
	p, dir, err := where(o.Config)
	if err != nil {
		return "", err
	}
	say := o.Progress
	if say == nil {
		say = io.Discard
	}
	path := filepath.Join(dir, filepath.Base(p.member))
	if sum, err := sumFile(path); err == nil && sum == p.sum {
		fmt.Fprintf(say, "ONNX Runtime %s is installed: %s\n", Version, path)
		return path, nil
	}
	wheel := o.From
	if wheel == "" {
		temp, err := os.MkdirTemp("", "sluice-onnxruntime-")
		if err != nil {
			return "", fmt.Errorf("make a temporary folder: %w", err)
		}
		defer os.RemoveAll(temp)
		fmt.Fprintf(say, "Fetching ONNX Runtime %s (%s, about 28 MB) with pip …\n", Version, p.wheel)
		if err := fetch(ctx, p, temp, say); err != nil {
			return "", err
		}
		wheel = filepath.Join(temp, p.wheel)
	}
	if err := unpack(p, wheel, path); err != nil {
		return "", err
	}
	fmt.Fprintf(say, "ONNX Runtime %s installed: %s\n", Version, path)
	return path, nil
}

// fetch lets pip download the wheel to dir.
func fetch(ctx context.Context, p pin, dir string, say io.Writer) error {
	python, err := exec.LookPath("python3")
	if err != nil {
		return fmt.Errorf("fetch ONNX Runtime: python3 is not there; install Python with pip, or fetch %s elsewhere and use 'sluice runtime install --from FILE'", p.wheel)
	}
	list := filepath.Join(dir, "requirements.txt")
	if err := os.WriteFile(list, []byte("onnxruntime=="+Version+" --hash=sha256:"+p.wheelSum+"\n"), 0o600); err != nil {
		return fmt.Errorf("fetch ONNX Runtime: %w", err)
	}
	cmd := exec.CommandContext(ctx, python, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes",
		"--implementation", "cp", "--python-version", "3.12", "--abi", "cp312", "--platform", p.platform,
		"--disable-pip-version-check", "-d", dir, "-r", list)
	var tail strings.Builder
	cmd.Stdout, cmd.Stderr = say, io.MultiWriter(say, &tail)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("fetch ONNX Runtime: pip could not download it (%w): %s\nIs the machine offline? Fetch %s elsewhere and use 'sluice runtime install --from FILE'",
			err, lastLine(tail.String()), p.wheel)
	}
	return nil
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// unpack checks the wheel and writes its library to path.
func unpack(p pin, wheel, path string) error {
	sum, err := sumFile(wheel)
	if err != nil {
		return fmt.Errorf("read the wheel: %w", err)
	}
	if sum != p.wheelSum {
		return fmt.Errorf("%s is not %s: its sha256 is %s; must be %s", wheel, p.wheel, sum, p.wheelSum)
	}
	z, err := zip.OpenReader(wheel)
	if err != nil {
		return fmt.Errorf("open the wheel: %w", err)
	}
	defer z.Close()
	member, err := z.Open(p.member)
	if err != nil {
		return fmt.Errorf("open the wheel: %w", err)
	}
	defer member.Close()
	return place(member, p.sum, path)
}

// maxLibrary bounds what is unpacked, in bytes.
const maxLibrary = 256 << 20

// place writes r to path as a whole, if its sum is right.
func place(r io.Reader, want, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("install the library: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".part-*")
	if err != nil {
		return fmt.Errorf("install the library: %w", err)
	}
	defer os.Remove(f.Name()) // no longer there after the rename
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, h), io.LimitReader(r, maxLibrary))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("install the library: %w", err)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != want {
		return fmt.Errorf("the library in the wheel has sha256 %s; must be %s", sum, want)
	}
	if err := errors.Join(os.Chmod(f.Name(), 0o755), os.Rename(f.Name(), path)); err != nil {
		return fmt.Errorf("install the library: %w", err)
	}
	return nil
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
