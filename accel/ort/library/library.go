// Package library finds and installs ONNX Runtime's shared library.
//
// It comes in the wheel that its makers publish for Python. Nothing of Python is
// installed or run at serving time.
package library

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"sluice.dev/accel/ort/library/wheel"
)

// Version is the release that Install installs.
const Version = "1.32.0"

// pin is what a platform gets.
type pin struct {
	wheel  wheel.Wheel
	member wheel.Member
}

func release(platform, wheelSum, library, sum string) pin {
	return pin{
		wheel.Wheel{
			Package: "onnxruntime==" + Version, File: "onnxruntime-" + Version + "-cp312-cp312-" + platform + ".whl",
			Sum: wheelSum, Platform: platform, ABI: "cp312",
		},
		wheel.Member{Name: "onnxruntime/capi/" + library, Sum: sum},
	}
}

var pins = map[string]pin{
	"linux/amd64": release("manylinux_2_28_x86_64", "99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8",
		"libonnxruntime.so.1.32.0", "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f"),
	"linux/arm64": release("manylinux_2_28_aarch64", "e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054",
		"libonnxruntime.so.1.32.0", "49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a"),
	"darwin/arm64": release("macosx_14_0_arm64", "d52510bbbcc880c13b826f7d75cdf33ac5cf0bb864d960000fc29ce73f0cb83e",
		"libonnxruntime.1.32.0.dylib", "fa585fabbea65b823b9a8f7e27d46aee3989d1be7e36b528203d3a1fd613aae7"),
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
	path := filepath.Join(dir, filepath.Base(p.member.Name))
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
	path := filepath.Join(dir, filepath.Base(p.member.Name))
	if p.member.Is(path) {
		fmt.Fprintf(say, "ONNX Runtime %s is installed: %s\n", Version, path)
		return path, nil
	}
	file := o.From
	if file == "" {
		temp, err := os.MkdirTemp("", "sluice-onnxruntime-")
		if err != nil {
			return "", fmt.Errorf("make a temporary folder: %w", err)
		}
		defer os.RemoveAll(temp)
		fmt.Fprintf(say, "Fetching ONNX Runtime %s (%s, about 28 MB) with pip …\n", Version, p.wheel.File)
		if file, err = wheel.Fetch(ctx, &p.wheel, temp, say); err != nil {
			return "", fmt.Errorf("fetch ONNX Runtime: %w\nOr fetch %s elsewhere and use 'sluice runtime install --from FILE'", err, p.wheel.File)
		}
	}
	if err := wheel.Extract(&p.wheel, file, &p.member, path); err != nil {
		return "", fmt.Errorf("install ONNX Runtime: %w", err)
	}
	fmt.Fprintf(say, "ONNX Runtime %s installed: %s\n", Version, path)
	return path, nil
}
