package serve

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"sluice.dev/cmd/internal/state"
)

// What was served last is read back whole, however large all files together are; it
// is the specification's own, and another's is not taken for it.
func TestWhatIsKeptIsReadBack(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "specs")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		text := "# " + strings.Repeat("x", 700<<10) + "\napiVersion: sluice.dev/v1alpha1\nkind: Endpoint\nmetadata: {name: " + name + "}\nspec: {versions: [{name: v, model: m.onnx}]}\n"
		if err := os.WriteFile(filepath.Join(folder, name+".yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := state.Open(filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	open := func(file string) *keeper { return newKeeper(prometheus.NewRegistry(), kept, file) }
	k := open(folder)
	if k.last() != nil {
		t.Fatal("something is kept before anything was served")
	}
	if _, err := load(Options{File: folder, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}, &k.loader); err != nil {
		t.Fatal(err)
	}
	if err := k.applied(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	last := open(folder).last()
	if len(last) != 2 || last[1].Metadata.Name != "b" || last[1].Spec.Versions[0].Model != filepath.Join(folder, "m.onnx") || !last[1].Spec.Versions[0].Default {
		t.Errorf("read back: %+v", last)
	}
	if open(dir).last() != nil {
		t.Error("what is kept of another specification is taken")
	}
}
