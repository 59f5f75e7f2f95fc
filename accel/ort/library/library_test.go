package library

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// wheel makes a wheel with one member, and its pin.
func wheel(t *testing.T, content string) (string, pin) {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create("lib/x.so")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte(content))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.whl")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := func(data []byte) string { s := sha256.Sum256(data); return hex.EncodeToString(s[:]) }
	return path, pin{wheel: "x.whl", wheelSum: sum(b.Bytes()), member: "lib/x.so", sum: sum([]byte(content))}
}

func TestUnpackChecksBothSums(t *testing.T) {
	path, good := wheel(t, "library")
	f := func(change func(*pin), want string) {
		t.Helper()
		p, to := good, filepath.Join(t.TempDir(), "new", "x.so")
		change(&p)
		err := unpack(p, path, to)
		data, _ := os.ReadFile(to)
		left, _ := filepath.Glob(filepath.Join(filepath.Dir(to), "*part*"))
		if len(left) > 0 {
			t.Errorf("left behind %v", left)
		}
		if want == "" {
			if err != nil || string(data) != "library" {
				t.Errorf("got %q, %v", data, err)
			}
			return
		}
		if err == nil || !strings.Contains(err.Error(), want) || data != nil {
			t.Errorf("got %q, %v; want an error with %q and no file", data, err, want)
		}
	}
	f(func(*pin) {}, "")
	f(func(p *pin) { p.wheelSum = "0" }, "its sha256 is")
	f(func(p *pin) { p.sum = "0" }, "the library in the wheel has sha256")
	f(func(p *pin) { p.member = "lib/y.so" }, "open the wheel")
}

func TestAWrongFileIsNotInstalled(t *testing.T) {
	path, _ := wheel(t, "something else")
	dir := t.TempDir()
	if _, err := Install(context.Background(), Options{Config: Config{Dir: dir}, From: path}); err == nil || !strings.Contains(err.Error(), "is not onnxruntime-") {
		t.Errorf("got %v", err)
	}
	if _, err := Find(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "sluice runtime install") {
		t.Errorf("got %v", err)
	}
	if _, err := Find(Config{Path: filepath.Join(dir, "none.so")}); err == nil || !strings.Contains(err.Error(), "none.so") {
		t.Errorf("got %v", err)
	}
}

func TestWithoutAnIndexTheErrorSaysWhatToDo(t *testing.T) {
	t.Setenv("PIP_NO_INDEX", "1")
	t.Setenv("PIP_FIND_LINKS", t.TempDir())
	_, err := Install(context.Background(), Options{Config: Config{Dir: t.TempDir()}})
	if err == nil || !strings.Contains(err.Error(), "--from FILE") {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsInstalledIsNotFetchedAgain(t *testing.T) {
	t.Setenv("PATH", "") // without Python nothing can be fetched
	var said bytes.Buffer
	path, err := Install(context.Background(), Options{Progress: &said})
	if err != nil || !strings.Contains(said.String(), "is installed") || !strings.HasSuffix(path, Version) {
		t.Errorf("got %q, %v, %q; the library must be installed before the tests (make setup)", path, err, said.String())
	}
}
