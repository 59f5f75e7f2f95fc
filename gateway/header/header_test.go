package header

import (
	"bytes"
	"testing"

	"sluice.dev/scorer"
)

func TestBearer(t *testing.T) {
	for in, want := range map[string]string{
		"Bearer abc": "abc", "bearer abc": "abc", "BEARER abc": "abc", "abc": "abc", "": "", "Bearer ": "", "Basic abc": "Basic abc",
	} {
		if got := Bearer([]byte(in)); string(got) != want {
			t.Errorf("Bearer(%q) = %q; want %q", in, got, want)
		}
	}
}

func TestTraceparent(t *testing.T) {
	got := Trace([]byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
	if got.TraceID[0] != 0x0a || got.TraceID[15] != 0x9c || got.SpanID[0] != 0xb7 || got.Flags != 1 {
		t.Errorf("parsed %x", got)
	}
	for _, bad := range []string{"", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0", "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01"} {
		if got := Trace([]byte(bad)); got != (scorer.Trace{}) {
			t.Errorf("Trace(%q) = %x; want none", bad, got)
		}
	}
}

func TestIDsAreUUIDs(t *testing.T) {
	a, b := AppendID(nil), AppendID(nil)
	if bytes.Equal(a, b) || len(a) != 36 || a[14] != '4' || !bytes.ContainsRune([]byte("89ab"), rune(a[19])) {
		t.Errorf("ids %s and %s", a, b)
	}
}
