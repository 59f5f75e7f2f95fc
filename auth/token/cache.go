package token

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/auth"
)

// known is the tokens that were found good. A keyed hash, which nobody outside can
// compute, finds the candidate; then the whole token is compared, in a time that
// does not depend on where they differ. Bounded in number and bytes: a full shard
// drops what has expired, else what it meets first, which is random.
type known struct {
	seed   maphash.Seed
	shards [shards]shard
}

const (
	shards   = 16
	perShard = 4096
	maxShard = 2 << 20 // bytes of tokens
	looksAt  = 16      // entries of a full shard, for one that has expired
)

type shard struct {
	mu    sync.RWMutex
	m     map[uint64]*entry
	bytes int
}

// entry is a token that was found good. Immutable, but for its generation.
type entry struct {
	token      []byte
	who        *auth.Principal
	until      time.Time
	proof      proof
	generation atomic.Uint64 // of the newest keys that are known to hold proof's
}

// proof is what an outcome rests on.
type proof struct {
	key    *key
	id     string // jti
	issued time.Time
}

func newKnown() *known {
	k := &known{seed: maphash.MakeSeed()}
	for i := range k.shards {
		k.shards[i].m = map[uint64]*entry{}
	}
	return k
}

// get is a token's entry; nil if it is not known.
func (k *known) get(token []byte) *entry {
	h := maphash.Bytes(k.seed, token)
	s := &k.shards[h%shards]
	s.mu.RLock()
	e := s.m[h]
	s.mu.RUnlock()
	if e == nil || !equal(e.token, token) {
		return nil
	}
	return e
}

// equal compares all bytes, eight at a time.
func equal(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	var differ uint64
	for len(a) >= 8 && len(b) >= 8 {
		differ |= binary.LittleEndian.Uint64(a) ^ binary.LittleEndian.Uint64(b)
		a, b = a[8:], b[8:]
	}
	for i := range a {
		differ |= uint64(a[i] ^ b[i])
	}
	return differ == 0
}

// put adds an entry.
func (k *known) put(e *entry) {
	h := maphash.Bytes(k.seed, e.token)
	s := &k.shards[h%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(h)
	for len(s.m) >= perShard || len(s.m) > 0 && s.bytes+len(e.token) > maxShard {
		s.drop(s.victim(time.Now()))
	}
	s.m[h] = e
	s.bytes += len(e.token)
}

// drop removes the entry of a hash, if there is one. Holding mu.
func (s *shard) drop(h uint64) {
	if e := s.m[h]; e != nil {
		s.bytes -= len(e.token)
		delete(s.m, h)
	}
}

// victim is the hash of the entry that goes for another. Holding mu; there is one.
func (s *shard) victim(now time.Time) (h uint64) {
	looked := 0
	for at, e := range s.m {
		h = at
		if looked++; now.After(e.until) || looked == looksAt {
			break
		}
	}
	return h
}

// remove drops all entries that gone names.
func (k *known) remove(gone func(*entry) bool) {
	for i := range k.shards {
		s := &k.shards[i]
		s.mu.Lock()
		for h, e := range s.m {
			if gone(e) {
				s.drop(h)
			}
		}
		s.mu.Unlock()
	}
}

// refused is tokens that were verified and found not to be good, each by its hash
// in a place that the next one with that place takes.
type refused struct {
	mu     sync.Mutex
	places []verdict // none before the first is put
}

const refusedPlaces = 1024

type verdict struct {
	sum        [sha256.Size]byte
	err        error
	until      time.Time
	generation uint64 // of the keys
}

func place(sum [sha256.Size]byte) int { return int(binary.LittleEndian.Uint16(sum[:]) % refusedPlaces) }

// get is why a token is refused; nil if that is not known.
func (r *refused) get(sum [sha256.Size]byte, generation uint64, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.places == nil {
		return nil
	}
	v := &r.places[place(sum)]
	if v.sum != sum || v.generation != generation || !now.Before(v.until) {
		return nil
	}
	return v.err
}

func (r *refused) put(v verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.places == nil {
		r.places = make([]verdict, refusedPlaces)
	}
	r.places[place(v.sum)] = v
}

func (r *refused) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.places = nil
}

// Revoked is tokens that are not good although their issuer made them so. The zero
// value is none.
type Revoked struct {
	Before   time.Time // all that were issued before; the zero time is none
	Subjects []string
	IDs      []string // of the claim jti
}

func (r Revoked) equal(o Revoked) bool {
	return r.Before.Equal(o.Before) && slices.Equal(r.Subjects, o.Subjects) && slices.Equal(r.IDs, o.IDs)
}

func (r Revoked) has(e *entry) bool {
	return e.proof.issued.Before(r.Before) || slices.Contains(r.Subjects, e.who.ID) || slices.Contains(r.IDs, e.proof.id)
}
