package httpapi

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"sluice.dev/auth"
	"sluice.dev/gateway"
)

// refuses is an authenticator that refuses everybody with its error.
type refuses struct{ err error }

func (r refuses) Authenticate([]byte) (*auth.Principal, error) { return nil, r.err }

// Clients are told what they can do, in the words of RFC 6750, section 3; nothing
// tells one token that is not valid from another, unless its maker knew.
func TestRefusalsTellWhatToDo(t *testing.T) {
	address, server := serve(t, Config{})
	s := server.path.Snapshot().Endpoints()["e"]
	const realm = `Bearer realm="sluice"`
	f := func(err error, status int, challenge, text string, credentials ...string) {
		t.Helper()
		server.path.Swap(gateway.NewSnapshot(2, []*gateway.Endpoint{{Name: "e", Auth: refuses{err}, Split: s.Split, Versions: s.Versions}}))
		for _, route := range []string{"POST /api/v1/service/e/score", "POST /v2/models/e/infer", "GET /v2/models/e", "GET /v2/models/e/config", "GET /v2/models/e/stats"} {
			method, path, _ := strings.Cut(route, " ")
			req, err := http.NewRequest(method, "http://"+address+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header["Authorization"] = credentials
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if got := resp.Header.Get("Www-Authenticate"); err != nil || resp.StatusCode != status || got != challenge || !strings.Contains(string(body), text) {
				t.Errorf("%s: %d %q %s, %v; want %d %q with %q", route, resp.StatusCode, got, body, err, status, challenge, text)
			}
			if retry := resp.Header.Get("Retry-After"); (retry != "") != (status == 503) {
				t.Errorf("%s: %d, to be tried again after %q", route, status, retry)
			}
		}
	}
	f(auth.ErrMissing, 401, realm, "no valid credential; send")
	f(auth.ErrInvalid, 401, realm+`, error="invalid_token"`, "no valid credential; send")
	f(auth.ErrForm, 401, realm+`, error="invalid_token"`, "takes a token")
	f(auth.ErrEnded, 401, realm+`, error="invalid_token", error_description="the token has expired or was revoked"`, "get another")
	f(auth.ErrForbidden, 403, realm+`, error="insufficient_scope"`, "not for this endpoint")
	f(&auth.Lacking{Scope: "score"}, 403, realm+`, error="insufficient_scope", scope="score"`, "lacks the scope 'score'")
	f(auth.ErrBusy, 503, "", "try again later")
	f(auth.ErrUnavailable, 503, "", "try again later")
	f(fmt.Errorf("of another kind"), 500, "", "could not be checked")
	f(nil, 400, realm+`, error="invalid_request"`, "more than one credential", "Bearer a", "Bearer b")
}
