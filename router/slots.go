package router

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/dchest/siphash"
)

// Slots is the sticky split of one endpoint: which version holds each of 10,000
// slots, into which clients are hashed. The number of a version's slots is its
// share in basis points, exactly. Immutable; a change of the shares makes a new
// one that differs in as few slots as can be (Rebalance). It is kept as the text that
// MarshalText gives, since it is seldom looked at, and 20 KB otherwise.
type Slots struct{ text string }

// holding is the slots of one version. What came last is given up first, so that
// a step back returns the clients that the step forward took.
type holding struct {
	name  string
	slots []uint16
}

// Rebalance is the slots of versions, with as few as possible moved from what s
// says; of a nil s, the first; s itself where nothing changes. A version is known
// by its name.
func (s *Slots) Rebalance(versions []Version) (*Slots, error) {
	shares, err := Shares(versions)
	if err != nil {
		return nil, err
	}
	before := s.holdings()
	if s != nil && slices.EqualFunc(before, versions, func(h holding, v Version) bool { return h.name == v.Name }) &&
		slices.EqualFunc(before, shares, func(h holding, n int) bool { return len(h.slots) == n }) {
		return s, nil
	}
	held := make([]holding, len(versions))
	for i, v := range versions {
		held[i].name = v.Name
	}
	var free []uint16
	for _, h := range before {
		kept := 0
		if i := find(held, h.name); i >= 0 {
			kept = min(len(h.slots), shares[i])
			held[i].slots = slices.Clone(h.slots[:kept])
		}
		for i := len(h.slots) - 1; i >= kept; i-- {
			free = append(free, h.slots[i])
		}
	}
	for i := range held {
		h := &held[i]
		lacks := shares[i] - len(h.slots)
		h.slots = append(h.slots, free[:lacks]...) // the shares sum to all slots: they are there
		free = free[lacks:]
	}
	return &Slots{write(held)}, nil
}

// unheld is the slots before there is a version.
var unheld = func() []holding {
	h := holding{slots: make([]uint16, whole)}
	for i := range h.slots {
		h.slots[i] = uint16(whole - 1 - i)
	}
	return []holding{h}
}()

// holdings are the slots of each version, in the order of the versions.
func (s *Slots) holdings() []holding {
	if s == nil {
		return unheld
	}
	held, _ := parse(s.text) // is what write wrote
	return held
}

func find(held []holding, name string) int {
	return slices.IndexFunc(held, func(h holding) bool { return h.name == name })
}

// owners is the index of each slot's holder.
func (s *Slots) owners() (list [whole]uint8) {
	for i, h := range s.holdings() {
		for _, slot := range h.slots {
			list[slot] = uint8(i)
		}
	}
	return list
}

// MarshalText is the holdings as runs, such as "v1=0-8999 v2=9999-9500,9000-9499".
func (s *Slots) MarshalText() ([]byte, error) { return []byte(s.text), nil }

// write is holdings as text.
func write(held []holding) string {
	var b []byte
	for _, h := range held {
		b = append(append(b, h.name...), '=')
		for from := 0; from < len(h.slots); {
			to := run(h.slots[from:]) + from
			b = strconv.AppendUint(b, uint64(h.slots[from]), 10)
			b = strconv.AppendUint(append(b, '-'), uint64(h.slots[to]), 10)
			if from = to + 1; from < len(h.slots) {
				b = append(b, ',')
			}
		}
		b = append(b, ' ')
	}
	return string(b)
}

// run is the last index up to which slots go up, or down, by one.
func run(slots []uint16) int {
	if len(slots) < 2 {
		return 0
	}
	step, i := int(slots[1])-int(slots[0]), 0
	if step != 1 && step != -1 {
		return 0
	}
	for i+1 < len(slots) && int(slots[i+1])-int(slots[i]) == step {
		i++
	}
	return i
}

var errSlots = errors.New("not a list of sticky slots")

// UnmarshalText reads what MarshalText wrote.
func (s *Slots) UnmarshalText(b []byte) error {
	held, err := parse(string(b))
	if err != nil {
		return err
	}
	s.text = write(held)
	return nil
}

// parse reads what write wrote.
func parse(text string) (held []holding, err error) {
	var seen [whole]bool
	count := 0
	for text := range strings.FieldsSeq(text) {
		name, runs, ok := strings.Cut(text, "=")
		if !ok || find(held, name) >= 0 || len(held) == MaxVersions {
			return nil, fmt.Errorf("%w: %.80q", errSlots, text)
		}
		h := holding{name: name}
		for text := range strings.SplitSeq(runs, ",") {
			if text == "" && runs == "" {
				break
			}
			a, b, ok := strings.Cut(text, "-")
			from, err1 := strconv.ParseUint(a, 10, 16)
			to, err2 := strconv.ParseUint(b, 10, 16)
			if !ok || err1 != nil || err2 != nil || from >= whole || to >= whole {
				return nil, fmt.Errorf("%w: %.80q", errSlots, text)
			}
			for slot, step := int(from), sign(int(to)-int(from)); ; slot += step {
				if seen[slot] {
					return nil, fmt.Errorf("%w: slot %d twice", errSlots, slot)
				}
				seen[slot] = true
				h.slots = append(h.slots, uint16(slot))
				count++
				if slot == int(to) {
					break
				}
			}
		}
		held = append(held, h)
	}
	if count != whole {
		return nil, fmt.Errorf("%w: %d slots", errSlots, count)
	}
	return held, nil
}

func sign(n int) int {
	if n < 0 {
		return -1
	}
	return 1
}

// SlotHash assigns clients to the slots of one endpoint. Safe for concurrent use. The hash is
// keyed, so that nobody without the secret can choose a slot, and the same on
// every gateway that has it. Source: SipHash-2-4, https://131002.net/siphash/
type SlotHash struct {
	k0, k1 uint64
	slots  *Slots
	owner  atomic.Pointer[[whole]uint8] // looked up when the first client comes
}

// NewSlotHash hashes by secret and the endpoint's name, so that endpoints put a
// client into slots that have nothing to do with each other. The owners are
// indices in the versions that slots was made of.
func NewSlotHash(secret []byte, endpoint string, slots *Slots) *SlotHash {
	h := sha256.New()
	h.Write(secret)
	h.Write([]byte{0})
	h.Write([]byte(endpoint))
	sum := h.Sum(nil)
	return &SlotHash{k0: binary.LittleEndian.Uint64(sum), k1: binary.LittleEndian.Uint64(sum[8:]), slots: slots}
}

// Assign is the index of the version that serves a client.
func (s *SlotHash) Assign(client []byte) int {
	slot, _ := bits.Mul64(siphash.Hash(s.k0, s.k1, client), whole)
	owner := s.owner.Load()
	if owner == nil {
		owner = s.look()
	}
	return int(owner[slot])
}

func (s *SlotHash) look() *[whole]uint8 {
	owner := s.slots.owners()
	s.owner.Store(&owner)
	return &owner
}
