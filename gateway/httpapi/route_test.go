package httpapi

import (
	"bytes"
	"net/url"
	"testing"
)

func TestParse(t *testing.T) {
	f := func(uri string, want op, name, version string) {
		t.Helper()
		got := parse([]byte(uri))
		if got.op != want || string(got.name) != name || string(got.version) != version {
			t.Errorf("parse(%q) = %d %q %q; want %d %q %q", uri, got.op, got.name, got.version, want, name, version)
		}
	}
	f("/", opAlive, "", "")
	f("/api/v1/service/digits/score", opScore, "digits", "")
	f("/api/v1/service/digits/score?verbose=1", opScore, "digits", "")
	f("/api/v1/service/digits/", opHealth, "digits", "")
	f("/api/v1/service/digits", opHealth, "digits", "")
	f("/api/v1/service/digits/swagger.json?version=2", opSwagger, "digits", "")
	f("/v2", opServer, "", "")
	f("/v2/", opServer, "", "")
	f("/v2?x=1", opServer, "", "")
	f("/v2/health/live", opLive, "", "")
	f("/v2/health/ready?test_1=1&test_2=2", opReady, "", "")
	f("/v2/models", opModels, "", "")
	f("/v2/models/digits", opModel, "digits", "")
	f("/v2/models/digits/", opModel, "digits", "")
	f("/v2/models/digits/ready", opModelReady, "digits", "")
	f("/v2/models/digits/infer", opInfer, "digits", "")
	f("/v2/models/digits/versions/mlp", opModel, "digits", "mlp")
	f("/v2/models/digits/versions/mlp/ready", opModelReady, "digits", "mlp")
	f("/v2/models/digits/versions/mlp/infer", opInfer, "digits", "mlp")
	f("/v2/models/infer/infer", opInfer, "infer", "")
	f("/v2/models/versions", opModel, "versions", "")
	f("/v2/models/stats", opStats, "", "")
	f("/v2/models/d/stats?x", opStats, "d", "")
	f("/v2/models/d/versions/1/config", opConfig, "d", "1")
	f("/v2/models/d/generate_stream", opGenerate, "d", "")
	f("/v2/repository/models/d/load", opLoad, "d", "")
	f("/v2/models/d/trace/setting", opTrace, "d", "")
	f("/v2/systemsharedmemory/region/r/unregister", opMemoryUnregister, "r", "")

	for _, uri := range []string{
		"", "//", "/v1", "/v22", "/v2x", "/v2/health", "/v2/health/", "/v2/models//infer", "/v2/models/d/versions", "/v2/models/d/versions/",
		"/v2/models/d/versions//infer", "/v2/repository", "/v2/repository/models//load", "/v2/repository/models/d/x", "/v2/systemsharedmemory/region//status", "/v2/models/d/versions/1/trace/setting", "/v2/models/d/infer/", "/v2/models/d/infer/x", "/v2/models/d/versions/1/x", "/V2/models",
		"/api/v1/service", "/api/v1/service/", "/api/v1/service//score", "/api/v1/service/d/score/", "/api/v1/service/d/Score", "/../v2",
	} {
		if got := parse([]byte(uri)); got.op != opUnknown {
			t.Errorf("parse(%q) = %d; want unknown", uri, got.op)
		}
	}
}

func TestUnescape(t *testing.T) {
	f := func(in, want string, ok bool) {
		t.Helper()
		sent := []byte(in)
		got, good := unescape(sent)
		if good != ok || string(got) != want || string(sent) != in {
			t.Errorf("unescape(%q) = %q, %v; want %q, %v", in, got, good, want, ok)
		}
	}
	f("digits", "digits", true)
	f("%64igits", "digits", true)
	f("a%20b%C3%A4", "a bä", true)
	f("a+b", "a+b", true)
	f("%2564", "%64", true) // once, not twice
	f("%2F", "", false)
	f("%2e%2e%5c", "", false)
	f("%00", "", false)
	f("%0a", "", false)
	f("%7f", "", false)
	f("%", "", false)
	f("%4", "", false)
	f("%zz", "", false)
}

func FuzzRoute(f *testing.F) {
	f.Add("/v2/models/digits/versions/1/infer")
	f.Add("/api/v1/service/%64/score?x")
	f.Fuzz(func(t *testing.T, uri string) {
		got := parse([]byte(uri))
		if got.op == opUnknown && len(got.name) == 0 {
			return
		}
		if bytes.ContainsAny(got.name, "/?") || bytes.ContainsAny(got.version, "/?") {
			t.Errorf("parse(%q) has names %q, %q", uri, got.name, got.version)
		}
		name, ok := unescape(got.name)
		if want, err := url.PathUnescape(string(got.name)); ok && (err != nil || want != string(name)) {
			t.Errorf("unescape(%q) = %q; net/url says %q, %v", got.name, name, want, err)
		}
	})
}

func TestNatural(t *testing.T) {
	for in, want := range map[string]int{
		"0": 0, "12": 12, "007": 7, "999999999": 999999999, "": -2, "-1": -2, "+1": -2, "1.0": -2, "1x": -2, "0x1": -2, "9999999999": -2, " 1": -2,
	} {
		if got := natural([]byte(in)); got != want {
			t.Errorf("natural(%q) = %d; want %d", in, got, want)
		}
	}
}
