package admit

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
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
				*s = script{gate: NewGate(limit), places: map[string]*Place{}}
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
}

func (s *script) do(words []string) string {
	result := ""
	switch words[0] {
	case "arrive":
		p := &Place{Owner: words[1]}
		s.places[words[1]] = p
		result = [...]string{"granted", "queued", "full"}[s.gate.Arrive(p)]
	case "depart":
		s.gate.Depart()
		result = s.granted(s.gate.Grant())
	case "leave":
		result = fmt.Sprint(s.gate.Leave(s.places[words[1]]))
	case "resize":
		var n int
		fmt.Sscan(words[1], &n)
		s.gate.Resize(n)
		for p := s.gate.Grant(); p != nil; p = s.gate.Grant() {
			result += s.granted(p) + " "
		}
	}
	return fmt.Sprintf("%s [%d of %d busy, %d waiting]", strings.TrimSpace(result), s.gate.Busy(), s.gate.Slots(), s.gate.Waiting())
}

func (s *script) granted(p *Place) string {
	if p == nil {
		return "nobody"
	}
	return p.Owner.(string)
}

// FuzzGate plays arbitrary events and holds the gate against a plain slice.
func FuzzGate(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 2, 3})
	f.Add([]byte{3, 0, 0, 0, 0, 0, 1, 1, 2, 1})
	f.Fuzz(func(t *testing.T, events []byte) {
		const limit = 4
		g := NewGate(limit)
		var queue []*Place // the dumb twin
		slots, busy := 0, 0
		grant := func() {
			for busy < slots && len(queue) > 0 {
				if p := g.Grant(); p != queue[0] {
					t.Fatalf("granted %v, want the first of %d", p, len(queue))
				}
				queue, busy = queue[1:], busy+1
			}
			if g.Grant() != nil {
				t.Fatal("granted without a free slot or without anybody waiting")
			}
		}
		for _, e := range events {
			switch e % 4 {
			case 0:
				p := &Place{}
				switch v := g.Arrive(p); {
				case busy < slots && len(queue) == 0 && v == Granted:
					busy++
				case len(queue) < limit && v == Queued:
					queue = append(queue, p)
				case len(queue) == limit && v == Full:
				default:
					t.Fatalf("verdict %d with %d of %d busy, %d waiting", v, busy, slots, len(queue))
				}
			case 1:
				if busy > 0 {
					g.Depart()
					busy--
					grant()
				}
			case 2:
				if i := int(e/4) % limit; i < len(queue) {
					if !g.Leave(queue[i]) || g.Leave(queue[i]) {
						t.Fatal("leaving did not take the place out exactly once")
					}
					queue = append(queue[:i:i], queue[i+1:]...)
				}
			case 3:
				slots = int(e/4) % 5
				g.Resize(slots)
				grant()
			}
			if g.Waiting() != len(queue) || g.Busy() != busy {
				t.Fatalf("%d waiting, %d busy; want %d, %d", g.Waiting(), g.Busy(), len(queue), busy)
			}
		}
	})
}
