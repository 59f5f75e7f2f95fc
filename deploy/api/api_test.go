package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sluice.dev/auth/apikey"
)

// house has one endpoint, digits; broken is one that meets an error of ours.
type house struct {
	keys  Keys
	asked TokenRequest
}

func (h *house) known(endpoint string) error {
	switch endpoint {
	case "digits":
		return nil
	case "broken":
		return errors.New("disk of /var/lib is full")
	}
	return Errorf(404, "ServiceNotFound", "there is no endpoint of this name")
}

func (h *house) Keys(endpoint string) (Keys, error) { return h.keys, h.known(endpoint) }

func (h *house) SetKey(endpoint string, which apikey.Which, key string) (Keys, error) {
	if err := h.known(endpoint); err != nil {
		return Keys{}, err
	}
	*map[apikey.Which]*string{apikey.Primary: &h.keys.Primary, apikey.Secondary: &h.keys.Secondary}[which] = key
	return h.keys, nil
}

func (h *house) Token(endpoint string, r TokenRequest) (Token, string, error) {
	h.asked = r
	return Token{"secret-token", "Bearer", 1500, 2000}, "id-of-it", h.known(endpoint)
}

func (h *house) JWKS() ([]byte, error) { return []byte(`{"keys":[]}`), nil }

const admin = "the-key-of-the-management"

func open(t testing.TB) (*house, *httptest.Server, *bytes.Buffer) {
	h, log := &house{keys: Keys{"primary-secret", "secondary-secret"}}, &bytes.Buffer{}
	s := httptest.NewServer(New(h, admin, slog.New(slog.NewTextHandler(log, nil))))
	t.Cleanup(s.Close)
	return h, s, log
}

func post(t testing.TB, url, body string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequest("POST", url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+admin)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(all)
}

func TestAClientManages(t *testing.T) {
	h, s, _ := open(t)
	ctx, c := context.Background(), NewClient(s.URL+"/", admin)
	if k, err := c.Keys(ctx, "digits"); err != nil || k != h.keys {
		t.Errorf("keys %+v, %v", k, err)
	}
	if k, err := c.SetKey(ctx, "digits", KeyRequest{Type: "secondary", Value: "another"}); err != nil || k != (Keys{"primary-secret", "another"}) {
		t.Errorf("after one was set %+v, %v", k, err)
	}
	if k, err := c.SetKey(ctx, "digits", KeyRequest{Type: "Primary"}); err != nil || len(k.Primary) != 43 || k.Secondary != "another" {
		t.Errorf("after one was generated %+v, %v", k, err)
	}
	if token, err := c.Token(ctx, "digits", TokenRequest{Subject: "alice", LifetimeSeconds: 60}); err != nil || token != (Token{"secret-token", "Bearer", 1500, 2000}) || h.asked.Subject != "alice" {
		t.Errorf("token %+v, %v, of %+v", token, err, h.asked)
	}
	var e *Error
	if _, err := c.Keys(ctx, "a/../b"); !errors.As(err, &e) || e.Status != 404 || e.Code != "ServiceNotFound" {
		t.Errorf("an unknown endpoint: %v", err)
	}
	if _, err := NewClient(s.URL, "wrong").Keys(ctx, "digits"); !errors.As(err, &e) || e.Status != 401 {
		t.Errorf("a wrong key: %v", err)
	}
}

// The routes of Azure ML's clients lead to the same, in whatever case.
func TestRoutesOfAzureML(t *testing.T) {
	h, s, _ := open(t)
	const scope = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/ws"
	for _, base := range []string{"", "/modelmanagement/v1.0" + scope, "/api" + scope, "/modelmanagement/v1.0" + strings.ToLower(scope)} {
		status, answer := post(t, s.URL+base+"/services/digits/listkeys", "")
		if want := `{"primaryKey":"primary-secret","secondaryKey":"secondary-secret"}` + "\n"; status != 200 || answer != want {
			t.Errorf("%s: %d %s", base, status, answer)
		}
		status, answer = post(t, s.URL+base+"/services/digits/token?api-version=2018-11-19", "")
		if want := `{"accessToken":"secret-token","tokenType":"Bearer","refreshAfter":1500,"expiryOn":2000}` + "\n"; status != 201 || answer != want || h.asked.Subject != Admin {
			t.Errorf("%s: %d %s, for %q", base, status, answer, h.asked.Subject)
		}
	}
	for _, base := range []string{"/modelmanagement/v2.0" + scope, "/modelmanagement/v1.0" + scope + "/more", "/elsewhere/api" + scope} {
		if status, _ := post(t, s.URL+base+"/services/digits/listkeys", ""); status != 404 {
			t.Errorf("%s: %d; want 404", base, status)
		}
	}
}

func TestTheLogTellsEverythingButSecrets(t *testing.T) {
	_, s, log := open(t)
	for _, route := range []string{"digits/listkeys", "digits/token", "nobody/listkeys"} {
		post(t, s.URL+"/services/"+route, "")
	}
	post(t, s.URL+"/services/digits/regenerateKeys", `{"keyType":"Primary","keyValue":"a-secret-value"}`)
	if status, answer := post(t, s.URL+"/services/broken/listkeys", ""); status != 500 || strings.Contains(answer, "disk") {
		t.Errorf("an error of ours: %d %s", status, answer)
	}
	resp, err := http.Post(s.URL+"/services/digits/listkeys", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	for i, want := range []string{
		"level=INFO operation=list_keys endpoint=digits who=admin status=200",
		"level=INFO operation=make_token endpoint=digits who=admin subject=admin token_id=id-of-it",
		"level=WARN operation=list_keys endpoint=nobody who=admin status=404",
		"level=INFO operation=set_key endpoint=digits who=admin key=primary given=true status=200",
		`level=WARN operation=list_keys endpoint=broken who=admin status=500 error="disk of /var/lib is full"`,
		"level=WARN operation=list_keys endpoint=digits status=401",
	} {
		if len(lines) != 6 {
			t.Fatalf("%d lines:\n%s", len(lines), log)
		}
		for part := range strings.SplitSeq(want, " ") {
			if !strings.Contains(lines[i], part) {
				t.Errorf("line %d lacks %s: %s", i, part, lines[i])
			}
		}
	}
	if strings.Contains(log.String(), "secret") {
		t.Errorf("a secret is in the log:\n%s", log)
	}
}

func TestPublicKeysNeedNoKey(t *testing.T) {
	_, s, _ := open(t)
	resp, err := http.Get(s.URL + "/.well-known/jwks.json")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != `{"keys":[]}` || resp.Header.Get("Content-Type") != "application/jwk-set+json" {
		t.Errorf("%s %s, %v", resp.Header.Get("Content-Type"), body, err)
	}
}

// Whatever is sent, the answer is JSON, and not an error of ours.
func FuzzOperations(f *testing.F) {
	h := New(&house{}, admin, slog.New(slog.DiscardHandler))
	f.Add("/services/digits/regenerateKeys", `{"keyType":"Primary","keyValue":null}`)
	f.Add("/services/digits/regenerateKeys", `{"keyType":"Primary"}{}`)
	f.Add("/services/digits/token", `{"subject":"a","scopes":["call"],"lifetimeSeconds":1e99}`)
	f.Add("/api/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w/services/x/listkeys", "")
	f.Add("/services/%2e%2e/token", "null")
	f.Fuzz(func(t *testing.T, path, body string) {
		if !strings.HasPrefix(path, "/") || strings.Contains(path, "broken") {
			return
		}
		req, err := http.NewRequest("POST", "http://localhost"+path, strings.NewReader(body))
		if err != nil {
			return
		}
		req.Header.Set("Authorization", "Bearer "+admin)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code >= 500 || w.Code/100 != 3 && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s %q: %d %s", path, body, w.Code, w.Body)
		}
	})
}
