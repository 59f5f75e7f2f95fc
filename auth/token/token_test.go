package token

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"sluice.dev/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// issuer signs tokens and serves its keys over HTTP.
type issuer struct {
	t       testing.TB
	server  *httptest.Server
	fetched atomic.Int64
	down    atomic.Bool

	mu   sync.Mutex
	keys map[string]crypto.Signer
	alg  map[string]string // that a key is pinned to
}

func newIssuer(t testing.TB) *issuer {
	i := &issuer{t: t, keys: map[string]crypto.Signer{}, alg: map[string]string{}}
	i.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		i.fetched.Add(1)
		if i.down.Load() {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(i.set())
	}))
	t.Cleanup(i.server.Close)
	return i
}

// set is the public keys as a JSON Web Key Set.
func (i *issuer) set() []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	store := jwkset.NewMemoryStorage()
	for id, k := range i.keys {
		j, err := jwkset.NewJWKFromKey(k.Public(), jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: id, ALG: jwkset.ALG(i.alg[id]), USE: jwkset.UseSig}})
		if err != nil {
			i.t.Error(err)
		}
		if err := store.KeyWrite(context.Background(), j); err != nil {
			i.t.Error(err)
		}
	}
	raw, err := store.JSONPublic(context.Background())
	if err != nil {
		i.t.Error(err)
	}
	return raw
}

func (i *issuer) add(id string, k crypto.Signer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys[id] = k
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var (
	rsaKey   = must(rsa.GenerateKey(rand.Reader, 2048))
	ecKey    = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	ec384Key = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
)

func edKey() crypto.Signer {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	return must(k, err)
}

// claims are good ones, changed by more; a nil value removes one.
func claims(more jwt.MapClaims) jwt.MapClaims {
	c := jwt.MapClaims{"iss": "https://issuer", "aud": []string{"other", "digits"}, "sub": "alice", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "jti": "one", "tenant": "one", "scope": "score pin", "endpoints": "digits"}
	maps.Copy(c, more)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func sign(m jwt.SigningMethod, id string, key any, c jwt.MapClaims, head map[string]any) string {
	t := jwt.NewWithClaims(m, c)
	t.Header["kid"] = id
	maps.Copy(t.Header, head)
	maps.DeleteFunc(t.Header, func(_ string, v any) bool { return v == nil })
	return must(t.SignedString(key))
}

func verifier(t testing.TB, i *issuer) *Verifier {
	keys := OpenKeys(Source{URL: i.server.URL}, slog.New(slog.DiscardHandler))
	t.Cleanup(keys.Close)
	return New(Config{
		Issuer: "https://issuer", Audience: "digits", Require: map[string]string{"tenant": "one"}, Skew: time.Minute,
		MaxLife: 2 * time.Hour, Endpoint: "digits", Endpoints: "endpoints", Keys: keys,
		Scopes: Scopes{Call: "score", Pin: "pin", Mirror: "mirror", High: "urgent", Low: "bulk"},
	})
}

func TestGoodTokensOfEveryAlgorithm(t *testing.T) {
	i, ed := newIssuer(t), edKey()
	i.add("rsa", rsaKey)
	i.add("ec", ecKey)
	i.add("ec384", ec384Key)
	i.add("ed", ed)
	v := verifier(t, i)
	f := func(m jwt.SigningMethod, id string, key any) {
		t.Helper()
		token := sign(m, id, key, claims(nil), nil)
		for range 2 { // verified, then known
			if who, err := v.Authenticate([]byte(token)); err != nil || who.ID != "alice" || !who.MayPin {
				t.Errorf("%s: %+v, %v", m.Alg(), who, err)
			}
		}
	}
	f(jwt.SigningMethodRS256, "rsa", rsaKey)
	f(jwt.SigningMethodRS512, "rsa", rsaKey)
	f(jwt.SigningMethodPS256, "rsa", rsaKey)
	f(jwt.SigningMethodES256, "ec", ecKey)
	f(jwt.SigningMethodES384, "ec384", ec384Key)
	f(jwt.SigningMethodEdDSA, "ed", ed)
	if n := i.fetched.Load(); n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
}

func TestClaimsDecide(t *testing.T) {
	i := newIssuer(t)
	i.add("ec", ecKey)
	v := verifier(t, i)
	f := func(what string, more jwt.MapClaims, want error) *auth.Principal {
		t.Helper()
		who, err := v.Authenticate([]byte(sign(jwt.SigningMethodES256, "ec", ecKey, claims(more), nil)))
		if !errors.Is(err, want) {
			t.Errorf("%s: %v; want %v", what, err, want)
		}
		return who
	}
	now := time.Now()
	f("expired, within the skew", jwt.MapClaims{"exp": now.Add(-30 * time.Second).Unix()}, nil)
	f("one audience as text", jwt.MapClaims{"aud": "digits"}, nil)
	f("scopes as a list", jwt.MapClaims{"scope": nil, "roles": []string{"score"}}, nil)
	if who := f("no scope to pin", jwt.MapClaims{"scope": "score"}, nil); who == nil || who.MayPin {
		t.Errorf("without its scope a caller may pin: %+v", who)
	}
	want := auth.Principal{ID: "alice", MayPin: true, MayMirror: true, MaxPriority: auth.High}
	if who := f("every scope", jwt.MapClaims{"scope": "score pin mirror urgent bulk"}, nil); who == nil || *who != want {
		t.Errorf("with every scope %+v; want %+v", who, want)
	}
	if who := f("at low priority", jwt.MapClaims{"scope": "score bulk"}, nil); who == nil || *who != (auth.Principal{ID: "alice", MaxPriority: auth.Low}) {
		t.Errorf("with the scope that keeps it low %+v", who)
	}
	f("no scope", jwt.MapClaims{"scope": "pin"}, auth.ErrForbidden)
	var lacking *auth.Lacking
	if _, err := v.Authenticate([]byte(sign(jwt.SigningMethodES256, "ec", ecKey, claims(jwt.MapClaims{"scope": "pin"}), nil))); !errors.As(err, &lacking) || lacking.Scope != "score" {
		t.Errorf("no scope: %v; want one that names it", err)
	}
	f("among other endpoints", jwt.MapClaims{"endpoints": []string{"letters", "digits"}}, nil)
	f("all endpoints", jwt.MapClaims{"endpoints": "*"}, nil)
	f("other endpoints", jwt.MapClaims{"endpoints": "letters digits2"}, auth.ErrForbidden)
	f("no endpoint", jwt.MapClaims{"endpoints": nil}, auth.ErrForbidden)
	f("good for too long", jwt.MapClaims{"exp": now.Add(3 * time.Hour).Unix()}, auth.ErrInvalid)
	f("no time of issue", jwt.MapClaims{"iat": nil}, auth.ErrInvalid)
	f("made in the future", jwt.MapClaims{"iat": now.Add(10 * time.Minute).Unix()}, auth.ErrInvalid)
	f("a scope that contains it", jwt.MapClaims{"scope": "scores"}, auth.ErrForbidden)
	f("another issuer", jwt.MapClaims{"iss": "https://issuer2"}, auth.ErrInvalid)
	f("no issuer", jwt.MapClaims{"iss": nil}, auth.ErrInvalid)
	f("another audience", jwt.MapClaims{"aud": "digit"}, auth.ErrInvalid)
	f("no audience", jwt.MapClaims{"aud": nil}, auth.ErrInvalid)
	f("expired", jwt.MapClaims{"exp": now.Add(-2 * time.Minute).Unix()}, auth.ErrEnded)
	f("expired, and for others", jwt.MapClaims{"exp": now.Add(-2 * time.Minute).Unix(), "aud": "letters"}, auth.ErrEnded)
	f("never expires", jwt.MapClaims{"exp": nil}, auth.ErrInvalid)
	f("not yet valid", jwt.MapClaims{"nbf": now.Add(time.Hour).Unix()}, auth.ErrInvalid)
	f("nobody", jwt.MapClaims{"sub": nil}, auth.ErrInvalid)
	f("another tenant", jwt.MapClaims{"tenant": "two"}, auth.ErrInvalid)
	f("no tenant", jwt.MapClaims{"tenant": nil}, auth.ErrInvalid)
	f("tenants", jwt.MapClaims{"tenant": []string{"one"}}, auth.ErrInvalid)
}

// forge signs a token of which the parts are given as text.
func forge(head, body string) string {
	text := base64.RawURLEncoding.EncodeToString([]byte(head)) + "." + base64.RawURLEncoding.EncodeToString([]byte(body))
	sig := must(jwt.SigningMethodES256.Sign(text, ecKey))
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// Source of the classes: RFC 8725, JSON Web Token best current practices.
func TestHostileTokensAreRefused(t *testing.T) {
	i, other := newIssuer(t), must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	i.add("ec", ecKey)
	i.add("rsa", rsaKey)
	i.alg["rsa"] = "RS256"
	i.add("weak", weakRSA())
	v := verifier(t, i)
	f := func(what, token string) {
		t.Helper()
		if who, err := v.Authenticate([]byte(token)); !errors.Is(err, auth.ErrInvalid) {
			t.Errorf("%s: %+v, %v", what, who, err)
		}
	}
	good := sign(jwt.SigningMethodES256, "ec", ecKey, claims(nil), nil)
	if _, err := v.Authenticate([]byte(good)); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	public := must(x509.MarshalPKIXPublicKey(rsaKey.Public()))
	asText := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	body := string(must(json.Marshal(claims(nil))))

	f("none", sign(jwt.SigningMethodNone, "ec", jwt.UnsafeAllowNoneSignatureType, claims(nil), nil))
	f("None", forge(`{"alg":"None","kid":"ec"}`, body))
	f("no algorithm", forge(`{"kid":"ec"}`, body))
	f("HS256 with the public key as its secret", sign(jwt.SigningMethodHS256, "rsa", asText, claims(nil), nil))
	f("HS256 with the public key's bytes", sign(jwt.SigningMethodHS256, "rsa", public, claims(nil), nil))
	f("another algorithm than the key is pinned to", sign(jwt.SigningMethodPS256, "rsa", rsaKey, claims(nil), nil))
	f("another type of key", sign(jwt.SigningMethodES256, "rsa", ecKey, claims(nil), nil))
	f("a weak key", sign(jwt.SigningMethodRS256, "weak", weakRSA(), claims(nil), nil))
	f("another key", sign(jwt.SigningMethodES256, "ec", other, claims(nil), nil))
	f("no key id, and several keys", sign(jwt.SigningMethodES256, "", ecKey, claims(nil), map[string]any{"kid": nil}))
	for _, name := range []string{"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "epk"} {
		f(name, sign(jwt.SigningMethodES256, "ec", ecKey, claims(nil), map[string]any{name: "https://elsewhere"}))
	}
	f("a header member twice", forge(`{"alg":"none","alg":"ES256","kid":"ec"}`, body))
	f("a header member in two cases", forge(`{"Alg":"none","alg":"ES256","kid":"ec"}`, body))
	f("a claim twice", forge(`{"alg":"ES256","kid":"ec"}`, `{"sub":"mallory",`+body[1:]))
	f("a claim in two cases", forge(`{"alg":"ES256","kid":"ec"}`, `{"Sub":"mallory",`+body[1:]))
	f("more than an object", forge(`{"alg":"ES256","kid":"ec"}`, body+body))
	f("a list", forge(`{"alg":"ES256","kid":"ec"}`, `[]`))
	f("null", forge(`null`, body))
	f("another body", parts[0]+"."+base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(body, "alice", "mallory", 1)))+"."+parts[2])
	f("no signature", parts[0]+"."+parts[1]+".")
	f("two parts", parts[0]+"."+parts[1])
	f("four parts", good+".AAAA")
	f("five parts", "a.b.c.d.e")
	f("padding", parts[0]+"="+"."+parts[1]+"."+parts[2])
	f("a space at the end", good+" ")
	f("a line feed within", parts[0]+"\n."+parts[1]+"."+parts[2])
	f("an oversized one", sign(jwt.SigningMethodES256, "ec", ecKey, claims(jwt.MapClaims{"x": strings.Repeat("x", MaxLength)}), nil))
	f("zero bytes", "\x00\x00\x00")
	if _, err := v.Authenticate(nil); !errors.Is(err, auth.ErrMissing) {
		t.Errorf("nothing: %v", err)
	}
}

// weakRSA is a key of 1,024 bits, always the same.
var weakRSA = sync.OnceValue(func() *rsa.PrivateKey {
	_ = os.Setenv("GODEBUG", "rsa1024min=0") // Go refuses to make one
	defer os.Unsetenv("GODEBUG")
	return must(rsa.GenerateKey(rand.Reader, 1024))
})

func TestKeysComeGoAndStay(t *testing.T) {
	i, first, second := newIssuer(t), edKey(), edKey()
	i.add("first", first)
	v := verifier(t, i)
	now := time.Now()
	v.config.Keys.now = func() time.Time { return now }
	old := []byte(sign(jwt.SigningMethodEdDSA, "first", first, claims(nil), nil))
	fresh := []byte(sign(jwt.SigningMethodEdDSA, "second", second, claims(nil), nil))
	want := func(what string, token []byte, want error, fetched int64) {
		t.Helper()
		if _, err := v.Authenticate(token); !errors.Is(err, want) {
			t.Errorf("%s: %v; want %v", what, err, want)
		}
		if n := i.fetched.Load(); n != fetched {
			t.Errorf("%s: the keys were fetched %d times; want %d", what, n, fetched)
		}
	}
	want("the first key", old, nil, 1)
	want("a key that is not known", fresh, auth.ErrInvalid, 2)
	i.add("second", second)
	for n := range 50 {
		unknown := sign(jwt.SigningMethodEdDSA, fmt.Sprint("flood ", n), second, claims(nil), nil)
		want("a flood of unknown keys", []byte(unknown), auth.ErrInvalid, 2)
	}
	now = now.Add(unknownEvery)
	want("the second key after a while", fresh, nil, 3)
	i.mu.Lock()
	delete(i.keys, "first")
	i.mu.Unlock()
	if err := v.config.Keys.refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
	now = now.Add(unknownEvery)
	want("a known token of a removed key", old, auth.ErrInvalid, 5)
	i.down.Store(true)
	now = now.Add(unknownEvery)
	want("an unknown key while the issuer is down", []byte(sign(jwt.SigningMethodEdDSA, "third", second, claims(nil), nil)), auth.ErrInvalid, 6)
	want("a known token while the issuer is down", fresh, nil, 6)
	want("a new token while the issuer is down", []byte(sign(jwt.SigningMethodEdDSA, "second", second, claims(jwt.MapClaims{"sub": "bob"}), nil)), nil, 6)
}

func TestWithoutKeysNobodyIsRefusedForGood(t *testing.T) {
	i := newIssuer(t)
	i.down.Store(true)
	v := verifier(t, i)
	i.add("ec", ecKey)
	token := []byte(sign(jwt.SigningMethodES256, "ec", ecKey, claims(nil), nil))
	if _, err := v.Authenticate(token); !errors.Is(err, auth.ErrUnavailable) {
		t.Errorf("got %v; want %v", err, auth.ErrUnavailable)
	}
	i.down.Store(false)
	v.config.Keys.now = func() time.Time { return time.Now().Add(unknownEvery) }
	if _, err := v.Authenticate(token); err != nil {
		t.Errorf("when the issuer is back: %v", err)
	}
}

func TestKeysOfAFile(t *testing.T) {
	i := newIssuer(t)
	i.add("ec", ecKey)
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, i.set(), 0o600); err != nil {
		t.Fatal(err)
	}
	keys := OpenKeys(Source{File: path}, slog.New(slog.DiscardHandler))
	defer keys.Close()
	v := New(Config{Issuer: "https://issuer", Audience: "digits", Keys: keys})
	// One key only: a token needs no key id.
	if _, err := v.Authenticate([]byte(sign(jwt.SigningMethodES256, "", ecKey, claims(nil), map[string]any{"kid": nil}))); err != nil {
		t.Error(err)
	}
}

// signed makes a good token of the key "ec" for a subject.
func signed(subject string) []byte {
	return []byte(sign(jwt.SigningMethodES256, "ec", ecKey, claims(jwt.MapClaims{"sub": subject, "jti": subject}), nil))
}

// broken is a token like signed's with a signature of another key.
var broken = func() func(subject string) []byte {
	other := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	return func(subject string) []byte {
		return []byte(sign(jwt.SigningMethodES256, "ec", other, claims(jwt.MapClaims{"sub": subject}), nil))
	}
}()

func TestMoreThanMayWaitAreTurnedAway(t *testing.T) {
	i := newIssuer(t)
	i.add("ec", ecKey)
	v := verifier(t, i)
	good := signed("alice")
	if _, err := v.Authenticate(good); err != nil {
		t.Fatal(err)
	}
	for range cap(v.config.Slots) { // every verification is under way
		v.config.Slots <- struct{}{}
	}
	const flood = maxWaiting + 100
	var busy, bad atomic.Int64
	var done sync.WaitGroup
	release := sync.OnceFunc(func() {
		for range cap(v.config.Slots) {
			<-v.config.Slots
		}
	})
	for n := range flood {
		token := broken(fmt.Sprint(n))
		done.Go(func() {
			switch _, err := v.Authenticate(token); {
			case errors.Is(err, auth.ErrBusy):
				if busy.Add(1) == flood-maxWaiting {
					release()
				}
			case errors.Is(err, auth.ErrInvalid):
				bad.Add(1)
			}
		})
		if _, err := v.Authenticate(good); err != nil {
			t.Errorf("a known token during a flood: %v", err)
		}
	}
	done.Wait()
	if busy.Load() != flood-maxWaiting || bad.Load() != maxWaiting {
		t.Errorf("of %d tokens %d were turned away and %d verified; want %d and %d", flood, busy.Load(), bad.Load(), flood-maxWaiting, maxWaiting)
	}
	if n := v.waiting.Load(); n != 0 {
		t.Errorf("%d still wait", n)
	}
	if _, err := v.Authenticate(signed("bob")); err != nil {
		t.Errorf("a new token after the flood: %v", err)
	}
}

// A flood that fills what is known about bad tokens takes nothing from the good ones.
func TestKnownTokensOutliveAFlood(t *testing.T) {
	i := newIssuer(t)
	i.add("ec", ecKey)
	v := verifier(t, i)
	good := signed("alice")
	if _, err := v.Authenticate(good); err != nil {
		t.Fatal(err)
	}
	for n := range 2 * refusedPlaces {
		v.refused.put(verdict{sum: sha256.Sum256([]byte(fmt.Sprint(n))), err: auth.ErrInvalid, until: time.Now().Add(time.Minute)})
	}
	if v.known.get(good) == nil || len(v.refused.places) != refusedPlaces {
		t.Errorf("after a flood the good token is forgotten, or %d bad ones are known", len(v.refused.places))
	}
	bad := broken("mallory")
	for range 2 {
		if _, err := v.Authenticate(bad); !errors.Is(err, auth.ErrInvalid) {
			t.Errorf("a bad token: %v", err)
		}
	}
	if v.refused.get(sha256.Sum256(bad), v.config.Keys.current.Load().generation, time.Now()) == nil {
		t.Error("a bad token is verified every time")
	}
}

func TestWhatIsKnownIsBounded(t *testing.T) {
	k, now := newKnown(), time.Now()
	put := func(n, size int) {
		token := make([]byte, size)
		copy(token, fmt.Sprint(n))
		k.put(&entry{token: token, who: &auth.Principal{}, until: now.Add(time.Hour)})
	}
	check := func(what string) {
		t.Helper()
		for i := range k.shards {
			s, sum := &k.shards[i], 0
			for _, e := range s.m {
				sum += len(e.token)
			}
			if len(s.m) > perShard || sum > maxShard || sum != s.bytes || len(s.m) == 0 {
				t.Fatalf("%s: a shard has %d tokens of %d bytes, and counts %d", what, len(s.m), sum, s.bytes)
			}
		}
	}
	for n := range shards * perShard * 3 / 2 {
		put(n, 16)
	}
	check("many")
	for n := range shards * 2 * maxShard / MaxLength {
		put(n, MaxLength)
	}
	check("large")
	put(1, 100)
	before := k.get(append([]byte("1"), make([]byte, 99)...))
	put(1, 100)
	if after := k.get(append([]byte("1"), make([]byte, 99)...)); before == nil || after == nil || before == after {
		t.Error("a token that is put again does not replace itself")
	}
	check("again")
}

func TestEqual(t *testing.T) {
	for n := range 40 {
		a := bytes.Repeat([]byte{7}, n)
		if !equal(a, bytes.Clone(a)) || equal(a, append(bytes.Clone(a), 7)) {
			t.Errorf("length %d", n)
		}
		for i := range a {
			b := bytes.Clone(a)
			if b[i] ^= 0x80; equal(a, b) || equal(b, a) {
				t.Errorf("length %d: a difference at %d is not seen", n, i)
			}
		}
	}
}

func TestARevokedTokenEndsAtOnce(t *testing.T) {
	i := newIssuer(t)
	i.add("ec", ecKey)
	v := verifier(t, i)
	alice, bob := signed("alice"), signed("bob")
	want := func(what string, a, b error) {
		t.Helper()
		if _, err := v.Authenticate(alice); !errors.Is(err, a) {
			t.Errorf("%s: alice %v; want %v", what, err, a)
		}
		if _, err := v.Authenticate(bob); !errors.Is(err, b) {
			t.Errorf("%s: bob %v; want %v", what, err, b)
		}
	}
	want("at first", nil, nil)
	v.Revoke(Revoked{IDs: []string{"alice"}})
	if v.known.get(alice) != nil || v.known.get(bob) == nil {
		t.Error("what is revoked is known, or what is not is forgotten")
	}
	want("by id", auth.ErrEnded, nil)
	v.Revoke(Revoked{Subjects: []string{"bob"}})
	want("by subject", nil, auth.ErrEnded)
	v.Revoke(Revoked{Before: time.Now().Add(time.Second)})
	want("by time", auth.ErrEnded, auth.ErrEnded)
	v.Revoke(Revoked{Before: time.Now().Add(-time.Hour)})
	want("made after the time", nil, nil)
}

// Tokens that are verified while their subject is revoked are not let in after it.
func TestRevocationMeetsVerification(t *testing.T) {
	i := newIssuer(t)
	i.add("ec", ecKey)
	v := verifier(t, i)
	tokens := make([][]byte, 50)
	for n := range tokens {
		tokens[n] = []byte(sign(jwt.SigningMethodES256, "ec", ecKey, claims(jwt.MapClaims{"jti": fmt.Sprint(n)}), nil))
	}
	var revoked atomic.Bool
	var done sync.WaitGroup
	for n := range 4 {
		done.Go(func() {
			for i := range tokens {
				after := revoked.Load()
				if _, err := v.Authenticate(tokens[(i+n*10)%len(tokens)]); err == nil && after {
					t.Error("a revoked token is let in")
				}
			}
		})
	}
	v.Revoke(Revoked{Subjects: []string{"alice"}})
	revoked.Store(true)
	done.Wait()
	for _, token := range tokens {
		if v.known.get(token) != nil {
			t.Fatal("a revoked token is known")
		}
	}
}

// A change of the keys does not cost a verification where a token's own key stays.
func TestOtherKeysComeAndGoUnnoticed(t *testing.T) {
	i := newIssuer(t)
	i.add("ec", ecKey)
	v := verifier(t, i)
	token := signed("alice")
	first, err := v.Authenticate(token)
	if err != nil {
		t.Fatal(err)
	}
	refresh := func() {
		t.Helper()
		if err := v.config.Keys.refresh(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	i.add("rsa", rsaKey)
	refresh()
	if again, err := v.Authenticate(token); again != first {
		t.Errorf("verified again: %+v, %v", again, err)
	}
	i.add("ec", must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))) // another key of the same id
	refresh()
	if _, err := v.Authenticate(token); !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("a token of a key that was replaced: %v", err)
	}
}

func TestAKnownTokenDoesNotAllocate(t *testing.T) {
	i := newIssuer(t)
	i.add("ec", ecKey)
	v := verifier(t, i)
	token := []byte(sign(jwt.SigningMethodES256, "ec", ecKey, claims(nil), nil))
	if n := testing.AllocsPerRun(100, func() { _, _ = v.Authenticate(token) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	i := newIssuer(b)
	i.add("rsa", rsaKey)
	v := verifier(b, i)
	token := []byte(sign(jwt.SigningMethodRS256, "rsa", rsaKey, claims(nil), nil))
	b.Run("known", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = v.Authenticate(token)
		}
	})
	b.Run("new", func(b *testing.B) {
		for b.Loop() {
			v.known = newKnown()
			_, _ = v.Authenticate(token)
		}
	})
}

// What a known token costs while another core is kept busy by bad ones, each new.
func BenchmarkKnownInAFlood(b *testing.B) {
	i := newIssuer(b)
	i.add("ec", ecKey)
	v := verifier(b, i)
	good := signed("alice")
	flood := make([][]byte, 8*refusedPlaces) // so many that all are forgotten before they come again
	for n := range flood {
		flood[n] = broken(fmt.Sprint(n))
	}
	known := func(b *testing.B) {
		for b.Loop() {
			if _, err := v.Authenticate(good); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("quiet", known)
	b.Run("flood", func(b *testing.B) {
		var stop atomic.Bool
		var done sync.WaitGroup
		refused := 0
		done.Go(func() {
			for ; !stop.Load(); refused++ {
				_, _ = v.Authenticate(flood[refused%len(flood)])
			}
		})
		known(b)
		stop.Store(true)
		done.Wait()
		b.ReportMetric(float64(refused)/b.Elapsed().Seconds(), "refused/s")
	})
}

func FuzzAuthenticate(f *testing.F) {
	i := newIssuer(f)
	i.add("ec", ecKey)
	v := verifier(f, i)
	f.Add([]byte(forge(`{"alg":"ES256","kid":"ec"}`, `{"sub":"a"}`)))
	f.Add([]byte("a.b.c"))
	f.Add([]byte(sign(jwt.SigningMethodHS256, "ec", []byte("x"), claims(nil), nil)))
	f.Fuzz(func(t *testing.T, token []byte) {
		if who, err := v.Authenticate(token); err == nil {
			t.Errorf("%q is %+v", token, who)
		}
	})
}

func FuzzKeys(f *testing.F) {
	i := newIssuer(f)
	i.add("ec", ecKey)
	i.add("rsa", rsaKey)
	f.Add(i.set())
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AAAA"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if keys, err := parseSet(raw); err == nil && len(keys) == 0 {
			t.Errorf("%q has no keys and no error", raw)
		}
	})
}
