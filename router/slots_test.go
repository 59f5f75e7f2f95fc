package router

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// split makes versions a, b, … of which the first is the default.
func split(points ...int) []Version {
	list := make([]Version, len(points))
	for i, p := range points {
		list[i] = Version{Name: string(rune('a' + i)), BasisPoints: p, Default: i == 0}
	}
	return list
}

func rebalance(t *testing.T, s *Slots, versions []Version) *Slots {
	t.Helper()
	out, err := s.Rebalance(versions)
	if err != nil {
		t.Fatal(err)
	}
	shares, _ := Shares(versions)
	var count [MaxVersions]int
	for _, v := range out.owners() {
		count[v]++
	}
	if !slices.Equal(count[:len(shares)], shares) {
		t.Fatalf("%v has slots %v; want %v", versions, count, shares)
	}
	return out
}

// Moved is how many slots have another holder than in before.
func (s *Slots) Moved(before *Slots) (n int) {
	then, now := before.owners(), s.owners()
	had, has := before.holdings(), s.holdings()
	for slot := range whole {
		if had[then[slot]].name != has[now[slot]].name {
			n++
		}
	}
	return n
}

// Whatever the shares were and become, the clients that move are those that the
// shares say, and no more.
func TestAChangeMovesOnlyWhatItMust(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	versions := split(10_000)
	s := rebalance(t, nil, versions)
	for step := range 300 {
		points, rest := make([]int, 1+r.IntN(MaxVersions)), whole
		for i := range points {
			points[i] = r.IntN(rest + 1)
			rest -= points[i]
		}
		next := split(points...)
		r.Shuffle(len(next), func(i, j int) { next[i], next[j] = next[j], next[i] }) // the order does not matter
		out := rebalance(t, s, next)
		before, after, must := map[string]int{}, map[string]int{}, 0
		for list, into := range map[*[]Version]map[string]int{&versions: before, &next: after} {
			shares, _ := Shares(*list)
			for i, v := range *list {
				into[v.Name] = shares[i]
			}
		}
		for name, n := range before {
			must += max(n-after[name], 0)
		}
		if got := out.Moved(s); got != must {
			t.Fatalf("step %d: %d slots moved from %v to %v; must be %d", step, got, versions, next, must)
		}
		versions, s = next, out
	}
}

// A ramp takes clients from the default only, and a roll-back gives them back.
func TestARampMovesClientsOneWay(t *testing.T) {
	secret := []byte("secret")
	before := rebalance(t, nil, split(0, 500, 2000))
	ramp := rebalance(t, before, split(0, 1000, 2000))
	a, b := NewSlotHash(secret, "e", before), NewSlotHash(secret, "e", ramp)
	moved := 0
	const clients = 20_000
	for i := range clients {
		id := fmt.Appendf(nil, "client-%d", i)
		old, now := a.Assign(id), b.Assign(id)
		if old != now {
			moved++
			if old != 0 || now != 1 {
				t.Fatalf("%s moved from %d to %d", id, old, now)
			}
		}
	}
	if moved < clients*4/100 || moved > clients*6/100 {
		t.Errorf("%d of %d clients moved; want about 5%%", moved, clients)
	}
	if back := rebalance(t, ramp, split(0, 500, 2000)); back.Moved(before) != 0 {
		t.Errorf("%d slots differ after the roll-back", back.Moved(before))
	}
}

func TestClientsAreSpreadByShareAndSecret(t *testing.T) {
	s := rebalance(t, nil, split(0, 2500))
	one, same, other, elsewhere := NewSlotHash([]byte("x"), "e", s), NewSlotHash([]byte("x"), "e", s), NewSlotHash([]byte("y"), "e", s), NewSlotHash([]byte("x"), "f", s)
	var b, differs, independent int
	const clients = 40_000
	for i := range clients {
		id := fmt.Appendf(nil, "%d", i)
		v := one.Assign(id)
		b += v
		if same.Assign(id) != v {
			t.Fatal("two gateways with one secret disagree")
		}
		if other.Assign(id) != v {
			differs++
		}
		if elsewhere.Assign(id) != v {
			independent++
		}
	}
	// Of 40,000 draws with probability 1/4 the standard deviation is 87; two
	// independent draws differ with probability 3/8, deviation 97.
	for what, d := range map[string]int{"share": b - clients/4, "secret": differs - clients*3/8, "endpoint": independent - clients*3/8} {
		if d < -600 || d > 600 {
			t.Errorf("%s: %d of %d clients off", what, d, clients)
		}
	}
}

func TestSlotsAreReadBack(t *testing.T) {
	s := rebalance(t, rebalance(t, nil, split(0, 3000, 50)), split(0, 1000, 4000))
	text, err := s.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var back Slots
	if err := back.UnmarshalText(text); err != nil || back.Moved(s) != 0 {
		t.Errorf("read %q with %v, %d slots moved", text, err, back.Moved(s))
	}
	for _, bad := range []string{"", "a", "a=", "a=0", "a=0-", "a=0-9998", "a=0-10000", "a=-1-9999", "a=0-9999 b=5-5", "a=0-4999 a=5000-9999", "a=0-9999,", "a=0-x",
		"a=0-0 b=1-1 c=2-2 d=3-3 e=4-4 f=5-5 g=6-9999"} {
		if err := new(Slots).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

func TestStickyDoesNotAllocate(t *testing.T) {
	s := NewSlotHash([]byte("secret"), "e", rebalance(t, nil, split(0, 2500)))
	id := []byte("a-client-of-some-length")
	if n := testing.AllocsPerRun(100, func() { s.Assign(id) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSticky(b *testing.B) {
	slots, _ := (*Slots)(nil).Rebalance(split(0, 2500))
	s := NewSlotHash([]byte("secret"), "e", slots)
	id := []byte("a-client-of-some-length")
	for b.Loop() {
		s.Assign(id)
	}
}

func FuzzSlots(f *testing.F) {
	f.Add("a=0-8999 b=9999-9500,9000-9499 ")
	f.Add("a= b=9999-0")
	f.Fuzz(func(t *testing.T, text string) {
		var s, back Slots
		if s.UnmarshalText([]byte(text)) != nil {
			return
		}
		again, _ := s.MarshalText()
		if err := back.UnmarshalText(again); err != nil || back.Moved(&s) != 0 {
			t.Errorf("%q became %q: %v", text, again, err)
		}
	})
}
