// Package token authenticates by JSON Web Tokens, of external issuers and of the
// house's own, verified here: no request waits for an issuer, and a token is
// verified once.
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
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sluice.dev/auth"
)

// MaxLength is the longest token in bytes.
const MaxLength = 8 << 10

// Config of a Verifier. Issuer, Audience and Keys are required.
type Config struct {
	Issuer    string            // iss must be it
	Audience  string            // aud must contain it
	Require   map[string]string // claims, and what they must be
	Skew      time.Duration     // between the issuer's clock and ours
	MaxLife   time.Duration     // from iat to exp; 0 does not limit it
	Endpoints string            // claim that must list Endpoint, or *; empty is none
	Endpoint  string            // that callers call
	Scopes    Scopes
	Keys      *Keyset
	Slots     Slots // nil makes some
}

// Scopes are those that a caller must have: to call at all and to pin a version,
// where empty is none; to choose mirroring and to ask for high priority, where
// empty means that nobody may; and the one that keeps a caller at low priority.
type Scopes struct{ Call, Pin, Mirror, High, Low string }

// Slots bound how many tokens are verified at a time, by all verifiers that share
// them: half of the cores, so that a flood of tokens leaves the others to requests.
type Slots chan struct{}

// NewSlots makes those of a process.
func NewSlots() Slots { return make(Slots, max(runtime.GOMAXPROCS(0)/2, 1)) }

// Verifier checks tokens of one issuer for one endpoint. Good and bad ones alike
// are verified once and then known, until they expire, are revoked, or their key
// goes.
type Verifier struct {
	config  Config
	parser  *jwt.Parser
	claims  *jwt.Validator // the parser's rules, for before a signature is verified
	known   *known
	refused refused
	lacking error        // of a token without Scopes.Call
	waiting atomic.Int64 // for a slot

	mu      sync.Mutex // of additions to known
	revoked Revoked
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
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(c.Skew), jwt.WithStrictDecoding(),
	}
	if c.Slots == nil {
		c.Slots = NewSlots()
	}
	return &Verifier{
		config: c, parser: jwt.NewParser(options...), claims: jwt.NewValidator(options...),
		known: newKnown(), lacking: &auth.Lacking{Scope: c.Scopes.Call},
	}
}

// Authenticate implements auth.Authenticator.
func (v *Verifier) Authenticate(credential []byte) (*auth.Principal, error) {
	switch {
	case len(credential) == 0:
		return nil, auth.ErrMissing
	case len(credential) > MaxLength:
		return nil, auth.ErrForm
	}
	if e := v.known.get(credential); e != nil && v.stands(e) {
		return e.who, nil
	}
	return v.learn(credential)
}

// stands reports whether a token that was found good still is: its time is not
// over, and its key is there.
func (v *Verifier) stands(e *entry) bool {
	keys := v.config.Keys.current.Load()
	if e.generation.Load() != keys.generation {
		if !keys.holds(e.proof.key) {
			return false
		}
		e.generation.Store(keys.generation)
	}
	return time.Now().Before(e.until)
}

// badFor is how long a token that is not good is known to be so.
const badFor = time.Minute

// learn verifies a token and remembers the outcome.
func (v *Verifier) learn(credential []byte) (*auth.Principal, error) {
	sum := sha256.Sum256(credential)
	if err := v.refused.get(sum, v.config.Keys.current.Load().generation, time.Now()); err != nil {
		return nil, err
	}
	text := string(credential)
	head, err := v.inspect(text)
	if err != nil {
		return nil, err // cheap to find out again
	}
	k, generation, err := v.key(head)
	if err != nil {
		return nil, err
	}
	claims, err := v.verify(text, k)
	if errors.Is(err, auth.ErrBusy) {
		return nil, err
	}
	e := &entry{token: []byte(text)}
	e.generation.Store(generation)
	if err == nil {
		err = v.read(e, claims, k)
	}
	if err == nil {
		err = v.keep(e)
	}
	if err != nil {
		v.refused.put(verdict{sum, err, time.Now().Add(badFor), generation})
		return nil, err
	}
	return e.who, nil
}

// key is the one that a token says it is signed with, and the generation of the
// keys that it is of.
func (v *Verifier) key(head header) (*key, uint64, error) {
	keys := v.config.Keys.current.Load()
	k, known := keys.find(head.KeyID, head.Algorithm)
	if !known {
		v.config.Keys.seek()
		keys = v.config.Keys.current.Load()
		k, _ = keys.find(head.KeyID, head.Algorithm)
	}
	switch {
	case len(keys.keys) == 0:
		return nil, 0, auth.ErrUnavailable
	case k == nil:
		return nil, 0, auth.ErrInvalid
	}
	return k, keys.generation, nil
}

// verify checks a token's signature when its turn comes: ErrBusy if too many wait,
// else ErrInvalid if it is not good.
func (v *Verifier) verify(text string, k *key) (jwt.MapClaims, error) {
	if v.waiting.Add(1) > maxWaiting {
		v.waiting.Add(-1)
		return nil, auth.ErrBusy
	}
	v.config.Slots <- struct{}{}
	v.waiting.Add(-1)
	claims := jwt.MapClaims{}
	_, err := v.parser.ParseWithClaims(text, claims, func(*jwt.Token) (any, error) { return k.public, nil })
	<-v.config.Slots
	if err != nil {
		return nil, auth.ErrInvalid
	}
	return claims, nil
}

// read fills in what the claims of a verified token say, which were found to hold.
func (v *Verifier) read(e *entry, claims jwt.MapClaims, k *key) error {
	for name, want := range v.config.Require {
		if got, ok := claims[name].(string); !ok || got != want {
			return auth.ErrInvalid
		}
	}
	subject, err := claims.GetSubject()
	if err != nil || subject == "" {
		return auth.ErrInvalid
	}
	id, _ := claims["jti"].(string)
	issued, _ := claims.GetIssuedAt()
	expires, err := claims.GetExpirationTime()
	if err != nil || expires == nil {
		return auth.ErrInvalid
	}
	e.until = expires.Add(v.config.Skew)
	e.proof = proof{key: k, id: id}
	if issued != nil {
		e.proof.issued = issued.Time
	}
	if c := v.config.Endpoints; c != "" {
		if list := words(claims[c]); !slices.Contains(list, v.config.Endpoint) && !slices.Contains(list, "*") {
			return auth.ErrForbidden
		}
	}
	e.who, err = v.principal(subject, scopes(claims))
	return err
}

// principal is who has these scopes.
func (v *Verifier) principal(subject string, has []string) (*auth.Principal, error) {
	s := &v.config.Scopes
	granted := func(scope string) bool { return scope != "" && slices.Contains(has, scope) }
	if s.Call != "" && !granted(s.Call) {
		return nil, v.lacking
	}
	who := &auth.Principal{ID: subject, MayPin: s.Pin == "" || granted(s.Pin), MayMirror: granted(s.Mirror)}
	switch {
	case granted(s.High):
		who.MaxPriority = auth.High
	case granted(s.Low):
		who.MaxPriority = auth.Low
	}
	return who, nil
}

// keep makes a good token known, unless it is revoked.
func (v *Verifier) keep(e *entry) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.revoked.has(e) {
		return auth.ErrEnded
	}
	v.known.put(e)
	return nil
}

// Revoke replaces what is revoked. When it returns, no such token is good any more;
// the others stay known.
func (v *Verifier) Revoke(r Revoked) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.revoked.equal(r) {
		return
	}
	v.revoked = r
	v.known.remove(r.has)
	v.refused.clear()
}

// scopes are what a token grants: scope (RFC 8693), or scp or roles as others
// have it.
func scopes(claims jwt.MapClaims) (list []string) {
	for _, name := range []string{"scope", "scp", "roles"} {
		list = append(list, words(claims[name])...)
	}
	return list
}

// words is a claim that is a list, or text with spaces.
func words(claim any) (list []string) {
	switch v := claim.(type) {
	case string:
		return strings.Fields(v)
	case []any:
		for _, s := range v {
			if s, ok := s.(string); ok {
				list = append(list, s)
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
// claims that do not hold. Of those it tells apart only what their maker knows: a
// token that is none, and one whose time is over, whatever else it says.
func (v *Verifier) inspect(text string) (h header, err error) {
	parts := strings.SplitN(text, ".", 4)
	if len(parts) != 3 {
		return h, auth.ErrForm
	}
	if h, err = readHeader(parts[0]); err != nil {
		return h, auth.ErrInvalid
	}
	switch err := v.hold(parts[1]); {
	case errors.Is(err, jwt.ErrTokenExpired):
		return h, auth.ErrEnded
	case err != nil:
		return h, auth.ErrInvalid
	}
	return h, nil
}

func readHeader(text string) (h header, err error) {
	members, err := object(text)
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
	return h, nil
}

// hold reports whether a token's claims do, as far as its times, issuer and
// audience go.
func (v *Verifier) hold(text string) error {
	members, err := object(text)
	if err != nil {
		return err
	}
	claims := jwt.MapClaims{}
	if err := json.Unmarshal(members.raw, &claims); err != nil {
		return err
	}
	if err := v.claims.Validate(claims); err != nil || v.config.MaxLife == 0 {
		return err
	}
	issued, err := claims.GetIssuedAt()
	if err != nil || issued == nil {
		return errors.New("no time of issue")
	}
	expires, err := claims.GetExpirationTime()
	if err == nil && expires.Sub(issued.Time) > v.config.MaxLife {
		err = errors.New("good for too long")
	}
	return err
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
