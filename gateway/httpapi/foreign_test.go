package httpapi

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"sluice.dev/gateway"
	"sluice.dev/scorer"
)

// foreign answers as a server does that Sluice did not write.
type foreign struct{ answer scorer.Response }

func (f *foreign) Score(_ *scorer.Request, resp *scorer.Response) { *resp = f.answer }

func TestAnswersOfOtherServersArePassedOnAsTheyAre(t *testing.T) {
	address, s := serve(t, Config{})
	f := func(path string, answer scorer.Response, status int, contentType, body string) *http.Response {
		t.Helper()
		s.path.Pool(gateway.Key{Endpoint: "e", Version: "v"}).SetReplicas([]gateway.Offered{{Scorer: &foreign{answer}, Offer: scorer.Offer{Window: 1}}})
		resp, err := http.Post("http://"+address+path, "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != status || resp.Header.Get("Content-Type") != contentType || string(got) != body {
			t.Errorf("%d %q %s (%v); want %d %q %s", resp.StatusCode, resp.Header.Get("Content-Type"), got, err, status, contentType, body)
		}
		if resp.Header.Get("X-Sluice-Version") != "v" {
			t.Error("the answer does not say what served it")
		}
		return resp
	}
	const score = "/api/v1/service/e/score"
	f(score, scorer.Response{Code: 200, Body: []byte("[1]")}, 200, "application/json", "[1]")
	f(score, scorer.Response{Code: 201, Body: []byte("a,b"), ContentType: []byte("text/csv")}, 201, "text/csv", "a,b")
	f(score, scorer.Response{Status: scorer.InvalidArgument, Code: 418, Body: []byte("tea"), ContentType: []byte("text/plain")}, 418, "text/plain", "tea")
	f("/v2/models/e/infer", scorer.Response{Status: scorer.InvalidArgument, Code: 422, Body: []byte(`{"detail":[]}`)}, 422, "application/json", `{"detail":[]}`)
	r := f(score, scorer.Response{Status: scorer.Exhausted, Code: 429, Body: []byte(`{}`)}, 429, "application/json", "{}")
	if r.Header.Get("Retry-After") == "" {
		t.Error("429 without Retry-After")
	}
	f(score, scorer.Response{Status: scorer.ModelFailed, Body: []byte("it broke")}, 502, "application/json", `{"code":"ModelFailed","message":"it broke"}`)
}
