package report

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSectionsReplaceThoseOfTheSameHeading(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.md")
	for _, step := range []struct{ text, want string }{
		{"# A\n\none\n", "# A\n\none\n"},
		{"# B\n\n## deeper\n\ntwo", "# A\n\none\n\n# B\n\n## deeper\n\ntwo\n"},
		{"# A\n\nthree\n", "# A\n\nthree\n\n# B\n\n## deeper\n\ntwo\n"},
		{"# B\n", "# A\n\nthree\n\n# B\n"},
	} {
		if err := Section(path, step.text); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); string(got) != step.want {
			t.Errorf("after %q:\n%q; want\n%q", step.text, got, step.want)
		}
	}
	if err := Section(filepath.Join(path, "file"), "# A\n"); err == nil {
		t.Error("a file in a file is no error")
	}
}
