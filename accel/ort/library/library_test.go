package library

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAWrongFileIsNotInstalled(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.whl")
	if err := os.WriteFile(path, []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
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
