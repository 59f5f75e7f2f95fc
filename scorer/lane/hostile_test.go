package lane

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice.dev/scorer"
)

// serverOf is a server's only connection, once it has said hello.
func serverOf(t *testing.T, s *Server) (c *serverConn) {
	t.Helper()
	until(t, "connected", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for c = range s.conns {
		}
		return c != nil && c.greeted
	})
	return c
}

// alone is a server with a handler and no gateway but a peer.
func alone(t *testing.T, config ServerConfig, h Handler) (*serverConn, *peer) {
	t.Helper()
	s, l := NewServer(config, h), listenUnix(t)
	s.Announce(offers)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	g := (&pair{address: l.Addr().String()}).gateway(t)
	return serverOf(t, s), g
}

// A peer that reads a little now and then is not waited for; one that reads slowly is.
func TestASlowReaderIsGivenTimeByTheMegabyte(t *testing.T) {
	f := func(every time.Duration, want error) {
		synctest.Test(t, func(t *testing.T) {
			here, there := net.Pipe()
			c := newConn(here, nil)
			c.mu.Lock()
			c.frame(&header{kind: typeResponse}, nil, make([]byte, 8<<20))
			c.wake()
			c.mu.Unlock()
			var reading sync.WaitGroup
			reading.Go(func() {
				buf, err := make([]byte, chunk), error(nil)
				for err == nil {
					_, err = there.Read(buf)
					time.Sleep(every) // of synctest's time, as below
				}
			})
			for !c.flushed() {
				time.Sleep(time.Second)
			}
			c.fail(nil)
			c.tasks.Wait()
			reading.Wait()
			if !errors.Is(c.reason, want) {
				t.Errorf("a read every %v: %v; want %v", every, c.reason, want)
			}
		})
	}
	f(time.Second/5, nil)
	f(2*time.Second, errStalled)
}

// counter counts requests, and answers with so many bytes.
type counter struct {
	instant
	size int
	got  atomic.Int64
}

func (c *counter) Handle(_ int, r *Request) {
	r.Reply(&scorer.Response{Body: make([]byte, c.size)})
	c.got.Add(1)
}

// Of a gateway that only asks no more is read than there is room for its answers.
func TestAPeerThatOnlyAsksIsNotReadFrom(t *testing.T) {
	h := &counter{size: chunk}
	c, g := alone(t, ServerConfig{}, h)
	_ = g.SetWriteDeadline(time.Now().Add(time.Second / 2)) // when nothing has been read for long
	var err error
	for i := uint32(0); err == nil && h.got.Load() < 2000; i++ {
		head := header{kind: typeRequest, stream: 1<<16 + i%maxSlots, length: 4096, total: 4096}
		_, err = g.Write(append(head.append(nil), make([]byte, 4096)...))
	}
	c.mu.Lock()
	owed := c.owed()
	c.mu.Unlock()
	if !errors.Is(err, os.ErrDeadlineExceeded) || owed > maxUnread+64*chunk {
		t.Errorf("%d were answered, %d bytes wait, %v", h.got.Load(), owed, err)
	}
	_ = g.SetReadDeadline(time.Now().Add(20 * time.Second))
	for range h.got.Load() {
		g.until(typeResponse) // when it reads, it goes on
	}
}

func TestAnswersThatAreNotReadAreBounded(t *testing.T) {
	h := &counter{size: 1 << 20}
	c, g := alone(t, ServerConfig{MaxHeld: 4 << 20}, h)
	const asked = 100
	for i := range uint32(asked) {
		g.send(header{kind: typeRequest, stream: 1<<16 + i}, nil)
	}
	until(t, "answered", func() bool { return h.got.Load() == asked })
	c.mu.Lock()
	owed := c.owed()
	c.mu.Unlock()
	got := map[scorer.Status]int{}
	for range asked {
		h, _ := g.until(typeResponse)
		got[scorer.Status(h.code)]++
	}
	if owed > 6<<20 || got[scorer.OK] < 4 || got[scorer.OK]+got[scorer.Overloaded] != asked {
		t.Errorf("answered %v, %d bytes waited", got, owed)
	}
}

func TestPingsAreAnsweredTogether(t *testing.T) {
	c := &conn{turn: writer}
	c.ready.L, c.room.L = &c.mu, &c.mu
	var ping bytes.Buffer
	for range 1000 {
		ping.Write((&header{kind: typePing}).append(nil))
	}
	c.read = newReader(&ping)
	for h := (header{}); ; {
		if _, err := c.next(&h); err != nil {
			break
		}
	}
	if len(c.buf) != headerSize {
		t.Errorf("%d bytes answer pings that came together", len(c.buf))
	}
	if c.take(); len(c.out) != headerSize || c.ponged {
		t.Errorf("the next ping is not answered")
	}
}

// What a peer says that is no lane, or none of a gateway, ends its connection, and only
// that.
func TestGarbageEndsItsConnectionAlone(t *testing.T) {
	p := connect(t, "unix")
	r := p.remote()
	request := header{kind: typeRequest, stream: 1 << 16, code: uint8(scorer.Raw), left: 1e6, length: 1, total: 1}
	taken := append(request.append(nil), 'x')
	f := func(what string, garbage []byte) {
		t.Helper()
		g := p.gateway(t)
		if _, err := g.Write(garbage); err != nil {
			t.Fatal(err)
		}
		for {
			var h header
			if _, err := g.read.next(&h); err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s: the connection goes on", what)
				}
				break
			}
		}
		if s := newAsker().ask(r, scorer.OIP, []byte("y")); s != scorer.OK {
			t.Errorf("%s: another gateway was answered %v", what, s)
		}
	}
	f("noise", bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 9))
	f("a second hello", hello())
	f("offers, of which nothing comes", (&header{kind: typeOffers, length: maxOffers}).append(nil))
	f("a huge frame", (&header{kind: typeData, length: 1<<32 - 1}).append(nil))
	f("an answer", (&header{kind: typeResponse}).append(nil))
	f("a kind of request that there is not", (&header{kind: typeRequest, code: uint8(scorer.Kinds)}).append(nil))
	f("a stream that is in use", append(taken, taken...))
	more := header{kind: typeRequest, flags: flagMore, stream: 1 << 16, total: 5}
	f("more than was declared", append((&header{kind: typeData, flags: flagMore, stream: 1 << 16, length: 6}).append(more.append(nil)), "abcdef"...))
	f("less than was declared", (&header{kind: typeData, stream: 1 << 16}).append(more.append(nil)))
}

// Frames about streams that are over, or never were, are passed over.
func TestFramesAboutNothingArePassedOver(t *testing.T) {
	_, g := alone(t, ServerConfig{}, instant{})
	for _, stream := range []uint32{0, 1, 1 << 16, 1<<32 - 1} {
		g.send(header{kind: typeData, stream: stream}, []byte("x"))
		g.send(header{kind: typeCancel, stream: stream}, nil)
	}
	for range 3 { // one after another it may be used again
		g.send(header{kind: typeRequest, stream: 1<<16 + 1, total: 1}, []byte("x"))
		g.answered(scorer.OK)
		g.send(header{kind: typeCancel, stream: 1<<16 + 1}, nil)
	}
}

func TestAScorerHasSoManyConnections(t *testing.T) {
	p := serve(t, listenUnix(t), ServerConfig{MaxConns: 2}, &echo{})
	r, g := p.remote(), p.gateway(t)
	n, err := net.Dial("unix", p.address)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if b, err := io.ReadAll(n); len(b) > 0 {
		t.Errorf("a third connection was greeted: %d bytes, %v", len(b), err)
	}
	_ = g.Close()
	until(t, "room again", func() bool {
		n, err := net.Dial("unix", p.address)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		return newReader(n).hello() == nil
	})
	if s := newAsker().ask(r, scorer.OIP, nil); s != scorer.OK {
		t.Errorf("got %v", s)
	}
}

// What a scorer offers is bounded, and what it offers no more is forgotten.
func TestAClientForgetsWhatIsNotOffered(t *testing.T) {
	c := &clientConn{client: &Client{config: ClientConfig{OnOffers: func([]*Remote) {}}}, remotes: map[uint32]*Remote{}}
	offer := func(number int) []byte {
		return []byte(`[{"number":7,"endpoint":"e","version":"v","window":4},{"number":` + strconv.Itoa(number) + `}]`)
	}
	var first *Remote
	for n := range 1000 {
		if err := c.offers(offer(8 + n)); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = c.remotes[7]
		}
	}
	if len(c.remotes) != 2 || c.remotes[7] != first {
		t.Errorf("of two offers at a time %d are known", len(c.remotes))
	}
	f := func(what string, p []byte) {
		t.Helper()
		if err := c.offers(p); !errors.Is(err, errFrame) {
			t.Errorf("%s: %v", what, err)
		}
	}
	f("too many", append(append([]byte("[{}"), bytes.Repeat([]byte(",{}"), maxOffered)...), ']'))
	f("no list", []byte(`{}`))
	f("no end", []byte(`[{}`))
	f("nothing", nil)
}
