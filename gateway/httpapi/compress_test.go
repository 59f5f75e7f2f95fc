package httpapi

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// packed is text compressed as a coding.
func packed(t testing.TB, coding, text string) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "zlib":
		w = zlib.NewWriter(&b)
	case "flate":
		w, _ = flate.NewWriter(&b, flate.BestSpeed)
	case "zstd":
		w, _ = zstd.NewWriter(&b)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// unpacked is what a coding's body says.
func unpacked(t testing.TB, coding, body string) string {
	t.Helper()
	var r io.Reader = strings.NewReader(body)
	var err error
	switch coding {
	case "gzip":
		r, err = gzip.NewReader(r)
	case "deflate":
		r, err = zlib.NewReader(r)
	case "zstd":
		r, err = zstd.NewReader(r)
	}
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

func TestCompressedRequestsAreServed(t *testing.T) {
	address, s := serve(t, Config{MaxBody: 1 << 20})
	url := "http://" + address + "/v2/models/e/infer"
	long := strings.Repeat("all that is said ", 10_000)
	for coding, name := range map[string]string{"gzip": "gzip", "zlib": "Deflate", "flate": "deflate", "zstd": "ZSTD"} {
		for _, text := range []string{"", "short", long} {
			for range 2 { // the second with what the first gave back
				if status, body, _ := asks(t, "POST", url, packed(t, coding, text), "Content-Encoding", name); status != 200 || body != text {
					t.Errorf("%s of %d bytes: answered %d, %d bytes", coding, len(text), status, len(body))
				}
			}
		}
	}
	f := func(status int, want, body string, header ...string) {
		t.Helper()
		got, answer, h := asks(t, "POST", url, body, header...)
		if got != status || !strings.Contains(answer, want) {
			t.Errorf("%v: answered %d %.200s; want %d %s", header, got, answer, status, want)
		}
		if status == http.StatusNotImplemented && h.Get("Accept-Encoding") != "gzip, deflate, zstd" {
			t.Errorf("%v: does not say what is accepted: %v", header, h)
		}
	}
	for _, name := range []string{"br", "gzip, gzip", "x"} {
		f(501, `{"error":"Unsupported compression type"}`, "abc", "Content-Encoding", name)
	}
	f(200, "abc", "abc", "Content-Encoding", "identity")
	f(400, `{"error":"the request's body is not what its Content-Encoding says"}`, "abc", "Content-Encoding", "gzip")
	f(400, "not what its", packed(t, "gzip", long)[:200], "Content-Encoding", "gzip")
	bomb := strings.Repeat("\x00", 50<<20)
	for coding, name := range map[string]string{"gzip": "gzip", "zlib": "deflate", "zstd": "zstd"} {
		f(413, `{"error":"the request's body exceeds 1048576 bytes when it is decompressed"}`, packed(t, coding, bomb), "Content-Encoding", name)
	}
	f(400, `inference header size should be in range (0, 5), got: 6`, packed(t, "gzip", "short"), "Content-Encoding", "gzip", "Inference-Header-Content-Length", "6")
	if s.large.sum.Load() != 0 {
		t.Errorf("%d bytes are still reserved", s.large.sum.Load())
	}
}

// What is decompressed counts among the large bodies.
func TestDecompressedBodiesAreBoundedInSum(t *testing.T) {
	address, s := serve(t, Config{MaxLarge: 1 << 20})
	body := packed(t, "gzip", strings.Repeat("\x00", 8<<20))
	status, answer, _ := asks(t, "POST", "http://"+address+"/v2/models/e/infer", body, "Content-Encoding", "gzip")
	if status != 503 || !strings.Contains(answer, "too many large requests") || s.large.sum.Load() != 0 {
		t.Errorf("answered %d %s; %d bytes are still reserved", status, answer, s.large.sum.Load())
	}
}

func TestACompressedBodyMayComeInChunks(t *testing.T) {
	address := listen(t, Config{})
	body := packed(t, "gzip", "abc")
	sent := score + "Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\nExpect: 100-continue\r\n\r\n"
	for i := range len(body) {
		sent += "1\r\n" + body[i:i+1] + "\r\n"
	}
	statuses, got, _ := talk(t, address, sent+"0\r\n\r\n", 2, silence)
	if fmt.Sprint(statuses) != "[100 200]" || got[1] != "abc" {
		t.Errorf("answered %v %q", statuses, got)
	}
}

func TestAnswersAreCompressedAsTheClientAsks(t *testing.T) {
	address := listen(t, Config{})
	long := strings.Repeat("all that is said ", 1000)
	f := func(accept, sent, want string) {
		t.Helper()
		status, body, h := asks(t, "POST", "http://"+address+"/v2/models/e/infer", sent, "Accept-Encoding", accept)
		if got := h.Get("Content-Encoding"); status != 200 || got != want || unpacked(t, got, body) != sent {
			t.Errorf("%q: answered %d, %q, %d bytes for %d; want %q", accept, status, got, len(body), len(sent), want)
		}
		if len(sent) >= compressFrom && h.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%q: varies by %q", accept, h.Get("Vary"))
		}
	}
	for range 2 {
		f("gzip", long, "gzip")
		f("deflate", long, "deflate")
		f("zstd", long, "zstd")
	}
	f("gzip", "short", "")
	f("br", long, "")
	f("identity", long, "")
	f("gzip;q=0.2, deflate;q=0.8, br", long, "deflate")
	f("*, GZIP;q=0", long, "deflate")
	f("identity;q=0", long, "")
}

func TestNegotiate(t *testing.T) {
	f := func(accept, want string) {
		t.Helper()
		if got := negotiate(headerLines(accept)); got != want {
			t.Errorf("%q: %q; want %q", accept, got, want)
		}
	}
	f("", "")
	f("gzip, deflate", "gzip")
	f("deflate, gzip", "deflate")
	f("deflate\ngzip;q=0.5", "deflate")
	f("br\nzstd", "zstd")
	f("GZip", "gzip")
	f("gzip;q=0", "")
	f("gzip; q=0.5 , zstd;Q=0.9", "zstd")
	f("gzip;q=2, deflate;q=x", "")
	f(";;,q=1,gzip;level=1", "")

	f("*", "gzip")
	f("*;q=0", "")
	f("*, gzip;q=0", "deflate")
	f("*, GZIP;q=0", "deflate")
	f("*\nGZIP;q=0", "deflate")
	f("*;q=0.5, gzip;q=0, deflate;Q=0.0, Zstd;q=0.000", "")
	f("deflate;q=0.2, *;q=0.8", "gzip")
	f("*;q=0.2, deflate;q=0.8", "deflate")
	f("*;q=0.5, zstd;q=0.5", "zstd")
	f("*;q=0, zstd;q=0.1", "zstd")

	f("identity;q=1, gzip;q=0.5", "")
	f("identity;q=0.5, gzip;q=0.5", "gzip")
	f("identity;q=0, gzip;q=0.5", "gzip")
	f("IDENTITY, *;q=0.5", "")
	f("gzip;q=0.1, deflate;q=0.1, zstd;q=0.1, *;q=0.5", "") // identity is among "*"
	f("identity;q=0", "")                                   // nothing would do
	f("*;q=0, br", "")
}

// headerLines are the values of a header that comes several times.
func headerLines(text string) [][]byte { return bytes.Split([]byte(text), []byte("\n")) }

// What is taken is named, or "*" is and it is not refused by name; and nothing else
// that the client would have is wanted more.
func FuzzNegotiate(f *testing.F) {
	for _, seed := range []string{"", "gzip, deflate;q=0.5", "*;q=0.1,identity;q=0", "*, GZIP;q=0", "gzip\n*;q=0", "gzip;q=NaN", "gzip;q=0,gzip", ",;,"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got := negotiate(headerLines(string(text)))
		weights := map[string]int{}
		for _, part := range bytes.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' }) {
			if name, q := weighed(part); q >= 0 {
				weights[name] = max(weights[name], q)
			}
		}
		weight := func(name string) int {
			if q, ok := weights[name]; ok {
				return q
			}
			return weights["*"]
		}
		if got != "" && (encoders[got] == nil || weight(got) == 0) {
			t.Fatalf("%q: %q", text, got)
		}
		for _, name := range encodings {
			if got != "" && weight(name) > weight(got) || got == "" && weight(name) > weight("identity") {
				t.Errorf("%q: %q rather than %q", text, got, name)
			}
		}
	})
}

// Whatever a body is, it is served or refused.
func FuzzInflate(f *testing.F) {
	for _, coding := range []string{"gzip", "zlib", "flate", "zstd"} {
		f.Add(coding, []byte(packed(f, coding, "text")))
	}
	f.Fuzz(func(t *testing.T, coding string, body []byte) {
		pool := decoders[coding]
		if pool == nil {
			return
		}
		s := &Server{config: Config{MaxBody: 1 << 16}}
		s.large.most = 1 << 30
		d := pool.Get().(decoder)
		defer pool.Put(d)
		if err := d.Reset(bytes.NewReader(body)); err == nil {
			if out, err := s.readAll(&conn{large: &s.large}, d, len(body)); err == nil && len(out) > s.config.MaxBody {
				t.Errorf("%d bytes", len(out))
			}
		}
	})
}
