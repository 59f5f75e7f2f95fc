// Package issue makes the tokens of the house's own issuer.
//
// Its keys are derived from the secret that the gateways of a house share, one for
// each epoch of 24 hours: each gateway makes and verifies the same tokens, without
// a word between them, and a key is gone a day after its last token was made.
package issue

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Name is the claim iss of the tokens. Houses are told apart by their keys.
const Name = "sluice"

// What a token may grant.
const (
	Call   = "call"   // score
	Pin    = "pin"    // choose a version
	Mirror = "mirror" // choose whether a request is mirrored
	High   = "high"   // ask for high priority
	Low    = "low"    // never more than low priority, unless High
)

// Scopes are all of these.
var Scopes = []string{Call, Pin, Mirror, High, Low}

// How long tokens and their keys live.
const (
	DefaultLife = time.Hour
	MaxLife     = 24 * time.Hour
	epoch       = 24 * time.Hour
	skew        = 10 * time.Minute // between the clocks of gateways, at most
)

// Request is what a token is to say.
type Request struct {
	Endpoint string   // the one that it is good for
	Subject  string   // who it is for, 1 to 128 printable characters
	Scopes   []string // of Scopes
	Life     time.Duration
}

// Token is one that was made.
type Token struct {
	ID      string // the claim jti
	Access  string // the token itself
	Refresh time.Time
	Expires time.Time
}

// Issuer makes tokens. Safe for concurrent use.
type Issuer struct {
	secret []byte

	mu      sync.Mutex
	current key // that signs
}

// key is the key of one epoch.
type key struct {
	epoch   int64
	id      string
	private ed25519.PrivateKey
}

// New makes the issuer of the house with this secret, of 32 bytes or more.
func New(secret []byte) *Issuer { return &Issuer{secret: secret} }

// Issue makes a token. Errors say what is wrong with the request.
func (i *Issuer) Issue(r Request) (Token, error) {
	if err := r.check(); err != nil {
		return Token{}, err
	}
	now := time.Now().Truncate(time.Second)
	t := Token{ID: rand.Text(), Refresh: now.Add(r.Life / 2), Expires: now.Add(r.Life)}
	k, err := i.signing(number(now))
	if err != nil {
		return Token{}, err
	}
	unsigned := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"iss": Name, "sub": r.Subject, "aud": r.Endpoint, "iat": now.Unix(), "exp": t.Expires.Unix(), "jti": t.ID,
		"scope": strings.Join(r.Scopes, " "),
	})
	unsigned.Header["kid"] = k.id
	t.Access, err = unsigned.SignedString(k.private)
	return t, err
}

const maxSubject = 128 // bytes

func (r *Request) check() error {
	if r.Subject == "" || len(r.Subject) > maxSubject || strings.ContainsFunc(r.Subject, func(c rune) bool { return c < ' ' || c > '~' }) {
		return fmt.Errorf("the subject must be 1 to %d printable characters", maxSubject)
	}
	for _, s := range r.Scopes {
		if !slices.Contains(Scopes, s) {
			return fmt.Errorf("there is no scope %.32q; there are %s", s, strings.Join(Scopes, ", "))
		}
	}
	if r.Life < time.Second || r.Life > MaxLife {
		return fmt.Errorf("a token may live for 1 to %d seconds", int(MaxLife/time.Second))
	}
	return nil
}

// signing is the key of an epoch, derived once.
func (i *Issuer) signing(epoch int64) (key, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.current.private == nil || i.current.epoch != epoch {
		k, err := i.derive(epoch)
		if err != nil {
			return key{}, err
		}
		i.current = k
	}
	return i.current, nil
}

// number is the epoch at a time.
func number(t time.Time) int64 { return t.Unix() / int64(epoch/time.Second) }

// derive makes an epoch's key. Its id ends in a hash of the public key, so that
// tokens of another house are of a key that is not known.
func (i *Issuer) derive(epoch int64) (key, error) {
	n := strconv.FormatInt(epoch, 10)
	seed, err := hkdf.Key(sha256.New, i.secret, nil, "sluice token key "+n, ed25519.SeedSize)
	if err != nil {
		return key{}, fmt.Errorf("derive the key of epoch %s: %w", n, err)
	}
	private := ed25519.NewKeyFromSeed(seed)
	sum := sha256.Sum256(private.Public().(ed25519.PublicKey))
	return key{epoch, n + "." + base64.RawURLEncoding.EncodeToString(sum[:6]), private}, nil
}

// jwk is a public key as RFC 8037 has it.
type jwk struct {
	Type  string `json:"kty"`
	Curve string `json:"crv"`
	Use   string `json:"use"`
	Alg   string `json:"alg"`
	ID    string `json:"kid"`
	X     string `json:"x"`
}

// JWKS is the public keys of all tokens that may be good now, and of the next
// epoch, as a JSON Web Key Set.
func (i *Issuer) JWKS() ([]byte, error) {
	now := time.Now()
	var set struct {
		Keys []jwk `json:"keys"`
	}
	for n := number(now.Add(-MaxLife - skew)); n <= number(now)+1; n++ {
		k, err := i.derive(n)
		if err != nil {
			return nil, err
		}
		x := base64.RawURLEncoding.EncodeToString(k.private.Public().(ed25519.PublicKey))
		set.Keys = append(set.Keys, jwk{"OKP", "Ed25519", "sig", "EdDSA", k.id, x})
	}
	return json.Marshal(set)
}
