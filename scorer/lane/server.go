package lane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/scorer"
)

// Handler runs requests.
type Handler interface {
	// Handle begins a request for an offer by its number, which was announced,
	// and must not block: it runs on the connection's reader. It ends with
	// exactly one r.Reply, from any goroutine, perhaps before Handle returns.
	Handle(offer int, r *Request)
	// Handled is called when the requests that came together have been handed to
	// Handle, on the connection's reader. Replies until it returns share a system
	// call.
	Handled()
	// Canceled is called after requests that were handed to Handle, and that could
	// not be withdrawn, have been cancelled, on the connection's reader; it must not
	// block.
	Canceled()
}

// Work is what a handler makes of a request.
type Work = interface {
	// Withdraw takes work back that has not begun, because nobody waits for it any
	// more. True: it is over, without a Reply. It is called between Begin and the end
	// of Reply, on the connection's reader, holding the connection's lock: it must
	// neither block nor Reply.
	Withdraw() bool
}

// ServerConfig configures a Server. The zero value is the default.
type ServerConfig struct {
	MaxBody  int // bytes of a request's body; 0 means 100 MiB
	MaxConns int // connections; further ones are closed; 0 means 1024
	// MaxHeld bounds, in bytes per connection, the bodies of requests that have no
	// answer yet, but of one alone, and what of answers the gateway has not read when
	// another is added; 0 means 1 GiB.
	MaxHeld int
	Log     *slog.Logger // nil is silent
}

// Server is the scorer's end.
type Server struct {
	config  ServerConfig
	handler Handler
	pending sync.WaitGroup // connections
	over    chan struct{}  // closed when closed is set

	mu        sync.Mutex
	offers    []scorer.Offer
	listeners []net.Listener
	conns     map[*serverConn]bool
	closed    bool
	full      bool // said that there are MaxConns
	draining  atomic.Bool
	inFlight  atomic.Int64
	offered   atomic.Int64 // len(offers)
}

// NewServer makes a server that serves nobody yet.
func NewServer(c ServerConfig, h Handler) *Server {
	if c.MaxBody == 0 {
		c.MaxBody = 100 << 20
	}
	if c.MaxConns == 0 {
		c.MaxConns = 1024
	}
	if c.MaxHeld == 0 {
		c.MaxHeld = 1 << 30
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{config: c, handler: h, over: make(chan struct{}), conns: map[*serverConn]bool{}}
}

// The pause after a connection that could not be accepted doubles from the first to
// the last: what the process lacks, such as a file descriptor, comes back.
const (
	firstAccept = 5 * time.Millisecond
	lastAccept  = time.Second
)

// Serve serves l until Close, or until somebody else closes l.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	s.listeners = append(s.listeners, l)
	closed := s.closed
	s.mu.Unlock()
	if closed {
		_ = l.Close()
	}
	pause := firstAccept
	for {
		n, err := l.Accept()
		if err == nil {
			pause = firstAccept
			s.start(n)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		s.config.Log.Error("connection not accepted; the scorer tries again", "address", l.Addr(), "pause", pause, "error", err)
		select {
		case <-s.over:
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, lastAccept)
	}
}

func (s *Server) start(n net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.crowded() {
		_ = n.Close()
		return
	}
	c := &serverConn{conn: newConn(n, nil), server: s}
	c.read.most = 0 // gateways offer nothing
	s.conns[c] = true
	s.pending.Go(func() {
		c.fail(c.serve())
		c.abandonAll()
		c.tasks.Wait()
		s.mu.Lock()
		delete(s.conns, c)
		if c.greeted {
			s.announce()
		}
		s.mu.Unlock()
		s.config.Log.Debug("gateway disconnected", "error", c.reason)
	})
}

// crowded reports whether there are as many connections as there may be, and says so
// once. Holding mu.
func (s *Server) crowded() bool {
	is := len(s.conns) >= s.config.MaxConns
	if is && !s.full {
		s.config.Log.Error("too many connections; further ones are closed", "most", s.config.MaxConns)
	}
	s.full = is
	return is
}

// greet makes a connection that said hello one of those that the windows are shared
// out to. A stranger who only connects takes nothing from gateways.
func (s *Server) greet(c *serverConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.greeted = true
	s.announce()
}

// Announce tells every gateway, now and later, what the scorer offers. An offer's
// index is its number: it must stay the same offer for as long as the server
// lives. One that is not to be used any more has window 0.
func (s *Server) Announce(offers []scorer.Offer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offers = offers
	s.offered.Store(int64(len(offers)))
	s.announce()
}

// announce sends the offers to all who said hello. The windows are shared out evenly.
// Holding mu.
func (s *Server) announce() {
	gateways := 0
	for c := range s.conns {
		if c.greeted {
			gateways++
		}
	}
	if gateways == 0 || s.draining.Load() {
		return
	}
	list := make([]numbered, 0, len(s.offers))
	for i, o := range s.offers {
		if o.Window > 0 {
			o.Window = max(o.Window/gateways, 1)
			list = append(list, numbered{uint32(i), flagNames, o})
		}
	}
	payload, err := json.Marshal(list)
	if err != nil || len(payload) > maxOffers {
		s.config.Log.Error("offers cannot be announced", "bytes", len(payload), "error", err)
		return
	}
	for c := range s.conns {
		if !c.greeted {
			continue
		}
		c.mu.Lock()
		h := header{kind: typeOffers, length: uint32(len(payload))}
		c.buf = append(h.append(c.buf), payload...)
		c.wake()
		c.mu.Unlock()
	}
}

// Drain tells gateways to go elsewhere, and returns when every request is
// answered and sent, or with ctx's error.
func (s *Server) Drain(ctx context.Context) error {
	s.draining.Store(true)
	s.mu.Lock()
	for c := range s.conns {
		c.mu.Lock()
		c.signal(typeGoAway, 0)
		c.mu.Unlock()
	}
	s.mu.Unlock()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !s.idle() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w with %d requests in flight", ctx.Err(), s.inFlight.Load())
		case <-tick.C:
		}
	}
	return nil
}

func (s *Server) idle() bool {
	if s.inFlight.Load() > 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if !c.flushed() {
			return false
		}
	}
	return true
}

// Close ends every connection and listener, and returns when nothing of the
// server runs any more but requests that the handler still has.
func (s *Server) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.over)
	}
	for _, l := range s.listeners {
		_ = l.Close() // ends Serve
	}
	for c := range s.conns {
		c.fail(errClosed)
	}
	s.mu.Unlock()
	s.pending.Wait()
	return nil
}

// serverConn is one connection of a gateway.
type serverConn struct {
	*conn
	server  *Server
	greeted bool // it said hello; guarded by server.mu

	// Guarded by conn.mu.
	streams []*Request // by index
	bodies  int        // bytes of the requests that are counted
}

// Request is a request that came over the lane, lent until Reply. Nobody waits at its
// Wait.
type Request struct {
	scorer.Request

	conn     *serverConn
	work     Work // the reader's; nil if there is none
	stream   uint32
	offer    uint32
	total    int
	refused  *scorer.Error // why its body is read and dropped; nil if it is not
	counted  bool          // total is in conn.bodies; guarded by conn.mu, as is complete
	complete bool
	canceled atomic.Bool
}

var requests = sync.Pool{New: func() any { return new(Request) }}

// Canceled reports whether nobody waits for the answer any more.
func (r *Request) Canceled() bool { return r.canceled.Load() }

// Begin says what the request has become, so that it can be withdrawn. To be called
// before Handle returns, and before Reply.
func (r *Request) Begin(w Work) { r.work = w }

// Reply answers. The request must not be touched after it; resp is lent until it
// returns.
func (r *Request) Reply(resp *scorer.Response) {
	c := r.conn
	h := header{
		kind: typeResponse, stream: r.stream, code: uint8(resp.Status), offer: uint32(resp.Batch), head: uint32(resp.HeadLength),
		left: uint32(resp.Rows), queued: micros(resp.Queue), running: micros(resp.Device),
	}
	if resp.NotStarted {
		h.flags = flagNotStarted
	}
	body := resp.Body
	if len(body) > chunk {
		body = append([]byte(nil), body...) // it goes out after Reply has returned
	}
	c.mu.Lock()
	c.leave(r)
	if !c.dead && !r.canceled.Load() {
		if c.owed() > c.server.config.MaxHeld {
			h = header{kind: typeResponse, stream: r.stream, code: uint8(scorer.Overloaded)}
			body = unread
		}
		c.frame(&h, nil, body)
		c.wake()
	}
	c.mu.Unlock()
	c.server.recycle(r)
}

// recycle ends a request that its connection has forgotten.
func (s *Server) recycle(r *Request) {
	s.inFlight.Add(-1)
	if cap(r.Body) > maxKept {
		return
	}
	*r = Request{Request: scorer.Request{Body: r.Body[:0], ID: r.ID[:0], State: r.State[:0]}}
	requests.Put(r)
}

// serve reads until the connection ends.
func (c *serverConn) serve() error {
	if err := c.read.expectHello(c.net); err != nil {
		return err
	}
	c.server.greet(c)
	defer c.server.handler.Handled()
	for {
		if !c.read.whole() {
			c.handled()
		}
		var h header
		p, err := c.next(&h)
		if err != nil {
			return err
		}
		switch h.kind {
		case typeRequest:
			err = c.request(&h, p)
		case typeData:
			err = c.data(&h, p)
		case typePing, typePong:
		case typeCancel:
			c.cancel(h.stream)
		default:
			err = fmt.Errorf("%w: frame of type %d from a gateway", errFrame, h.kind)
		}
		if err != nil {
			return err
		}
	}
}

// handled ends a round of frames that came together. The next read may block.
func (c *serverConn) handled() {
	if !c.held {
		return // there was no request
	}
	c.server.handler.Handled()
	c.mu.Lock()
	c.held = false
	c.flush()
}

// request takes a request, or the beginning of one.
func (c *serverConn) request(h *header, p []byte) error {
	if !scorer.Kind(h.code).Valid() {
		return fmt.Errorf("%w: a request of kind %d", errFrame, h.code)
	}
	r := requests.Get().(*Request)
	r.Kind, r.HeadLength, r.Deadline = scorer.Kind(h.code), int(h.head), scorer.Now().Add(duration(h.left))
	r.conn, r.stream, r.offer, r.total = c, h.stream, h.offer, int(h.total)
	p = h.parsePrefix(p, &r.Request)
	if most := c.server.config.MaxBody; r.total > most {
		r.refused = scorer.Errorf(scorer.TooLarge, "the request's body exceeds %d bytes", most)
	}
	c.server.inFlight.Add(1)
	if err := c.enter(r); err != nil {
		c.server.inFlight.Add(-1)
		return err
	}
	return c.part(r, p, h.flags&flagMore != 0)
}

// part takes the next part of a request's body, and begins it after the last.
func (c *serverConn) part(r *Request, p []byte, more bool) error {
	if r.refused == nil {
		r.Body = append(r.Body, p...)
		if len(r.Body) > r.total || !more && len(r.Body) != r.total {
			return fmt.Errorf("%w: a request of another length than declared", errFrame)
		}
	}
	if more {
		return nil
	}
	c.begin(r)
	return nil
}

// enter registers a request by its stream, and counts its body unless it is refused.
// Its end is leave.
func (c *serverConn) enter(r *Request) error {
	i := int(r.stream & 0xffff)
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.streams) <= i {
		c.streams = append(c.streams, nil)
	}
	if old := c.streams[i]; old != nil && !old.canceled.Load() {
		return fmt.Errorf("%w: stream %d is in use", errFrame, r.stream)
	}
	c.await()
	c.streams[i] = r
	c.held = true
	if r.refused == nil && c.bodies > 0 && c.bodies+r.total > c.server.config.MaxHeld {
		r.refused = errCrowded
	}
	if r.counted = r.refused == nil; r.counted {
		c.bodies += r.total
	}
	return nil
}

// leave forgets a request that is over. Holding mu.
func (c *serverConn) leave(r *Request) {
	if i := int(r.stream & 0xffff); c.streams[i] == r { // no other took its place when it was cancelled
		c.streams[i] = nil
	}
	if r.counted {
		c.bodies -= r.total
		r.counted = false
	}
}

// unfinished is the request of a stream that still comes in; nil if it is
// complete, cancelled or over. Only the reader holds such a request.
func (c *serverConn) unfinished(stream uint32) *Request {
	if i := int(stream & 0xffff); i < len(c.streams) && c.streams[i] != nil && c.streams[i].stream == stream && !c.streams[i].complete {
		return c.streams[i]
	}
	return nil
}

// data takes a further part of a request.
func (c *serverConn) data(h *header, p []byte) error {
	c.mu.Lock()
	r := c.unfinished(h.stream)
	c.mu.Unlock()
	if r == nil {
		return nil // cancelled meanwhile
	}
	return c.part(r, p, h.flags&flagMore != 0)
}

// begin hands a complete request to the handler.
func (c *serverConn) begin(r *Request) {
	c.mu.Lock()
	r.complete = true
	c.mu.Unlock()
	switch {
	case r.refused != nil:
		c.refuse(r, r.refused)
	case c.server.draining.Load():
		c.refuse(r, errLeaving)
	case int64(r.offer) >= c.server.offered.Load():
		c.refuse(r, errUnknown)
	default:
		c.server.handler.Handle(int(r.offer), r)
	}
}

// unread is what a gateway is answered that does not read.
var unread = []byte("the answers before this one were not read in time; ask for less at a time")

var (
	errLeaving = &scorer.Error{Status: scorer.Unavailable, Message: "the scorer is leaving; try again"}
	errCrowded = &scorer.Error{Status: scorer.Overloaded, Message: "the scorer has too many large requests; try again later"}
	errUnknown = &scorer.Error{Status: scorer.Unavailable, Message: "the scorer does not offer this version; try again"}
)

// refuse answers a request that is not begun.
func (c *serverConn) refuse(r *Request, err *scorer.Error) {
	var resp scorer.Response
	resp.Fail(err.Status, err.Message)
	resp.NotStarted = true
	r.Reply(&resp)
}

// cancel gives up a request that its gateway does not wait for any more, and what is
// not yet sent of its answer.
func (c *serverConn) cancel(stream uint32) {
	c.mu.Lock()
	c.unqueue(stream)
	i := int(stream & 0xffff)
	if i >= len(c.streams) || c.streams[i] == nil || c.streams[i].stream != stream {
		c.mu.Unlock()
		return
	}
	r := c.streams[i]
	over := c.giveUp(r)
	c.mu.Unlock()
	if over {
		c.server.recycle(r)
		return
	}
	c.server.handler.Canceled()
}

// giveUp ends a request if it is not complete or has not begun, and reports whether it
// did. Else the handler ends it. Holding mu.
func (c *serverConn) giveUp(r *Request) (over bool) {
	r.canceled.Store(true)
	if over = !r.complete || r.work != nil && r.work.Withdraw(); over {
		c.leave(r)
	}
	return over
}

// abandonAll gives up what a lost connection had in flight.
func (c *serverConn) abandonAll() {
	var over []*Request
	c.mu.Lock()
	for _, r := range c.streams {
		if r != nil && c.giveUp(r) {
			over = append(over, r)
		}
	}
	c.mu.Unlock()
	for _, r := range over {
		c.server.recycle(r)
	}
	c.server.handler.Canceled()
}
