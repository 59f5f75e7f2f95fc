package spec

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// oneEndpoint is a file with an endpoint.
func oneEndpoint(name, model string) []byte {
	return []byte("apiVersion: sluice.dev/v1alpha1\nkind: Endpoint\nmetadata: {name: " + name + "}\nspec: {versions: [{name: v, model: " + model + "}]}\n")
}

// A file is read again, and decoded only where it says something else; what is wrong
// with those that did not change is still found, in the lines of their files.
func TestALoaderDecodesWhatChanged(t *testing.T) {
	dir, checked := t.TempDir(), 0
	write := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	l := Loader{Check: func(e *Endpoint) Findings {
		checked++
		findings := e.Validate()
		e.Default()
		return findings
	}}
	load := func(want ...string) []*Endpoint {
		t.Helper()
		endpoints, findings := l.Load(dir)
		text := ""
		if err := findings.Err(); err != nil {
			text = err.Error()
		}
		if len(want) == 0 && text != "" || strings.Count(text, "\n")+1 != max(len(want), 1) {
			t.Fatalf("found %q; want %q", text, want)
		}
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("found %q; want %q", text, w)
			}
		}
		return endpoints
	}
	a, b := write("a.yaml", oneEndpoint("a", "a.onnx")), write("b.yaml", oneEndpoint("b", "b.onnx"))
	before := load()
	write("b.yaml", oneEndpoint("b", "c.onnx"))
	after := load()
	if after[0] != before[0] || after[1] == before[1] || after[1].Spec.Versions[0].Model != filepath.Join(dir, "c.onnx") || checked != 3 {
		t.Errorf("%d endpoints were checked; want the two at first, and the one that changed", checked)
	}
	write("c.yaml", append([]byte("# a comment\n"), oneEndpoint("a", "a.onnx")...))
	load(filepath.Join(dir, "c.yaml") + `:4: metadata.name: "a" is already the name of the endpoint in ` + a + ":3")
	write("c.yaml", oneEndpoint("c", "s3://c"))
	for range 2 { // it did not change, and is as wrong as before
		load(filepath.Join(dir, "c.yaml") + ":4: spec.versions[0].model: ")
	}
	if checked != 5 {
		t.Errorf("%d endpoints were checked; want 5", checked)
	}
	if err := os.Remove(filepath.Join(dir, "c.yaml")); err != nil {
		t.Fatal(err)
	}
	if again := load(); again[0] != before[0] || again[1] != after[1] || len(again) != 2 {
		t.Error("without the file that was wrong, the others are not as before")
	}
	files := l.Files()
	if len(files) != 2 || files[0].Path != a || files[1].Path != b || string(files[1].Data) != string(oneEndpoint("b", "c.onnx")) {
		t.Errorf("the files are %v", files)
	}
	if kept, findings := new(Loader).LoadFiles(files); findings.Err() != nil || len(kept) != 2 || kept[1].Spec.Versions[0].Model != filepath.Join(dir, "c.onnx") {
		t.Errorf("of the files became %v, %v", kept, findings)
	}
}
