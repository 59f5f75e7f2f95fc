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
	"sync"
	"sync/atomic"

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

// Which of an endpoint's two keys.
type Which int

// The two.
const (
	Primary Which = iota
	Secondary
)

// String is the key's name, and its principal's.
func (w Which) String() string { return [...]string{"primary", "secondary"}[w] }

var principals = [...]auth.Principal{owner(Primary), owner(Secondary)}

// owner is who has a key: all of it.
func owner(w Which) auth.Principal {
	return auth.Principal{ID: w.String(), MayPin: true, MayMirror: true, MaxPriority: auth.High}
}

// Keys are the keys of one endpoint. Safe for concurrent use; each can be replaced
// while the other goes on.
type Keys struct {
	pepper  Pepper
	current atomic.Pointer[[2]digest]
	mu      sync.Mutex // of writers
}

type digest struct {
	sum [sha256.Size]byte
	set bool
}

// New keeps the digests of two keys; an empty or over-long one is none.
func New(p Pepper, primary, secondary string) *Keys {
	k := &Keys{pepper: p}
	k.current.Store(&[2]digest{k.digest([]byte(primary)), k.digest([]byte(secondary))})
	return k
}

// Are reports whether the keys are these two; an empty or over-long one is none.
func (k *Keys) Are(primary, secondary string) bool {
	return *k.current.Load() == [2]digest{k.digest([]byte(primary)), k.digest([]byte(secondary))}
}

// Set replaces one key. When it returns, the one before is not good any more.
func (k *Keys) Set(w Which, key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	next := *k.current.Load()
	next[w] = k.digest([]byte(key))
	k.current.Store(&next)
}

// digest is the keyed hash of a key: SHA-256 over pepper and key. All inputs of
// one pepper are compared whole, so the extension of a hash gains nothing.
func (k *Keys) digest(key []byte) digest {
	if len(key) == 0 || len(key) > MaxLength {
		return digest{}
	}
	var buf [len(k.pepper) + MaxLength]byte
	n := copy(buf[:], k.pepper[:])
	n += copy(buf[n:], key)
	return digest{sha256.Sum256(buf[:n]), true}
}

// Authenticate implements auth.Authenticator. The time it takes does not depend
// on which key matches, or how far.
func (k *Keys) Authenticate(credential []byte) (*auth.Principal, error) {
	if len(credential) == 0 {
		return nil, auth.ErrMissing
	}
	given := k.digest(credential)
	if !given.set {
		return nil, auth.ErrInvalid
	}
	var who *auth.Principal
	for i, d := range k.current.Load() {
		if subtle.ConstantTimeCompare(given.sum[:], d.sum[:]) == 1 && d.set {
			who = &principals[i]
		}
	}
	if who == nil {
		return nil, auth.ErrInvalid
	}
	return who, nil
}
