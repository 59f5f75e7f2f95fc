package wheel

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// small makes a wheel with one member.
func small(t *testing.T, content string) (string, Wheel, Member) {
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
	return path, Wheel{File: "x.whl", Sum: sum(b.Bytes())}, Member{Name: "lib/x.so", Sum: sum([]byte(content))}
}

func TestExtractChecksBothSums(t *testing.T) {
	path, w, m := small(t, "library")
	f := func(w Wheel, m Member, want string) {
		t.Helper()
		to := filepath.Join(t.TempDir(), "new", "x.so")
		err := Extract(&w, path, &m, to)
		data, _ := os.ReadFile(to)
		left, _ := filepath.Glob(filepath.Join(filepath.Dir(to), "*part*"))
		if len(left) > 0 {
			t.Errorf("left behind %v", left)
		}
		if want == "" {
			if err != nil || string(data) != "library" || !m.Is(to) || m.Is(path) {
				t.Errorf("got %q, %v", data, err)
			}
			return
		}
		if err == nil || !strings.Contains(err.Error(), want) || data != nil {
			t.Errorf("got %q, %v; want an error with %q and no file", data, err, want)
		}
	}
	f(w, m, "")
	f(Wheel{File: "x.whl", Sum: "0"}, m, "its sha256 is")
	f(w, Member{Name: m.Name, Sum: "0"}, "lib/x.so in the wheel has sha256")
	f(w, Member{Name: "lib/y.so", Sum: m.Sum}, "open the wheel")
}
