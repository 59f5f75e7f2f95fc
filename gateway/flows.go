package gateway

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"

	"github.com/dchest/siphash"
)

// flows turns callers into what scorers tell them apart by: a keyed hash, so that
// nobody can choose whose turn to share, and no scorer learns a name.
type flows struct{ k0, k1 uint64 }

func newFlows(secret []byte) flows {
	if secret == nil {
		secret = []byte(rand.Text())
	}
	sum := sha256.Sum256(append([]byte("flows\x00"), secret...))
	return flows{binary.LittleEndian.Uint64(sum[:]), binary.LittleEndian.Uint64(sum[8:])}
}

// of is a caller's flow, never 0. All who are not named are one, as in the queue.
func (f *flows) of(caller string) uint32 {
	return max(uint32(siphash.Hash(f.k0, f.k1, bytesOf(caller))), 1)
}
