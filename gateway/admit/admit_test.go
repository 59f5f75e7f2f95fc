package admit

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"sluice.dev/scorer"
)

// TestGate runs the scripts in testdata: each line is an event, the output what
// it led to and the state after it.
func TestGate(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "gate" {
				var limit int
				d.ScanArgs(t, "limit", &limit)
				*s = script{gate: NewGate(limit), places: map[string]*Place{}, now: 1}
				return "ok\n"
			}
			var out strings.Builder
			for line := range strings.Lines(d.Input) {
				fmt.Fprintf(&out, "%s: %s\n", strings.TrimSpace(line), s.do(strings.Fields(line)))
			}
			return out.String()
		})
	})
}

type script struct {
	gate   Gate
	places map[string]*Place
	now    scorer.Instant
}

func (s *script) do(words []string) string {
	result := ""
	switch words[0] {
	case "at": // milliseconds
		ms, _ := strconv.Atoi(words[1])
		s.now = scorer.Instant(1).Add(time.Duration(ms) * time.Millisecond)
	case "arrive":
		result = s.arrive(words[1], words[2:])
	case "depart":
		s.gate.Depart()
		result = s.granted(s.gate.Grant(s.now))
	case "forget":
		s.gate.Forget()
	case "leave":
		result = fmt.Sprint(s.gate.Leave(s.places[words[1]]))
	case "resize":
		n, _ := strconv.Atoi(words[1])
		s.gate.Resize(n)
		for p := s.gate.Grant(s.now); p != nil; p = s.gate.Grant(s.now) {
			result += s.granted(p) + " "
		}
	}
	return fmt.Sprintf("%s [%d of %d busy, %d waiting]", strings.TrimSpace(result), s.gate.Busy(), s.gate.Slots(), s.gate.Waiting())
}

// arrive reads by=CALLER, in=MILLISECONDS until the deadline, and a class.
func (s *script) arrive(name string, about []string) string {
	p := &Place{Owner: name, Class: Normal, Deadline: s.now.Add(time.Hour)}
	s.places[name] = p
	for _, word := range about {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "by":
			p.Caller = value
		case "in":
			ms, _ := strconv.Atoi(value)
			p.Deadline = s.now.Add(time.Duration(ms) * time.Millisecond)
		default:
			p.Class = classNamed(word)
		}
	}
	if s.gate.Enter() {
		return "granted"
	}
	v, out, wait := s.gate.Queue(p, s.now)
	result := [...]string{"queued", "full", "late"}[v]
	if out != nil {
		result += fmt.Sprintf(" in place of %v", out.Owner)
	}
	if v == Late {
		result += fmt.Sprintf(" by %v", wait)
	}
	return result
}

func classNamed(name string) Class {
	for c := range Classes {
		if c.String() == name {
			return c
		}
	}
	panic("no class " + name)
}

func (s *script) granted(p *Place) string {
	if p == nil {
		return "nobody"
	}
	return p.Owner.(string)
}

// twin is a gate as dumb as can be: one list, searched each time.
type twin struct {
	limit, slots, busy int
	list               []*Place
	turns              [Classes][]string // callers that wait, the next one first
}

func (w *twin) of(c Class, caller string) (list []*Place) {
	for _, p := range w.list {
		if p.Class == c && p.Caller == caller {
			list = append(list, p)
		}
	}
	slices.SortStableFunc(list, func(a, b *Place) int { return int(a.Deadline - b.Deadline) })
	return list
}

func (w *twin) remove(p *Place) {
	w.list = slices.DeleteFunc(w.list, func(q *Place) bool { return q == p })
	if len(w.of(p.Class, p.Caller)) == 0 {
		w.turns[p.Class] = slices.DeleteFunc(w.turns[p.Class], func(s string) bool { return s == p.Caller })
	}
}

// queue is what Queue must say where it never says Late.
func (w *twin) queue(p *Place) (Verdict, *Place) {
	var out *Place
	if len(w.list) >= w.limit {
		if out = w.victim(p); out == nil {
			return Full, nil
		}
		w.remove(out)
	}
	if len(w.of(p.Class, p.Caller)) == 0 {
		w.turns[p.Class] = append(w.turns[p.Class], p.Caller)
	}
	w.list = append(w.list, p)
	return Queued, out
}

func (w *twin) victim(p *Place) *Place {
	for c := range p.Class + 1 {
		most := ""
		for i, caller := range w.turns[c] {
			if i == 0 || len(w.of(c, caller)) > len(w.of(c, most)) {
				most = caller
			}
		}
		if len(w.turns[c]) == 0 {
			continue
		}
		if list := w.of(c, most); c < p.Class || len(list) > len(w.of(c, p.Caller))+1 {
			return list[len(list)-1]
		}
		return nil
	}
	return nil
}

func (w *twin) grant() *Place {
	if w.busy >= w.slots {
		return nil
	}
	for _, c := range []Class{High, Normal, Low, Copy} {
		if turns := w.turns[c]; len(turns) > 0 {
			p := w.of(c, turns[0])[0]
			w.turns[c] = append(turns[1:], turns[0])
			w.remove(p)
			w.busy++
			return p
		}
	}
	return nil
}

// FuzzGate plays arbitrary events and holds the gate against its twin.
func FuzzGate(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 2, 3})
	f.Add([]byte{3, 0, 0, 0, 0, 0, 1, 1, 2, 1})
	f.Add([]byte{7, 0, 16, 48, 80, 112, 4, 0, 0, 0, 0, 64, 1, 1, 1, 1, 1, 1})
	f.Fuzz(func(t *testing.T, events []byte) {
		const limit = 5
		g, w := NewGate(limit), twin{limit: limit}
		grant := func() {
			for {
				got, want := g.Grant(1), w.grant()
				if got != want {
					t.Fatalf("granted %v, want %v", got, want)
				}
				if got == nil {
					return
				}
			}
		}
		for i, e := range events {
			switch e % 4 {
			case 0:
				p := &Place{Owner: i, Class: Class(e >> 6), Caller: string('a' + rune(e>>4&3)), Deadline: scorer.Instant(1 + e>>2&3)}
				if g.Enter() {
					if w.busy >= w.slots || len(w.list) > 0 {
						t.Fatal("entered without a slot, or before others")
					}
					w.busy++
					continue
				}
				v, out, _ := g.Queue(p, 1)
				if wv, wout := w.queue(p); v != wv || out != wout {
					t.Fatalf("verdict %v for %v, out %v; want %v, %v", v, p, out, wv, wout)
				}
			case 1:
				if w.busy > 0 {
					g.Depart()
					w.busy--
					grant()
				}
			case 2:
				if i := int(e/4) % limit; i < len(w.list) {
					p := w.list[i]
					if !g.Leave(p) || g.Leave(p) {
						t.Fatal("leaving did not take the place out exactly once")
					}
					w.remove(p)
				}
			case 3:
				w.slots = int(e/4) % 5
				g.Resize(w.slots)
				grant()
			}
			if g.Waiting() != len(w.list) || g.Busy() != w.busy {
				t.Fatalf("%d waiting, %d busy; want %d, %d", g.Waiting(), g.Busy(), len(w.list), w.busy)
			}
		}
	})
}

// BenchmarkQueue is what an arrival costs that finds the queue full and a slot
// that comes back, with one caller and with many.
func BenchmarkQueue(b *testing.B) {
	for _, callers := range []int{1, 100} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			g := NewGate(1000)
			places := make([]Place, 2000)
			names := make([]string, callers)
			for i := range names {
				names[i] = fmt.Sprint(i)
			}
			now := scorer.Instant(1)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				now += 1000
				p := &places[i%len(places)]
				g.Leave(p)
				*p = Place{Class: Normal, Caller: names[i%callers], Deadline: now.Add(time.Millisecond)}
				g.Queue(p, now)
				g.Resize(g.Busy() + i%2)
				g.Grant(now)
			}
		})
	}
}
