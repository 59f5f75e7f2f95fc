package watch

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What changes is told, however a volume swaps it, and since it was looked at first.
func TestChangesAreSeen(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"one", "two"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "endpoint.yaml"), name)
	}
	link := filepath.Join(dir, "link")
	point := func(to string) {
		t.Helper()
		if err := os.Symlink(to, link+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link+".new", link); err != nil {
			t.Fatal(err)
		}
	}
	point("one")
	seen := Now([]string{link})
	if seen.before(Now([]string{link})) {
		t.Error("nothing has changed")
	}
	write(t, filepath.Join(dir, "one", "notes.txt"), "of no interest")
	if seen.before(Now([]string{link})) {
		t.Error("a file of another kind counts")
	}
	if !seen.before(Now([]string{link, filepath.Join(dir, "two")})) {
		t.Error("a file that was not looked at does not count")
	}
	if seen.before(Now(nil)) {
		t.Error("a file that is not watched any more counts")
	}
	write(t, filepath.Join(dir, "one", "endpoint.yaml"), "other")
	if !seen.before(Now([]string{link})) {
		t.Error("a file in a folder behind a link does not count")
	}
	seen = Now([]string{link})
	point("two")
	if !seen.before(Now([]string{link})) {
		t.Error("a link to another folder does not count")
	}

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	Files(ctx, seen, func() []string { return []string{link} }, cancel)
	if context.Cause(ctx) != context.Canceled {
		t.Error("what changed before the first look is not told")
	}
}
