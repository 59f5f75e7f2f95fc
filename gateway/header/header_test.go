package header

import (
	"bytes"
	"strings"
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
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	got := Trace([]byte(good))
	if got.TraceID[0] != 0x0a || got.TraceID[15] != 0x9c || got.SpanID[0] != 0xb7 || got.Flags != 1 || string(AppendTrace(nil, &got)) != good {
		t.Errorf("parsed %x", got)
	}
	for _, future := range []string{"01" + good[2:], "cc" + good[2:] + "-what-the-future-brings"} {
		if Trace([]byte(future)) != got {
			t.Errorf("Trace(%q) is not that of version 00", future)
		}
	}
	for _, bad := range []string{
		"", good[:54], good + "-", good + "0", "ff" + good[2:], "0x" + good[2:], "01" + good[2:] + "x", strings.ToUpper(good), strings.Replace(good, "9c-", "9c_", 1), strings.Replace(good, "0a", "0g", 1),
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
	} {
		if got := Trace([]byte(bad)); got != (scorer.Trace{}) {
			t.Errorf("Trace(%q) = %x; want none", bad, got)
		}
	}
}

func TestTracestateIsBounded(t *testing.T) {
	entry := strings.Repeat("k=v,", 127) // 508 bytes
	for in, want := range map[string]string{
		"": "", "a=b": "a=b", "a=b, c=d": "a=b, c=d", entry + "a=bc": entry + "a=bc", entry + "a=bcd": strings.TrimSuffix(entry, ","),
		entry + "c=d,e=f": entry + "c=d", strings.Repeat("x", 513): "", "a=\x01": "", "a=ü": "", "a=b\r\nx: y": "",
	} {
		if got := State([]byte(in)); string(got) != want {
			t.Errorf("State(%q) = %q; want %q", in, got, want)
		}
	}
}

func TestAnIDThatCannotGoOnIsReplaced(t *testing.T) {
	for _, good := range []string{"17", strings.Repeat("x", MaxID), "a b"} {
		if got := AppendRequestID([]byte("before"), []byte(good)); string(got) != "before"+good {
			t.Errorf("%q became %q", good, got)
		}
	}
	for _, bad := range []string{"", strings.Repeat("x", MaxID+1), "ü", "a\tb", "a\r\nx: y"} {
		if got := AppendRequestID(nil, []byte(bad)); len(got) != 36 {
			t.Errorf("%q became %q", bad, got)
		}
	}
}

func TestIDsAreUUIDs(t *testing.T) {
	a, b := AppendID(nil), AppendID(nil)
	if bytes.Equal(a, b) || len(a) != 36 || a[14] != '4' || !bytes.ContainsRune([]byte("89ab"), rune(a[19])) {
		t.Errorf("ids %s and %s", a, b)
	}
}
