package cmd

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// manageBy runs a command that talks to the management API.
func manageBy(t *testing.T, management, state string, args ...string) ([]byte, error) {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	args = append(args, "--url", "http://"+management, "--admin-key-file", filepath.Join(state, "admin-key"))
	return exec.Command(filepath.Join(dir, "sluice"), args...).CombinedOutput()
}

// sluice is manageBy of a command that must end well.
func sluice(t *testing.T, management, state string, args ...string) []byte {
	t.Helper()
	out, err := manageBy(t, management, state, args...)
	if err != nil {
		t.Fatalf("sluice %v: %v, %s", args, err, out)
	}
	return out
}

// manage calls the management API with its key.
func manage(t *testing.T, management, state, path, body string) answer {
	t.Helper()
	admin := strings.TrimSpace(string(read(t, filepath.Join(state, "admin-key"))))
	return must(t, "POST", "http://"+management+"/"+path, []byte(body), "Authorization", "Bearer "+admin)
}

func decode[T any](t *testing.T, data []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	return v
}

type keys struct{ PrimaryKey, SecondaryKey string }

// While the primary key is replaced again and again, requests with the secondary
// one notice nothing; what was set is good at once, and after a restart.
func TestKeysAreReplacedWhileServed(t *testing.T) {
	dir, management := t.TempDir(), free(t)
	state := filepath.Join(dir, "state")
	p, base := serveMLP(t, dir, "{mode: key}", "--management", management)
	one := read(t, digits+"requests/one.json")
	status := func(key string) int {
		t.Helper()
		return must(t, "POST", base+"/v2/models/digits/infer", one, "Authorization", "Bearer "+key).status
	}
	k := decode[keys](t, sluice(t, management, state, "service", "get-keys", "-n", "digits"))
	if file := strings.TrimSpace(string(read(t, filepath.Join(state, "keys", "digits")))); k.PrimaryKey != file || len(k.SecondaryKey) != 43 {
		t.Fatalf("keys %+v; want the primary one as in its file, %s, and another", k, file)
	}
	l := beginWith(t, base, 4, "Bearer "+k.SecondaryKey)
	for n := range 20 {
		given := fmt.Sprintf("a-key-that-was-given-%d", n)
		body := fmt.Sprintf(`{"keyType":"Primary","keyValue":%q}`, given)
		if n%2 == 1 {
			body = `{"keyType":"primary","keyValue":null}`
		}
		a := manage(t, management, state, "services/digits/regenerateKeys", body)
		next := decode[keys](t, a.body)
		if a.status != 200 || next.SecondaryKey != k.SecondaryKey || n%2 == 0 && next.PrimaryKey != given || next.PrimaryKey == k.PrimaryKey {
			t.Fatalf("%d %s after %+v", a.status, a.body, k)
		}
		if before, after := status(k.PrimaryKey), status(next.PrimaryKey); before != 401 || after != 200 {
			t.Fatalf("the replaced key is answered %d, the new one %d", before, after)
		}
		k = next
	}
	if got := l.end(); got[200] != l.asked.Load() || l.broken.Load() > 0 {
		t.Errorf("of %d requests with the other key %v, %d broken", l.asked.Load(), got, l.broken.Load())
	}
	k = decode[keys](t, sluice(t, management, state, "endpoint", "realtime", "regen-key", "-n", "digits", "-k", "Secondary", "-s", "the-second-key-from-a-person"))
	if k.SecondaryKey != "the-second-key-from-a-person" || status(k.SecondaryKey) != 200 || status(k.PrimaryKey) != 200 {
		t.Errorf("after the secondary key was set: %+v", k)
	}
	p.stop()
	for _, secret := range []string{k.PrimaryKey, k.SecondaryKey, strings.TrimSpace(string(read(t, filepath.Join(state, "admin-key"))))} {
		if strings.Contains(p.log.String(), secret) {
			t.Errorf("the log has %s", secret)
		}
	}
	if n := strings.Count(p.log.String(), "operation=set_key endpoint=digits"); n != 21 {
		t.Errorf("the log has %d of 21 replaced keys", n)
	}
	_, base = serveMLP(t, dir, "{mode: key}")
	if status(k.PrimaryKey) != 200 || status(k.SecondaryKey) != 200 {
		t.Error("keys that were set are gone after a restart")
	}
}

// What was asked of the management API when the process is to end is answered.
func TestManagementIsDrained(t *testing.T) {
	dir, management := t.TempDir(), free(t)
	p, _ := serveMLP(t, dir, "{mode: key}", "--management", management)
	c, err := net.Dial("tcp", management)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	admin := strings.TrimSpace(string(read(t, filepath.Join(dir, "state", "admin-key"))))
	body := `{"keyType":"Primary","keyValue":null}`
	fmt.Fprintf(c, "POST /services/digits/regenerateKeys HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", admin, len(body))
	answers := bufio.NewReader(c)
	if r, err := http.ReadResponse(answers, nil); err != nil || r.StatusCode != 100 {
		t.Fatalf("the body is not asked for: %v, %v", r, err)
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	eventually(t, "no longer listening", func() bool {
		another, err := net.Dial("tcp", management)
		if err == nil {
			_ = another.Close()
		}
		return err != nil
	})
	_, _ = io.WriteString(c, body) // what is answered tells
	if r, err := http.ReadResponse(answers, nil); err != nil || r.StatusCode != 200 {
		t.Errorf("got %v, %v; want the new keys", r, err)
	}
}

type accessToken struct {
	AccessToken, TokenType string
	RefreshAfter, ExpiryOn int64
}

// Gateways with one secret take each other's tokens, and nobody else's; a token
// that is revoked ends within a moment.
func TestTheHousesTokens(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("0123456789abcdef0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	house := func(name string, flags ...string) (base, management, state string) {
		t.Helper()
		home := filepath.Join(dir, name)
		if err := os.Mkdir(home, 0o700); err != nil {
			t.Fatal(err)
		}
		management = free(t)
		_, base = serveMLP(t, home, "{mode: token, token: {maxLifetimeSeconds: 600}}", append(flags, "--management", management)...)
		return base, management, filepath.Join(home, "state")
	}
	first, management, state := house("first", "--secret-file", secret)
	second, _, _ := house("second", "--secret-file", secret)
	stranger, _, _ := house("stranger")
	one := read(t, digits+"requests/one.json")
	ask := func(base, token, path string, want int, challenge string) {
		t.Helper()
		a := must(t, "POST", base+"/v2/models/digits"+path+"/infer", one, "Authorization", "Bearer "+token)
		if got := a.header.Get("WWW-Authenticate"); a.status != want || got != challenge {
			t.Errorf("%s: %d %s, %q; want %d, %q", base, a.status, a.body, got, want, challenge)
		}
	}
	a := manage(t, management, state, "services/digits/token", "")
	token := decode[accessToken](t, a.body)
	if now := time.Now().Unix(); a.status != 201 || token.TokenType != "Bearer" || token.ExpiryOn < now+590 || token.ExpiryOn > now+600 || token.RefreshAfter != token.ExpiryOn-300 {
		t.Errorf("%d %s", a.status, a.body)
	}
	ask(first, token.AccessToken, "", 200, "")
	ask(second, token.AccessToken, "/versions/mlp", 200, "")
	ask(stranger, token.AccessToken, "", 401, `Bearer realm="sluice", error="invalid_token"`)
	ask(first, key, "", 401, `Bearer realm="sluice", error="invalid_token"`)

	batch := decode[accessToken](t, sluice(t, management, state, "service", "get-access-token", "-n", "digits", "--subject", "batch", "--scope", "call")).AccessToken
	ask(second, batch, "", 200, "")
	ask(second, batch, "/versions/mlp", 403, `Bearer realm="sluice", error="insufficient_scope", scope="pin"`)
	text := strings.TrimSpace(string(sluice(t, management, state, "service", "get-access-token", "-n", "digits", "-o", "text", "--scope", "pin")))
	ask(first, text, "", 403, `Bearer realm="sluice", error="insufficient_scope", scope="call"`)

	set := must(t, "GET", "http://"+management+"/.well-known/jwks.json", nil)
	head, err := base64.RawURLEncoding.DecodeString(strings.Split(batch, ".")[0])
	if err != nil {
		t.Fatal(err)
	}
	if id := decode[struct{ Kid string }](t, head).Kid; set.status != 200 || id == "" || !bytes.Contains(set.body, []byte(id)) || bytes.Contains(set.body, []byte(`"d"`)) {
		t.Errorf("the published keys are %d %s; want %s among them", set.status, set.body, id)
	}

	specMLP(t, filepath.Join(dir, "first"), "{mode: token, token: {maxLifetimeSeconds: 600, revoked: {subjects: [batch]}}}")
	eventually(t, "revoked", func() bool {
		a := must(t, "POST", first+"/v2/models/digits/infer", one, "Authorization", "Bearer "+batch)
		return a.status == 401 && strings.Contains(a.header.Get("WWW-Authenticate"), `error_description="the token has expired or was revoked"`)
	})
	ask(first, token.AccessToken, "", 200, "")
}

func TestManagementRefusesWhatItMust(t *testing.T) {
	dir, management := t.TempDir(), free(t)
	state := filepath.Join(dir, "state")
	serveMLP(t, dir, "{keys: {primary: {env: DIGITS_KEY}}}", "--management", management)
	f := func(path, body string, want int, text string) {
		t.Helper()
		a := manage(t, management, state, path, body)
		e := decode[struct {
			Code, Message string
			StatusCode    int
			Details       []any
		}](t, a.body)
		if a.status != want || e.StatusCode != want || e.Code == "" || e.Details == nil || !strings.Contains(e.Message, text) {
			t.Errorf("%s %.50s: %d %s; want %d with %q", path, body, a.status, a.body, want, text)
		}
	}
	f("services/nope/listkeys", "", 404, "no endpoint of this name")
	f("services/digits/nope", "", 404, "no such route")
	f("services/digits/token", "", 409, "has spec.auth.mode key; this needs token")
	f("services/digits/regenerateKeys", "", 400, "not as it must be")
	f("services/digits/regenerateKeys", `{"keyType":"Tertiary"}`, 400, "Primary or Secondary")
	f("services/digits/regenerateKeys", `{"keyType":"Secondary","keyValu":""}`, 400, "keyValu")
	f("services/digits/regenerateKeys", `{"keyType":"Secondary","keyValue":"short"}`, 400, "5 characters long; must be 16 to 256")
	f("services/digits/regenerateKeys", `{"keyType":"Primary"}`, 409, "the primary key comes from what spec.auth.keys.primary names")
	f("services/digits/regenerateKeys", strings.Repeat(" ", 65<<10), 400, "longer than")
	if k := decode[keys](t, manage(t, management, state, "services/digits/listkeys", "").body); k.PrimaryKey != key || k.SecondaryKey == "" {
		t.Errorf("keys %+v; want %s, and one that was generated", k, key)
	}
	for _, header := range []string{"", "Bearer wrong", "Basic " + string(read(t, filepath.Join(state, "admin-key"))), "Bearer " + key} {
		a := must(t, "POST", "http://"+management+"/services/digits/listkeys", nil, "Authorization", strings.TrimSpace(header))
		if a.status != 401 || !strings.Contains(string(a.body), "EmptyOrInvalidToken") || !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("with %.12q: %d %s", header, a.status, a.body)
		}
	}
	if out, err := manageBy(t, management, dir, "service", "get-keys", "-n", "digits"); err == nil || !strings.Contains(string(out), "name its file") {
		t.Errorf("without the management key: %v, %s", err, out)
	}
	if out, err := manageBy(t, management, state, "service", "get-access-token", "-n", "digits"); err == nil || !strings.Contains(string(out), "has spec.auth.mode key") {
		t.Errorf("a token of an endpoint with keys: %v, %s", err, out)
	}
	if info, err := os.Stat(filepath.Join(state, "admin-key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the management key's file: %v, %v", info, err)
	}
}
