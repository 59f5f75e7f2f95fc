package lane

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice.dev/scorer"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("LANE_TEST_SCORER"); path != "" {
		victim(path)
		return
	}
	goleak.VerifyTestMain(m)
}

// echo answers with the request's body; those of kind Raw only when told to.
type echo struct {
	hold chan struct{}
	held atomic.Int64
}

func (e *echo) Handle(_ int, r *Request) {
	if r.Kind == scorer.Raw {
		e.held.Add(1)
		go func() {
			<-e.hold
			e.reply(r)
		}()
		return
	}
	e.reply(r)
}

func (e *echo) Handled()  {}
func (e *echo) Canceled() {}

func (e *echo) reply(r *Request) {
	r.Reply(&scorer.Response{Body: r.Body, HeadLength: r.HeadLength, Rows: 1, Batch: 2, Queue: 3 * time.Microsecond, Device: 4 * time.Microsecond})
}

var offers = []scorer.Offer{{Endpoint: "digits", Version: "mlp", Window: 64}}

// pair is a server and a client that is connected to it.
type pair struct {
	server  *Server
	client  *Client
	handler *echo
	remotes chan []*Remote
	address string
}

func connect(t testing.TB, network string) *pair {
	e := &echo{hold: make(chan struct{})}
	p := connectTo(t, network, e)
	p.handler = e
	t.Cleanup(func() { close(e.hold) })
	return p
}

func connectTo(t testing.TB, network string, h Handler) *pair {
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "lane")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, l, ServerConfig{}, h)
}

// serve makes a pair of a server at l.
func serve(t testing.TB, l net.Listener, config ServerConfig, h Handler) *pair {
	network := l.Addr().Network()
	p := &pair{remotes: make(chan []*Remote, 1000), address: l.Addr().String()}
	p.server = NewServer(config, h)
	p.server.Announce(offers)
	served := make(chan error, 1)
	go func() { served <- p.server.Serve(l) }()
	p.client = Dial(ClientConfig{Network: network, Address: p.address, OnOffers: func(r []*Remote) { p.remotes <- r }})
	t.Cleanup(func() {
		_ = p.client.Close()
		_ = p.server.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return p
}

// remote waits until the scorer has offered something.
func (p *pair) remote() *Remote {
	for {
		if r := <-p.remotes; len(r) > 0 {
			return r[0]
		}
	}
}

// peer is an end of a connection that writes and reads frames by itself.
type peer struct {
	net.Conn
	t    *testing.T
	read *reader
}

// meet greets n as a peer.
func meet(t *testing.T, n net.Conn) *peer {
	t.Helper()
	t.Cleanup(func() { _ = n.Close() })
	_ = n.SetDeadline(time.Now().Add(20 * time.Second)) // a test that fails does not hang
	p := &peer{n, t, newReader(n)}
	if _, err := n.Write(hello()); err != nil {
		t.Fatal(err)
	}
	if err := p.read.hello(); err != nil {
		t.Fatal(err)
	}
	return p
}

// gateway is a peer of a pair's server.
func (p *pair) gateway(t *testing.T) *peer {
	t.Helper()
	n, err := net.Dial("unix", p.address)
	if err != nil {
		t.Fatal(err)
	}
	return meet(t, n)
}

func (p *peer) send(h header, payload []byte) {
	p.t.Helper()
	h.length = uint32(len(payload))
	if _, err := p.Write(append(h.append(nil), payload...)); err != nil {
		p.t.Fatal(err)
	}
}

// until reads to the next frame of a kind. The payload is valid until the next one.
func (p *peer) until(kind uint8) (h header, payload []byte) {
	p.t.Helper()
	for {
		payload, err := p.read.next(&h)
		if err != nil {
			p.t.Fatalf("instead of a frame of type %d: %v", kind, err)
		}
		if h.kind == kind {
			return h, payload
		}
	}
}

// answered wants the next answer to have a status.
func (p *peer) answered(want scorer.Status) {
	p.t.Helper()
	h, payload := p.until(typeResponse)
	if got := scorer.Status(h.code); got != want || want != scorer.OK && h.flags&flagNotStarted == 0 {
		p.t.Errorf("stream %x was answered %v, flags %d %.80q; want %v", h.stream, got, h.flags, payload, want)
	}
}

// asker makes requests, one at a time.
type asker struct {
	req  scorer.Request
	resp scorer.Response
}

func newAsker() *asker {
	a := &asker{}
	a.req = scorer.Request{Wait: scorer.NewWaiter(), Deadline: scorer.Now().Add(time.Hour)}
	return a
}

func (a *asker) ask(r *Remote, kind scorer.Kind, body []byte) scorer.Status {
	a.req.Kind, a.req.Body = kind, body
	a.resp.Reset()
	r.Score(&a.req, &a.resp)
	return a.resp.Status
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("never %s", what)
		}
	}
}

func TestARequestComesBackWhole(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		r := connect(t, network).remote()
		for _, size := range []int{0, 1, 500, chunk - 1, chunk, chunk + 1, 3*chunk + 7, 5 << 20} {
			a := newAsker()
			a.req.HeadLength = size / 2
			a.req.Trace = scorer.Trace{Flags: 1}
			body := bytes.Repeat([]byte("0123456"), size/7+1)[:size]
			if s := a.ask(r, scorer.OIP, body); s != scorer.OK || !bytes.Equal(a.resp.Body, body) {
				t.Errorf("%s: %d bytes came back as %v with %d bytes", network, size, s, len(a.resp.Body))
			}
			if got := a.resp; got.HeadLength != size/2 || got.Rows != 1 || got.Batch != 2 || got.Queue != 3*time.Microsecond || got.Device != 4*time.Microsecond {
				t.Errorf("%s: the answer says %+v", network, got)
			}
		}
	}
}

func TestAnOlderScorerIsNotSentWhatItDoesNotKnow(t *testing.T) {
	p := connect(t, "unix")
	r, a := p.remote(), newAsker()
	if got := a.ask(r, scorer.Stats, nil); got != scorer.Unsupported {
		t.Errorf("a scorer that names no kinds was asked for statistics: %v", got)
	}
	newer := offers[0]
	newer.Kinds = scorer.Kinds
	p.server.Announce([]scorer.Offer{newer})
	for !func() bool { o := r.Offer(); return o.Knows(scorer.Stats) }() {
		<-p.remotes
	}
	if got := a.ask(r, scorer.Stats, nil); got != scorer.OK {
		t.Errorf("a scorer that knows statistics was not asked: %v", got)
	}
}

// keeper is echo, and keeps the last request.
type keeper struct {
	echo
	last scorer.Request
}

func (k *keeper) Handle(offer int, r *Request) {
	k.last = r.Request
	k.last.ID, k.last.State = bytes.Clone(r.ID), bytes.Clone(r.State)
	k.echo.Handle(offer, r)
}

func TestWhatARequestSaysOfItselfArrives(t *testing.T) {
	k := &keeper{}
	r := connectTo(t, "unix", k).remote()
	long := bytes.Repeat([]byte("0123456789"), 60)
	f := func(size int, trace scorer.Trace, class scorer.Class, flow uint32, id, state []byte) {
		t.Helper()
		a, body := newAsker(), bytes.Repeat([]byte("b"), size)
		a.req.Trace, a.req.Class, a.req.Flow, a.req.ID, a.req.State = trace, class, flow, id, state
		if s := a.ask(r, scorer.OIP, body); s != scorer.OK || !bytes.Equal(a.resp.Body, body) {
			t.Errorf("%d bytes came back as %v with %d bytes", size, s, len(a.resp.Body))
		}
		got := &k.last
		if got.Trace != trace || got.Class != class || got.Flow != flow || !bytes.Equal(got.ID, id[:min(len(id), scorer.MaxID)]) || !bytes.Equal(got.State, state[:min(len(state), scorer.MaxState)]) {
			t.Errorf("%v %d %d %q %q arrived as %+v", trace, class, flow, id, state, got)
		}
	}
	traced := scorer.Trace{TraceID: [16]byte{1, 15: 16}, SpanID: [8]byte{17, 7: 24}, Flags: 1}
	for _, size := range []int{0, 1, chunk, chunk + 1, 3 * chunk} {
		f(size, traced, -2, 1<<32-1, []byte("an id"), []byte("vendor=x"))
		f(size, scorer.Trace{}, 1, 0, nil, nil)
		f(size, traced, 0, 7, nil, long[:scorer.MaxState])
		f(size, scorer.Trace{}, scorer.HighestClass, 7, long[:scorer.MaxID], nil)
		f(size, traced, 0, 7, long, long)
	}
}

// Of an older scorer the names stay here, and what it does not look at does no harm.
func TestAnOlderScorerIsSentNoNames(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "lane"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	offered := make(chan []*Remote, 10)
	c := Dial(ClientConfig{Network: "unix", Address: l.Addr().String(), OnOffers: func(r []*Remote) { offered <- r }})
	defer c.Close()
	n, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	payload := []byte(`[{"number":3,"endpoint":"e","version":"v","window":4}]`) // as the first release writes it
	offers := header{kind: typeOffers, length: uint32(len(payload))}
	_, _ = n.Write(append(offers.append(hello()), payload...))
	r := (<-offered)[0]
	a := newAsker()
	a.req.Trace, a.req.Class, a.req.Flow, a.req.ID, a.req.State = scorer.Trace{Flags: 1}, 1, 7, []byte("an id"), []byte("vendor=x")
	done := make(chan scorer.Status)
	go func() { done <- a.ask(r, scorer.OIP, []byte("body")) }()
	read := newReader(n)
	if err := read.hello(); err != nil {
		t.Fatal(err)
	}
	var h header
	p, err := read.next(&h)
	if err != nil || h.kind != typeRequest || h.flags != flagTrace || h.offer != 3 || string(p[traceSize:]) != "body" {
		t.Errorf("got %+v %q, %v", h, p, err)
	}
	answer := header{kind: typeResponse, stream: h.stream, length: 2, total: 2}
	_, _ = n.Write(append(answer.append(nil), "ok"...))
	if s := <-done; s != scorer.OK || string(a.resp.Body) != "ok" {
		t.Errorf("answered %v %q", s, a.resp.Body)
	}
}

// A request of an older gateway is a normal one of nobody in particular.
func TestAnOlderGatewayIsServed(t *testing.T) {
	k := &keeper{last: scorer.Request{Class: 1, Flow: 1, ID: []byte("another")}}
	n, err := net.Dial("unix", connectTo(t, "unix", k).address)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	request := header{kind: typeRequest, flags: flagTrace, stream: 1 << 16, left: 1e6, length: traceSize + 4, total: 4}
	frame := append(append(request.append(hello()), make([]byte, traceSize)...), "body"...)
	if _, err := n.Write(frame); err != nil {
		t.Fatal(err)
	}
	read := newReader(n)
	if err := read.hello(); err != nil {
		t.Fatal(err)
	}
	for {
		var h header
		p, err := read.next(&h)
		if err != nil {
			t.Fatal(err)
		}
		if h.kind != typeResponse {
			continue // offers
		}
		if scorer.Status(h.code) != scorer.OK || string(p) != "body" || k.last.Class != 0 || k.last.Flow != 0 || len(k.last.ID)+len(k.last.State) != 0 {
			t.Errorf("answered %v %q; the request was %+v", scorer.Status(h.code), p, k.last)
		}
		return
	}
}

func TestManyCallersGetTheirOwnAnswers(t *testing.T) {
	r := connect(t, "unix").remote()
	var wg sync.WaitGroup
	for g := range 32 {
		wg.Go(func() {
			a := newAsker()
			for i := range 300 {
				body := fmt.Appendf(nil, "caller %d, request %d", g, i)
				if i%100 == 99 {
					body = bytes.Repeat(body, 10_000)
				}
				if s := a.ask(r, scorer.OIP, body); s != scorer.OK || !bytes.Equal(a.resp.Body, body) {
					t.Errorf("%q came back as %v %.40q", body, s, a.resp.Body)
				}
			}
		})
	}
	wg.Wait()
}

func TestALargeBodyDoesNotHoldUpSmallOnes(t *testing.T) {
	r := connect(t, "unix").remote()
	large, done := make([]byte, 100<<20), make(chan scorer.Status)
	go func() { done <- newAsker().ask(r, scorer.OIP, large) }()
	small, answered := newAsker(), 0
	for {
		select {
		case s := <-done:
			if s != scorer.OK || answered < 20 {
				t.Errorf("the large one got %v after %d small ones", s, answered)
			}
			return
		default:
		}
		if s := small.ask(r, scorer.OIP, []byte("small")); s != scorer.OK {
			t.Fatalf("a small one got %v", s)
		}
		answered++
	}
}

func TestAnAbandonedRequestIsCancelled(t *testing.T) {
	p := connect(t, "unix")
	r := p.remote()
	a := newAsker()
	done := make(chan scorer.Status)
	go func() { done <- a.ask(r, scorer.Raw, []byte("x")) }()
	until(t, "held", func() bool { return p.handler.held.Load() == 1 })
	if !a.req.Wait.Abandon() {
		t.Fatal("nothing to abandon")
	}
	if s := <-done; s != scorer.Canceled {
		t.Errorf("got %v", s)
	}
	p.handler.hold <- struct{}{} // the late answer goes nowhere
	if s := a.ask(r, scorer.OIP, []byte("next")); s != scorer.OK || string(a.resp.Body) != "next" {
		t.Errorf("the next request got %v %q", s, a.resp.Body)
	}
}

func TestAbandoningAtAnyTimeIsSafe(t *testing.T) {
	r := connect(t, "unix").remote()
	var wg sync.WaitGroup
	for g := range 8 {
		a := newAsker()
		var stop atomic.Bool
		wg.Go(func() {
			defer stop.Store(true)
			for i := range 400 {
				body := bytes.Repeat([]byte{byte(i)}, 1+i%3*chunk)
				if s := a.ask(r, scorer.OIP, body); s == scorer.OK && !bytes.Equal(a.resp.Body, body) {
					t.Errorf("caller %d got the answer of another", g)
				}
				clear(body) // what was abandoned is not read any more
			}
		})
		wg.Go(func() {
			for !stop.Load() {
				a.req.Wait.Abandon()
				runtime.Gosched()
			}
		})
	}
	wg.Wait()
}

func TestDrainAnswersEverything(t *testing.T) {
	p := connect(t, "unix")
	r := p.remote()
	done := make(chan scorer.Status)
	go func() { done <- newAsker().ask(r, scorer.Raw, []byte("x")) }()
	until(t, "held", func() bool { return p.handler.held.Load() == 1 })
	drained := make(chan error)
	go func() { drained <- p.server.Drain(context.Background()) }()
	if r := <-p.remotes; len(r) != 0 {
		t.Errorf("a leaving scorer offers %v", r)
	}
	a := newAsker()
	if s := a.ask(r, scorer.OIP, []byte("y")); s != scorer.Unavailable || !a.resp.NotStarted {
		t.Errorf("a request to a leaving scorer got %v, not started %v", s, a.resp.NotStarted)
	}
	p.handler.hold <- struct{}{}
	if s := <-done; s != scorer.OK {
		t.Errorf("the request in flight got %v", s)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

func TestOffersFollowTheServer(t *testing.T) {
	p := connect(t, "tcp")
	first := p.remote()
	p.server.Announce(append(offers, scorer.Offer{Endpoint: "digits", Version: "new", Window: 8}))
	if r := <-p.remotes; len(r) != 2 || r[0] != first || r[1].Offer().Version != "new" {
		t.Errorf("offered %v", r)
	}
	second := Dial(ClientConfig{Network: "tcp", Address: p.address, OnOffers: func([]*Remote) {}})
	if r := <-p.remotes; r[0].Offer().Window != 32 {
		t.Errorf("with two gateways each has a window of %d; want 32", r[0].Offer().Window)
	}
	_ = second.Close()
	if r := <-p.remotes; r[0].Offer().Window != 64 {
		t.Errorf("with one gateway again it has a window of %d; want 64", r[0].Offer().Window)
	}
}

func TestWhoDoesNotSayHelloGetsNoShare(t *testing.T) {
	p := connect(t, "tcp")
	p.remote()
	stranger, err := net.Dial("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if _, err := stranger.Read(make([]byte, 1)); err != nil { // it is known, then
		t.Fatal(err)
	}
	p.server.Announce(offers)
	if r := <-p.remotes; r[0].Offer().Window != 64 {
		t.Errorf("beside a stranger the gateway has a window of %d; want 64", r[0].Offer().Window)
	}
}

func listenUnix(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "lane"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A body is counted until its request is answered or given up, once, however it came.
func TestBodiesOfAConnectionAreBounded(t *testing.T) {
	const size, most = 60_000, 3*60_000 + 1
	e := &echo{hold: make(chan struct{})}
	p := serve(t, listenUnix(t), ServerConfig{MaxHeld: most}, e)
	g, body := p.gateway(t), make([]byte, 4*size)
	ask := func(stream int, kind scorer.Kind, size int) {
		h := header{kind: typeRequest, stream: uint32(stream + 1<<16), code: uint8(kind), left: 1e9, total: uint32(size)}
		for size > 1 {
			n := min(size/2, chunk)
			h.flags = flagMore
			g.send(h, body[:n])
			h.kind, size = typeData, size-n
		}
		h.flags = 0
		g.send(h, body[:size])
	}
	for range 5 { // in parts though a frame would do
		ask(0, scorer.OIP, size)
		g.answered(scorer.OK)
	}
	for range 5 { // given up in mid-body
		h := header{kind: typeRequest, flags: flagMore, stream: 1 << 16, total: size}
		g.send(h, body[:size/2])
		g.send(header{kind: typeCancel, stream: 1 << 16}, nil)
	}
	for range 5 { // more than a chunk, in one frame
		g.send(header{kind: typeRequest, stream: 1 << 16, total: chunk + 100}, body[:chunk+100])
		g.answered(scorer.OK)
	}
	for i := range 3 {
		ask(i, scorer.Raw, size)
	}
	ask(3, scorer.OIP, size)
	g.answered(scorer.Overloaded)
	ask(3, scorer.OIP, 1)
	g.answered(scorer.OK)
	close(e.hold)
	for range 3 {
		g.answered(scorer.OK)
	}
	ask(4, scorer.OIP, most+1) // alone
	g.until(typeData)
}

// shelf keeps requests, and runs none.
type shelf struct {
	instant
	put chan *Request
}

func (s *shelf) Handle(_ int, r *Request) {
	r.Begin(s)
	s.put <- r
}

func (s *shelf) Withdraw() bool { return true }

func TestWhatWaitsIsWithdrawn(t *testing.T) {
	s := &shelf{put: make(chan *Request, 3)}
	p := connectTo(t, "unix", s)
	g := p.gateway(t)
	for i := range uint32(3) {
		g.send(header{kind: typeRequest, stream: 1<<16 + i, left: 1e9, total: 1}, []byte("x"))
	}
	until(t, "waiting", func() bool { return len(s.put) == 3 })
	g.send(header{kind: typeCancel, stream: 1 << 16}, nil)
	until(t, "withdrawn", func() bool { return p.server.inFlight.Load() == 2 })
	_ = g.Close()
	until(t, "withdrawn with their connection", func() bool { return p.server.inFlight.Load() == 0 })
}

// What is not yet sent of an answer that nobody waits for is not sent.
func TestACancelledAnswerIsNotSentOn(t *testing.T) {
	g := connectTo(t, "unix", wide(16<<20)).gateway(t)
	g.send(header{kind: typeRequest, stream: 1 << 16, left: 1e9}, nil)
	g.until(typeResponse)
	g.send(header{kind: typeCancel, stream: 1 << 16}, nil)
	g.send(header{kind: typePing}, nil)
	g.until(typePong)
	g.send(header{kind: typePing}, nil)
	var h header
	if _, err := g.read.next(&h); err != nil || h.kind != typePong {
		t.Errorf("a frame of type %d came, %v", h.kind, err)
	}
}

// wide answers with so many bytes.
type wide int

func (wide) Handled()  {}
func (wide) Canceled() {}

func (w wide) Handle(_ int, r *Request) { r.Reply(&scorer.Response{Body: make([]byte, w)}) }

// A scorer that answers before it has the whole request leaves the rest of it, which may
// be another request's memory by then.
func TestNothingIsSentOfAnAnsweredRequest(t *testing.T) {
	l := listenUnix(t)
	defer l.Close()
	offered := make(chan []*Remote, 10)
	c := Dial(ClientConfig{Network: "unix", Address: l.Addr().String(), OnOffers: func(r []*Remote) { offered <- r }})
	defer c.Close()
	n, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s := meet(t, n)
	s.send(header{kind: typeOffers}, []byte(`[{"number":3,"endpoint":"e","version":"v","window":4}]`))
	a, body := newAsker(), bytes.Repeat([]byte("a"), 16<<20)
	r, done := (<-next(offered))[0], make(chan scorer.Status)
	go func() { done <- a.ask(r, scorer.OIP, body) }()
	h, _ := s.until(typeRequest)
	s.send(header{kind: typeResponse, stream: h.stream}, nil)
	if got := <-done; got != scorer.OK {
		t.Fatalf("got %v", got)
	}
	copy(body, bytes.Repeat([]byte("b"), len(body)))
	for {
		var h header
		p, err := s.read.next(&h)
		if err != nil || bytes.IndexByte(p, 'b') >= 0 {
			t.Fatalf("%d bytes came, %v, of memory that is another's", len(p), err)
		}
		if h.kind == typeCancel {
			return
		}
	}
}

// scarce is a listener that cannot accept while there are failures.
type scarce struct {
	net.Listener
	failures atomic.Int64
	failed   chan struct{} // one each
}

func (l *scarce) Accept() (net.Conn, error) {
	if l.failures.Add(-1) >= 0 {
		l.failed <- struct{}{}
		return nil, &net.OpError{Op: "accept", Net: "unix", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func listenScarce(t *testing.T, failures int64) *scarce {
	s := &scarce{Listener: listenUnix(t), failed: make(chan struct{}, failures)}
	s.failures.Store(failures)
	return s
}

func TestAConnectionThatCannotBeAcceptedEndsNothing(t *testing.T) {
	l := listenScarce(t, 3)
	p := serve(t, l, ServerConfig{}, &echo{})
	if s := newAsker().ask(p.remote(), scorer.OIP, []byte("x")); s != scorer.OK || len(l.failed) != 3 {
		t.Errorf("after %d failures got %v", len(l.failed), s)
	}
}

// Without an end to the pause it would try again for ever.
func TestCloseEndsThePauseOfAServerThatCannotAccept(t *testing.T) {
	l := listenScarce(t, 1<<20)
	s, served := NewServer(ServerConfig{}, &echo{}), make(chan error)
	go func() { served <- s.Serve(l) }()
	for range 3 {
		<-l.failed
	}
	_ = s.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestAPeerThatStopsReadingHoldsUpNobodyForLong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lane")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	offered := make(chan []*Remote, 10)
	c := Dial(ClientConfig{Network: "unix", Address: path, OnOffers: func(r []*Remote) { offered <- r }})
	defer c.Close()
	n, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	payload := []byte(`[{"number":0,"endpoint":"e","version":"v","window":4}]`)
	h := header{kind: typeOffers, length: uint32(len(payload))}
	_, _ = n.Write(append(h.append(hello()), payload...)) // and then it never reads
	r := (<-offered)[0]
	var wg sync.WaitGroup
	for range 8 {
		a := newAsker()
		wg.Go(func() {
			if s := a.ask(r, scorer.OIP, make([]byte, 1<<20)); s != scorer.Canceled {
				t.Errorf("got %v", s)
			}
		})
		until(t, "waiting", a.req.Wait.Abandon)
	}
	wg.Wait()
}

// What a caller is writing is not touched by the writer of a connection that died
// meanwhile, and what was not taken is not said to be sent.
func TestTheWriterOfADeadConnectionTakesNothing(t *testing.T) {
	c := &conn{turn: caller, buf: []byte("next"), out: []byte("being written"), batch: 7, dead: true}
	c.ready.L = &c.mu
	if c.gather() || string(c.out) != "being written" || string(c.buf) != "next" || c.batch != 7 {
		t.Errorf("out is %q, buf %q, batch %d", c.out, c.buf, c.batch)
	}
}

// instant answers before Handle returns.
type instant struct{}

func (instant) Handled()  {}
func (instant) Canceled() {}

func (instant) Handle(_ int, r *Request) { r.Reply(&scorer.Response{Body: r.Body}) }

// victim is a scorer process that answers nothing of kind Raw.
func victim(path string) {
	l, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	s := NewServer(ServerConfig{}, &echo{hold: make(chan struct{})})
	s.Announce(offers)
	_ = s.Serve(l)
}

// A scorer is killed in the middle of its work, twice: every request gets an
// answer, and those that certainly never began say so.
func TestAKilledScorerLosesNoRequest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lane")
	offered := make(chan []*Remote, 100)
	c := Dial(ClientConfig{Network: "unix", Address: path, OnOffers: func(r []*Remote) { offered <- r }})
	defer c.Close()
	for range 2 {
		cmd := startVictim(t, path)
		killScorerUnderLoad(t, (<-next(offered))[0], cmd)
		_ = os.Remove(path)
	}
}

// startVictim runs a scorer in a process of its own.
func startVictim(t *testing.T, path string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LANE_TEST_SCORER="+path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// next passes on the offers of which there are some.
func next(offered <-chan []*Remote) <-chan []*Remote {
	some := make(chan []*Remote, 1)
	for list := range offered {
		if len(list) > 0 {
			some <- list
			break
		}
	}
	return some
}

// A scorer that is stopped is left out within a second or two, and taken back when
// it goes on; what it had is answered then.
func TestAScorerThatDoesNotAnswerIsLeftOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lane")
	offered := make(chan []*Remote, 100)
	c := Dial(ClientConfig{Network: "unix", Address: path, OnOffers: func(r []*Remote) { offered <- r }})
	defer c.Close()
	cmd := startVictim(t, path)
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	r := (<-next(offered))[0]
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	answered := make(chan scorer.Status, 1)
	go func() { answered <- newAsker().ask(r, scorer.OIP, []byte("x")) }()
	if list := <-offered; len(list) != 0 {
		t.Errorf("a scorer that does not answer offers %d versions", len(list))
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if list := <-offered; len(list) != 1 || list[0] != r {
		t.Errorf("when it goes on it offers %v", list)
	}
	if s := <-answered; s != scorer.OK {
		t.Errorf("what it had was answered %v", s)
	}
}

func killScorerUnderLoad(t *testing.T, r *Remote, cmd *exec.Cmd) {
	t.Helper()
	const callers = 32
	var wg sync.WaitGroup
	var ok, lost, unstarted, asked atomic.Int64
	for g := range callers {
		wg.Go(func() {
			a := newAsker()
			for {
				kind := scorer.OIP
				if g%4 == 0 {
					kind = scorer.Raw // in mid-work for ever
				}
				asked.Add(1)
				switch s := a.ask(r, kind, make([]byte, 500)); {
				case s == scorer.OK:
					ok.Add(1)
					continue
				case s == scorer.ModelFailed && !a.resp.NotStarted:
					lost.Add(1)
				case s == scorer.Unavailable && a.resp.NotStarted:
					unstarted.Add(1)
				default:
					t.Errorf("got %v, not started %v", s, a.resp.NotStarted)
				}
				return
			}
		})
	}
	until(t, "under load", func() bool { return ok.Load() > 2000 })
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	wg.Wait()
	if got := ok.Load() + lost.Load() + unstarted.Load(); got != asked.Load() || lost.Load() < callers/4 {
		t.Errorf("%d asked; %d answered, %d lost in mid-work, %d never begun", asked.Load(), ok.Load(), lost.Load(), unstarted.Load())
	}
}

// FuzzServer and FuzzClient feed one side arbitrary bytes after the greeting: it
// closes the connection or goes on, and never panics or hangs.
func FuzzServer(f *testing.F) {
	request := header{kind: typeRequest, stream: 1 << 16, left: 1000, length: 3, total: 3}
	f.Add(append(request.append(nil), "abc"...))
	named := header{kind: typeRequest, flags: flagTrace | flagNames, stream: 1 << 16, length: traceSize + 8, total: 3, running: 2<<8 | 3<<16}
	f.Add(append(append(named.append(nil), make([]byte, traceSize)...), "idabcabc"...))
	more := header{kind: typeRequest, flags: flagMore, stream: 1 << 16, length: 3, total: 5}
	data := header{kind: typeData, stream: 1 << 16, length: 2}
	f.Add(append(data.append(append(more.append(nil), "abc"...)), "de"...))
	cancel := header{kind: typeCancel, stream: 1 << 16}
	f.Add(cancel.append(append(more.append(nil), "abc"...)))
	ping, list := header{kind: typePing}, header{kind: typeOffers, length: maxOffers}
	f.Add(list.append(ping.append(ping.append(nil))))
	again := header{kind: typeRequest, flags: flagMore, stream: 2 << 16, length: 3, total: 5} // beside one of the same place
	f.Add(append(again.append(append(more.append(nil), "abc"...)), "abc"...))
	f.Add(append(more.append(cancel.append(append(more.append(nil), "abc"...))), "ab"...)) // and cut off
	f.Fuzz(func(t *testing.T, b []byte) {
		s := NewServer(ServerConfig{MaxBody: 1 << 16, MaxHeld: 1 << 17}, instant{})
		s.Announce(offers)
		here, there := net.Pipe()
		s.start(here)
		s.mu.Lock()
		var c *serverConn
		for c = range s.conns {
		}
		s.mu.Unlock()
		feed(there, b)
		_ = s.Close()
		if n := s.inFlight.Load(); n != 0 || c.bodies != 0 {
			t.Errorf("%d requests in flight at the end, %d bytes", n, c.bodies)
		}
	})
}

func FuzzClient(f *testing.F) {
	response := header{kind: typeResponse, stream: 1 << 16, length: 3, total: 3}
	f.Add(append(response.append(nil), "abc"...))
	list := header{kind: typeOffers, length: 2}
	f.Add(append(list.append(nil), "[]"...))
	never := header{kind: typeResponse, stream: 9<<16 | 7, length: 3, total: 3}
	f.Add(append(never.append(nil), "abc"...))
	more := header{kind: typeResponse, flags: flagMore, stream: 1 << 16, length: 3, total: 5}
	data := header{kind: typeData, stream: 1 << 16, length: 2}
	f.Add(append(more.append(append(data.append(append(more.append(nil), "abc"...)), "de"...)), "abc"...)) // and again
	huge := header{kind: typeResponse, flags: flagMore, stream: 1 << 16, total: 1<<32 - 1}
	f.Add(huge.append(nil))
	f.Add(append(list.append(nil), "[{"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		here, there := net.Pipe()
		c := &clientConn{conn: newConn(here, nil), client: &Client{config: ClientConfig{MaxBody: 1 << 16, OnOffers: func([]*Remote) {}}}, remotes: map[uint32]*Remote{}}
		r := &Remote{conn: c}
		r.offer.Store(&numbered{})
		done := make(chan scorer.Status)
		go func() { done <- newAsker().ask(r, scorer.OIP, []byte("x")) }()
		ended := make(chan struct{})
		go func() {
			c.fail(c.serve())
			c.abandonAll()
			c.tasks.Wait()
			close(ended)
		}()
		feed(there, b)
		<-ended
		<-done
	})
}

// feed sends a greeting and b, reads what comes, and closes.
func feed(n net.Conn, b []byte) {
	go func() { _, _ = io.Copy(io.Discard, n) }()
	_, _ = n.Write(append(hello(), b...))
	_ = n.Close()
}

func FuzzHeader(f *testing.F) {
	h := header{kind: typeRequest, length: 3, total: 3}
	f.Add(h.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h header
		if len(b) < headerSize || h.parse(b[:headerSize]) != nil {
			return
		}
		if again := h.append(nil); !bytes.Equal(again, b[:headerSize]) {
			t.Errorf("%x became %x", b[:headerSize], again)
		}
		if binary.LittleEndian.Uint32(b) != h.length {
			t.Error("the length is not the first field")
		}
	})
}

func BenchmarkScore(b *testing.B) {
	for _, network := range []string{"unix", "tcp"} {
		for _, callers := range []int{1, 8, 32} {
			b.Run(fmt.Sprintf("%s/callers=%d", network, callers), func(b *testing.B) {
				r := connect(b, network).remote()
				var wg sync.WaitGroup
				b.ReportAllocs()
				b.ResetTimer()
				for range callers {
					wg.Go(func() {
						a, body := newAsker(), make([]byte, 500)
						for range b.N / callers {
							a.ask(r, scorer.OIP, body)
						}
					})
				}
				wg.Wait()
			})
		}
	}
}
