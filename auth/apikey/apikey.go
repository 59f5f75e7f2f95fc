// Package apikey authenticates by keys, of which only keyed digests are kept.
//
// Keys are 256 random bits, so a fast hash is enough: nobody can try them all.
// An endpoint has two, so that clients can move to the second while the first is
// replaced.
package apikey

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"

	"sluice.dev/auth"
)

// MaxLength is the longest key in bytes.
const MaxLength = 256

// Pepper is the process's secret that digests are keyed with: digests that leak
// cannot be compared with those of another process.
type Pepper [32]byte

// NewPepper draws one.
func NewPepper() (p Pepper) {
	_, _ = rand.Read(p[:]) // never fails
	return p
}

// Generate draws a key: 256 random bits in 43 characters that need no escaping
// in headers, shells and URLs.
func Generate() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Keys are the keys of one endpoint. Immutable.
type Keys struct {
	pepper  Pepper
	digests []digest
}

type digest struct {
	sum [sha256.Size]byte
	who auth.Principal
}

// New keeps the digests of the named keys; empty and over-long ones are left
// out. Principals are called by the names.
func New(p Pepper, primary, secondary string) *Keys {
	k := &Keys{pepper: p}
	for _, named := range []struct{ name, key string }{{"primary", primary}, {"secondary", secondary}} {
		if sum, ok := k.digest([]byte(named.key)); ok {
			k.digests = append(k.digests, digest{sum, auth.Principal{ID: named.name, MayPin: true}})
		}
	}
	return k
}

// digest is the keyed hash of a key: SHA-256 over pepper and key. All inputs of
// one pepper are compared whole, so the extension of a hash gains nothing.
func (k *Keys) digest(key []byte) (sum [sha256.Size]byte, ok bool) {
	if len(key) == 0 || len(key) > MaxLength {
		return sum, false
	}
	var buf [len(k.pepper) + MaxLength]byte
	n := copy(buf[:], k.pepper[:])
	n += copy(buf[n:], key)
	return sha256.Sum256(buf[:n]), true
}

// Authenticate implements auth.Authenticator. The time it takes does not depend
// on which key matches, or how far.
func (k *Keys) Authenticate(credential []byte) (*auth.Principal, error) {
	if len(credential) == 0 {
		return nil, auth.ErrMissing
	}
	sum, ok := k.digest(credential)
	if !ok {
		return nil, auth.ErrInvalid
	}
	var who *auth.Principal
	for i := range k.digests {
		if subtle.ConstantTimeCompare(sum[:], k.digests[i].sum[:]) == 1 {
			who = &k.digests[i].who
		}
	}
	if who == nil {
		return nil, auth.ErrInvalid
	}
	return who, nil
}
