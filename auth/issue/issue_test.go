package issue_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sluice.dev/auth"
	"sluice.dev/auth/issue"
	"sluice.dev/auth/token"
)

var (
	secret = []byte("0123456789abcdef0123456789abcdef")
	other  = []byte("another secret of a house elsewhere")
)

// gateway is what verifies tokens for the endpoint digits with the house's secret.
func gateway(t testing.TB, secret []byte) (*issue.Issuer, *token.Verifier) {
	i := issue.New(secret)
	keys := token.OpenKeys(token.Source{Own: i}, slog.New(slog.DiscardHandler))
	t.Cleanup(keys.Close)
	return i, token.New(token.Config{
		Issuer: issue.Name, Audience: "digits", Skew: time.Minute, MaxLife: issue.MaxLife, Keys: keys,
		Scopes: token.Scopes{Call: issue.Call, Pin: issue.Pin, Mirror: issue.Mirror, High: issue.High, Low: issue.Low},
	})
}

func issued(t testing.TB, i *issue.Issuer, r issue.Request) issue.Token {
	t.Helper()
	made, err := i.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func request(life time.Duration, scopes ...string) issue.Request {
	return issue.Request{Endpoint: "digits", Subject: "alice", Scopes: scopes, Life: life}
}

func TestATokenSaysWhatWasAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, v := gateway(t, secret)
		made := issued(t, i, request(time.Hour, issue.Call, issue.Mirror, issue.Low))
		who, err := v.Authenticate([]byte(made.Access))
		if want := (auth.Principal{ID: "alice", MayMirror: true, MaxPriority: auth.Low}); err != nil || *who != want {
			t.Errorf("%+v, %v; want %+v", who, err, want)
		}
		if now := time.Now(); made.Refresh != now.Add(30*time.Minute) || made.Expires != now.Add(time.Hour) {
			t.Errorf("to be refreshed at %v, expires at %v; it is %v", made.Refresh, made.Expires, now)
		}
		again := issued(t, i, request(time.Hour, issue.Call))
		if again.ID == made.ID || len(made.Access) > 500 {
			t.Errorf("ids %s and %s, %d bytes", made.ID, again.ID, len(made.Access))
		}
		f := func(what string, r issue.Request, want error) {
			t.Helper()
			if _, err := v.Authenticate([]byte(issued(t, i, r).Access)); !errors.Is(err, want) {
				t.Errorf("%s: %v; want %v", what, err, want)
			}
		}
		f("another endpoint", issue.Request{Endpoint: "letters", Subject: "alice", Scopes: []string{issue.Call}, Life: time.Hour}, auth.ErrInvalid)
		f("not to call", request(time.Hour, issue.Pin), auth.ErrForbidden)
	})
}

func TestRequestsThatAreRefused(t *testing.T) {
	i := issue.New(secret)
	f := func(change func(*issue.Request), want string) {
		t.Helper()
		r := request(time.Hour, issue.Call)
		change(&r)
		if _, err := i.Issue(r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; want %q", r, err, want)
		}
	}
	f(func(r *issue.Request) { r.Scopes = []string{"admin"} }, `no scope "admin"; there are call, pin`)
	f(func(r *issue.Request) { r.Subject = "" }, "1 to 128")
	f(func(r *issue.Request) { r.Subject = strings.Repeat("x", 129) }, "1 to 128")
	f(func(r *issue.Request) { r.Subject = "a\nb" }, "printable")
	f(func(r *issue.Request) { r.Life = 0 }, "1 to 86400 seconds")
	f(func(r *issue.Request) { r.Life = issue.MaxLife + 1 }, "1 to 86400 seconds")
}

// Gateways agree through the secret alone.
func TestGatewaysOfAHouseTakeEachOthersTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := gateway(t, secret)
		_, b := gateway(t, secret)
		_, stranger := gateway(t, other)
		access := []byte(issued(t, a, request(time.Hour, issue.Call)).Access)
		if _, err := b.Authenticate(access); err != nil {
			t.Errorf("another gateway of the house: %v", err)
		}
		if _, err := stranger.Authenticate(access); !errors.Is(err, auth.ErrInvalid) {
			t.Errorf("a gateway with another secret: %v", err)
		}
	})
}

// Tokens live through the change of keys, for as long as they say and no longer.
func TestKeysRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		maker, v := gateway(t, secret)
		var ids []string
		for day := range 5 {
			made := issued(t, maker, request(issue.MaxLife, issue.Call))
			head, _, _ := strings.Cut(made.Access, ".")
			if ids = append(ids, head); slices.Index(ids, head) != day {
				t.Errorf("on day %d the key is one of an earlier day", day)
			}
			for range 3 {
				if _, err := v.Authenticate([]byte(made.Access)); err != nil {
					t.Errorf("day %d: %v", day, err)
				}
				time.Sleep(issue.MaxLife / 3) // in synctest's time, as below
			}
			if _, err := v.Authenticate([]byte(made.Access)); err != nil { // within the skew
				t.Errorf("at its end, on day %d: %v", day, err)
			}
			time.Sleep(2 * time.Minute) // to the end of the skew
			if _, err := v.Authenticate([]byte(made.Access)); !errors.Is(err, auth.ErrEnded) {
				t.Errorf("after its end, on day %d: %v", day, err)
			}
		}
	})
}

// A forger who has an old epoch's key makes nothing that is good now.
func TestOldKeysAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		maker, v := gateway(t, secret)
		raw, err := maker.JWKS()
		if err != nil {
			t.Fatal(err)
		}
		before := ids(t, raw)
		time.Sleep(4 * 24 * time.Hour) // in synctest's time
		raw, err = maker.JWKS()
		if err != nil {
			t.Fatal(err)
		}
		after := ids(t, raw)
		if len(before) < 3 || len(before) > 4 || slices.ContainsFunc(before, func(id string) bool { return slices.Contains(after, id) }) {
			t.Errorf("keys %v, and four days later %v", before, after)
		}
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{before[0], after[1]} { // gone; of somebody else
			forged := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
				"iss": issue.Name, "aud": "digits", "sub": "mallory", "scope": issue.Call, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
			})
			forged.Header["kid"] = id
			text, err := forged.SignedString(private)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.Authenticate([]byte(text)); !errors.Is(err, auth.ErrInvalid) {
				t.Errorf("a forged token of %s: %v", id, err)
			}
		}
	})
}

func ids(t *testing.T, raw []byte) (list []string) {
	t.Helper()
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(raw, &set); err != nil {
		t.Fatal(err)
	}
	for _, k := range set.Keys {
		if x, err := base64.RawURLEncoding.DecodeString(k["x"]); err != nil || len(x) != ed25519.PublicKeySize || k["d"] != "" || k["kty"] != "OKP" || k["alg"] != "EdDSA" {
			t.Errorf("key %v", k)
		}
		list = append(list, k["kid"])
	}
	return list
}

func BenchmarkIssue(b *testing.B) {
	i := issue.New(secret)
	b.ReportAllocs()
	for b.Loop() {
		issued(b, i, request(time.Hour, issue.Call, issue.Pin))
	}
}

// What one's own token costs: known, and at first.
func BenchmarkAuthenticate(b *testing.B) {
	i, v := gateway(b, secret)
	known := []byte(issued(b, i, request(time.Hour, issue.Call)).Access)
	b.Run("known", func(b *testing.B) {
		for b.Loop() {
			_, _ = v.Authenticate(known)
		}
	})
	b.Run("new", func(b *testing.B) {
		tokens := make([][]byte, 2048)
		for n := range tokens {
			tokens[n] = []byte(issued(b, i, issue.Request{Endpoint: "digits", Subject: fmt.Sprint(n), Scopes: []string{issue.Call}, Life: time.Hour}).Access)
		}
		n := 0
		for b.Loop() {
			if n++; n%len(tokens) == 0 {
				b.StopTimer()
				_, v = gateway(b, secret)
				b.StartTimer()
			}
			if _, err := v.Authenticate(tokens[n%len(tokens)]); err != nil {
				b.Fatal(err)
			}
		}
	})
}
