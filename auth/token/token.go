// Package token authenticates by JSON Web Tokens of external issuers, verified
// here: no request waits for an issuer, and a token is verified once.
package token

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sluice.dev/auth"
)

// MaxLength is the longest token in bytes.
const MaxLength = 8 << 10

// Config of a Verifier. Issuer, Audience and Keys are required.
type Config struct {
	Issuer   string            // iss must be it
	Audience string            // aud must contain it
	Require  map[string]string // claims, and what they must be
	Skew     time.Duration     // between the issuer's clock and ours
	Scope    string            // that a caller must have; empty is none
	PinScope string            // that a caller must have to pin a version; empty is none
	Keys     *Keyset
}

// Verifier checks tokens of one issuer. Good and bad ones alike are verified once
// and then known by their hash, until they expire or the issuer's keys change.
type Verifier struct {
	config Config
	parser *jwt.Parser
	claims *jwt.Validator // the parser's rules, for before a signature is verified
	known  *cache

	slots   chan struct{} // verifications at a time
	waiting atomic.Int64  // for a slot
}

// maxWaiting bounds how many tokens wait to be verified; more are refused.
const maxWaiting = 256

// algorithms are those that can be verified with a public key. There is no none, and
// no HS, with which a public key would serve as a secret.
var algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// New makes a verifier.
func New(c Config) *Verifier {
	options := []jwt.ParserOption{
		jwt.WithValidMethods(algorithms), jwt.WithIssuer(c.Issuer), jwt.WithAudience(c.Audience),
		jwt.WithExpirationRequired(), jwt.WithLeeway(c.Skew), jwt.WithStrictDecoding(),
	}
	return &Verifier{
		config: c, parser: jwt.NewParser(options...), claims: jwt.NewValidator(options...), known: newCache(),
		// Half of the cores: a flood of tokens leaves the others to requests.
		slots: make(chan struct{}, max(runtime.GOMAXPROCS(0)/2, 1)),
	}
}

// Authenticate implements auth.Authenticator.
func (v *Verifier) Authenticate(credential []byte) (*auth.Principal, error) {
	switch {
	case len(credential) == 0:
		return nil, auth.ErrMissing
	case len(credential) > MaxLength:
		return nil, auth.ErrInvalid
	}
	keys := v.config.Keys.current.Load()
	sum := sha256.Sum256(credential)
	if e, ok := v.known.get(sum, keys.generation, time.Now()); ok {
		return e.who, e.err
	}
	return v.learn(credential, sum)
}

// learn verifies a token and remembers the outcome.
func (v *Verifier) learn(credential []byte, sum [sha256.Size]byte) (*auth.Principal, error) {
	text := string(credential)
	head, err := v.inspect(text)
	if err != nil {
		return nil, auth.ErrInvalid // cheap to find out again
	}
	keys := v.config.Keys.current.Load()
	public, known := keys.find(head.KeyID, head.Algorithm)
	if !known {
		v.config.Keys.seek()
		keys = v.config.Keys.current.Load()
		public, known = keys.find(head.KeyID, head.Algorithm)
	}
	switch {
	case len(keys.keys) == 0:
		return nil, auth.ErrUnavailable
	case !known || public == nil:
		return nil, auth.ErrInvalid
	}
	if v.waiting.Add(1) > maxWaiting {
		v.waiting.Add(-1)
		return nil, auth.ErrBusy
	}
	v.slots <- struct{}{}
	v.waiting.Add(-1)
	claims := jwt.MapClaims{}
	_, err = v.parser.ParseWithClaims(text, claims, func(*jwt.Token) (any, error) { return public, nil })
	<-v.slots
	e := v.outcome(claims, err)
	e.generation = keys.generation
	v.known.put(sum, e)
	return e.who, e.err
}

// badFor is how long a token that is not valid is known to be so.
const badFor = time.Minute

// outcome is what a verified token's claims allow.
func (v *Verifier) outcome(claims jwt.MapClaims, err error) entry {
	bad := entry{err: auth.ErrInvalid, until: time.Now().Add(badFor)}
	if err != nil {
		return bad
	}
	for name, want := range v.config.Require {
		if got, ok := claims[name].(string); !ok || got != want {
			return bad
		}
	}
	subject, err := claims.GetSubject()
	if err != nil || subject == "" {
		return bad
	}
	expires, err := claims.GetExpirationTime()
	if err != nil || expires == nil {
		return bad
	}
	has := scopes(claims)
	if v.config.Scope != "" && !slices.Contains(has, v.config.Scope) {
		bad.err = auth.ErrForbidden
		return bad
	}
	pin := v.config.PinScope == "" || slices.Contains(has, v.config.PinScope)
	return entry{who: &auth.Principal{ID: subject, MayPin: pin}, until: expires.Add(v.config.Skew)}
}

// scopes are what a token grants: scope (RFC 8693), or scp or roles as others
// have it; a list, or text with spaces.
func scopes(claims jwt.MapClaims) (list []string) {
	for _, name := range []string{"scope", "scp", "roles"} {
		switch v := claims[name].(type) {
		case string:
			list = append(list, strings.Fields(v)...)
		case []any:
			for _, s := range v {
				if s, ok := s.(string); ok {
					list = append(list, s)
				}
			}
		}
	}
	return list
}

// header is what a token says of itself before anything is verified.
type header struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
}

// inspect refuses what needs no key to be refused: another form, algorithms that
// are not for public keys, headers that bring or name keys, duplicate members, and
// claims that do not hold.
func (v *Verifier) inspect(text string) (h header, err error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return h, errors.New("not three parts")
	}
	members, err := object(parts[0])
	if err != nil {
		return h, err
	}
	for _, name := range members.names {
		switch name {
		case "alg", "kid", "typ", "cty", "x5t", "x5t#S256", "nonce":
		default: // crit, jku, jwk, x5u, x5c, b64, zip, and whatever comes
			return h, fmt.Errorf("header %q", name)
		}
	}
	if err := json.Unmarshal(members.raw, &h); err != nil {
		return h, err
	}
	if !slices.Contains(algorithms, h.Algorithm) {
		return h, fmt.Errorf("algorithm %q", h.Algorithm)
	}
	if members, err = object(parts[1]); err != nil {
		return h, err
	}
	claims := jwt.MapClaims{}
	if err := json.Unmarshal(members.raw, &claims); err != nil {
		return h, err
	}
	return h, v.claims.Validate(claims)
}

// part is a JSON object in base64.
type part struct {
	raw   []byte
	names []string // of its members, each once
}

func object(text string) (p part, err error) {
	if p.raw, err = base64.RawURLEncoding.Strict().DecodeString(text); err != nil {
		return p, err
	}
	d := json.NewDecoder(bytes.NewReader(p.raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return p, errors.New("not an object")
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return p, err
		}
		name, _ := t.(string) // a member's name always is
		if slices.ContainsFunc(p.names, func(n string) bool { return strings.EqualFold(n, name) }) {
			return p, fmt.Errorf("%q twice", name)
		}
		p.names = append(p.names, name)
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return p, err
		}
	}
	if _, err := d.Token(); err != nil {
		return p, err
	}
	if _, err := d.Token(); err != io.EOF {
		return p, errors.New("more than an object")
	}
	return p, nil
}
