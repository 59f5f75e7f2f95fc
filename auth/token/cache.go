package token

import (
	"crypto/sha256"
	"sync"
	"time"

	"sluice.dev/auth"
)

// cache remembers what was found out about tokens, by their hash. Bounded: a full
// shard drops what has expired, else what it meets first, which is random.
type cache [shards]shard

const (
	shards   = 16
	perShard = 4096
	looksAt  = 16 // entries of a full shard, for one that has expired
)

type shard struct {
	mu sync.RWMutex
	m  map[[sha256.Size]byte]entry
}

// entry is the outcome of one verification.
type entry struct {
	who        *auth.Principal
	err        error
	until      time.Time
	generation uint64 // of the keys that it was verified with
}

func newCache() *cache {
	c := &cache{}
	for i := range c {
		c[i].m = map[[sha256.Size]byte]entry{}
	}
	return c
}

func (c *cache) get(sum [sha256.Size]byte, generation uint64, now time.Time) (entry, bool) {
	s := &c[sum[0]%shards]
	s.mu.RLock()
	e, ok := s.m[sum]
	s.mu.RUnlock()
	return e, ok && e.generation == generation && now.Before(e.until)
}

func (c *cache) put(sum [sha256.Size]byte, e entry) {
	s := &c[sum[0]%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.m) >= perShard {
		s.shrink(time.Now())
	}
	s.m[sum] = e
}

// shrink drops one entry at least. Bad tokens go before good ones. Holding mu.
func (s *shard) shrink(now time.Time) {
	var victim [sha256.Size]byte
	found, looked := false, 0
	for sum, e := range s.m {
		if now.After(e.until) {
			delete(s.m, sum)
			return
		}
		if !found || e.err != nil {
			victim, found = sum, true
		}
		if looked++; looked == looksAt {
			break
		}
	}
	delete(s.m, victim)
}
