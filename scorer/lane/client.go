package lane

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/scorer"
)

// ClientConfig configures a Client. Network and Address are required.
type ClientConfig struct {
	Network, Address string             // "unix" or "tcp"
	TLS              func() *tls.Config // of the next connection; nil is not encrypted
	MaxBody          int                // bytes of an answer's body; 0 means 1 GiB
	// OnOffers is told what the scorer offers: at first, at every change, and
	// nothing when the connection is lost or not answered on. One call at a time.
	OnOffers func([]*Remote)
	Log      *slog.Logger // nil is silent
}

// Client is one scorer process. It connects in the background, again and again.
type Client struct {
	config ClientConfig
	stop   chan struct{}
	done   chan struct{}

	mu      sync.Mutex
	current *clientConn
}

// The pause between attempts to connect doubles from the first to the last.
const (
	firstPause = 10 * time.Millisecond
	lastPause  = time.Second
	dialWithin = 5 * time.Second
)

// Dial starts a client. Close ends it.
func Dial(c ClientConfig) *Client {
	if c.MaxBody == 0 {
		c.MaxBody = 1 << 30
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	k := &Client{config: c, stop: make(chan struct{}), done: make(chan struct{})}
	go k.run()
	return k
}

// Close ends the connection; requests in flight are answered. It returns when
// nothing of the client runs any more.
func (c *Client) Close() error {
	close(c.stop)
	c.mu.Lock()
	if c.current != nil {
		c.current.fail(errClosed)
	}
	c.mu.Unlock()
	<-c.done
	return nil
}

// run connects until Close.
func (c *Client) run() {
	defer close(c.done)
	pause := firstPause
	for {
		began := time.Now()
		err := c.session()
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		select {
		case <-c.stop:
			return
		default:
		}
		c.config.Log.Debug("scorer not connected", "address", c.config.Address, "error", err)
		select {
		case <-c.stop:
			return
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, lastPause)
	}
}

// session connects once and serves the connection until it ends.
func (c *Client) session() error {
	n, err := c.dial()
	if err != nil {
		return err
	}
	k := &clientConn{client: c, remotes: map[uint32]*Remote{}}
	k.conn = newConn(n, k.silent)
	c.mu.Lock()
	c.current = k
	c.mu.Unlock()
	select {
	case <-c.stop: // closed before it could see k
		k.fail(errClosed)
	default:
	}
	k.fail(k.serve())
	k.tell(func() { k.gone = true })
	k.abandonAll()
	k.tasks.Wait()
	return k.reason
}

func (c *Client) dial() (net.Conn, error) {
	d := &net.Dialer{Timeout: dialWithin}
	if c.config.TLS == nil {
		return d.Dial(c.config.Network, c.config.Address)
	}
	return tls.DialWithDialer(d, c.config.Network, c.config.Address, c.config.TLS())
}

// clientConn is one connection to a scorer.
type clientConn struct {
	*conn
	client  *Client
	remotes map[uint32]*Remote // by offer; the reader's

	// Guarded by conn.mu.
	slots []slot
	free  []uint16

	telling sync.Mutex // guards what follows, and calls of OnOffers
	offered []*Remote
	quiet   bool // the scorer does not answer
	gone    bool
}

// tell changes what is known of the offers and tells it on.
func (c *clientConn) tell(change func()) {
	c.telling.Lock()
	defer c.telling.Unlock()
	change()
	if c.quiet || c.gone {
		c.client.config.OnOffers(nil)
		return
	}
	c.client.config.OnOffers(c.offered)
}

func (c *clientConn) silent(quiet bool) {
	if quiet {
		c.client.config.Log.Warn("scorer does not answer; it is left out until it does", "address", c.client.config.Address)
	}
	c.tell(func() { c.quiet = quiet })
}

// slot is a request in flight. Its stream is generation<<16 | index, so that a
// late answer does not meet the slot's next request.
type slot struct {
	stream  uint32
	used    bool
	wait    *scorer.Waiter
	ticket  scorer.Ticket
	resp    *scorer.Response
	batch   uint64 // of its frame
	partial []byte // an answer that comes in chunks
	answer  header // of that
}

const maxSlots = 1 << 16

// Remote is one offer of a scorer. It implements scorer.Scorer. Once its
// connection is gone, every request is answered Unavailable, not started.
type Remote struct {
	conn  *clientConn
	offer atomic.Pointer[numbered]
}

// Offer is what the scorer said last.
func (r *Remote) Offer() scorer.Offer { return r.offer.Load().Offer }

// Score implements scorer.Scorer.
func (r *Remote) Score(req *scorer.Request, resp *scorer.Response) {
	c := r.conn
	offer := r.offer.Load()
	if !offer.Knows(req.Kind) {
		resp.Fail(scorer.Unsupported, "the scorer is older than this gateway and does not know this kind of request; update it")
		return
	}
	ticket := req.Wait.Arm()
	stream, ok := c.send(offer, req, ticket, resp)
	if !ok {
		if req.Wait.Claim(ticket) {
			req.Wait.Finish(ticket)
		}
		req.Wait.Wait()
		resp.Fail(scorer.Unavailable, "the scorer is not connected; try again later")
		resp.NotStarted = true
		return
	}
	if req.Wait.Wait() {
		return
	}
	c.cancel(stream)
	resp.GiveUp(req)
}

// send registers a request and queues its frame. False: the connection is gone,
// or has as many requests as it can have.
func (c *clientConn) send(offer *numbered, req *scorer.Request, ticket scorer.Ticket, resp *scorer.Response) (uint32, bool) {
	h := header{
		kind: typeRequest, code: uint8(req.Kind), offer: offer.Number, head: uint32(req.HeadLength),
		left: micros(req.Deadline.Sub(scorer.Now())),
	}
	h.say(req, offer.Flags&flagNames != 0)
	c.mu.Lock()
	s := c.slot()
	if s == nil {
		c.mu.Unlock()
		return 0, false
	}
	s.wait, s.ticket, s.resp = req.Wait, ticket, resp
	h.stream = s.stream
	s.batch = c.frame(&h, req, req.Body)
	c.waiting.Add(1)
	c.flush()
	return h.stream, true
}

// slot takes a free one. Holding mu.
func (c *clientConn) slot() *slot {
	if c.dead {
		return nil
	}
	var i int
	switch n := len(c.free); {
	case n > 0:
		i = int(c.free[n-1])
		c.free = c.free[:n-1]
	case len(c.slots) < maxSlots:
		i = len(c.slots)
		c.slots = append(c.slots, slot{stream: uint32(i)})
	default:
		return nil
	}
	s := &c.slots[i]
	s.stream += 1 << 16
	s.used = true
	return s
}

// find is the slot of a stream, nil if its request is over. Holding mu.
func (c *clientConn) find(stream uint32) *slot {
	if i := int(stream & 0xffff); i < len(c.slots) && c.slots[i].used && c.slots[i].stream == stream {
		return &c.slots[i]
	}
	return nil
}

// release frees a slot. Holding mu.
func (c *clientConn) release(s *slot) {
	*s = slot{stream: s.stream}
	c.free = append(c.free, uint16(s.stream))
	c.waiting.Add(-1)
}

// cancel gives up a request that was abandoned.
func (c *clientConn) cancel(stream uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.find(stream); s != nil {
		c.unqueue(stream)
		c.release(s)
		if !c.dead {
			c.signal(typeCancel, stream)
		}
	}
}

// serve reads until the connection ends.
func (c *clientConn) serve() error {
	if err := c.read.expectHello(c.net); err != nil {
		return err
	}
	for {
		var h header
		p, err := c.next(&h)
		if err != nil {
			return err
		}
		switch h.kind {
		case typeOffers:
			err = c.offers(p)
		case typeResponse:
			err = c.response(&h, p)
		case typeData:
			err = c.data(&h, p)
		case typePing, typePong:
		case typeGoAway:
			c.tell(func() { c.offered = nil })
		default:
			err = fmt.Errorf("%w: frame of type %d from a scorer", errFrame, h.kind)
		}
		if err != nil {
			return err
		}
	}
}

// numbered is an offer on the wire.
type numbered struct {
	Number uint32 `json:"number"`
	Flags  uint8  `json:"flags,omitempty"` // of requests that the scorer knows, beside those of the first release
	scorer.Offer
}

// maxOffered bounds the offers of a scorer.
const maxOffered = 1 << 16

// parseOffers reads the payload of OFFERS.
func parseOffers(p []byte) (list []numbered, err error) {
	d := json.NewDecoder(bytes.NewReader(p))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, errors.Join(errors.New("no list"), err)
	}
	for d.More() {
		if len(list) == maxOffered { // an empty one of three bytes takes a hundred times that
			return nil, fmt.Errorf("more than %d", maxOffered)
		}
		var o numbered
		if err := d.Decode(&o); err != nil {
			return nil, err
		}
		list = append(list, o)
	}
	_, err = d.Token()
	return list, err
}

// offers takes what the scorer offers from now on. A number that is not among it is
// forgotten: the scorer does not use it again.
func (c *clientConn) offers(p []byte) error {
	list, err := parseOffers(p)
	if err != nil {
		return fmt.Errorf("%w: offers: %w", errFrame, err)
	}
	known := c.remotes
	c.remotes = make(map[uint32]*Remote, len(list))
	remotes := make([]*Remote, 0, len(list))
	for _, o := range list {
		r := known[o.Number]
		if r == nil {
			r = &Remote{conn: c}
		}
		r.offer.Store(&o)
		c.remotes[o.Number] = r
		remotes = append(remotes, r)
	}
	c.tell(func() { c.offered = remotes })
	return nil
}

// response takes an answer, or the beginning of one.
func (c *clientConn) response(h *header, p []byte) error {
	if int64(h.total) > int64(c.client.config.MaxBody) {
		return fmt.Errorf("%w: an answer of %d bytes", errFrame, h.total)
	}
	c.mu.Lock()
	s := c.find(h.stream)
	if s == nil || s.partial != nil {
		c.mu.Unlock()
		return nil
	}
	if h.flags&flagMore != 0 {
		s.answer, s.partial = *h, append([]byte(nil), p...)
		c.mu.Unlock()
		return nil
	}
	c.finish(s, h, p, false)
	return nil
}

// data takes a further part of an answer.
func (c *clientConn) data(h *header, p []byte) error {
	c.mu.Lock()
	s := c.find(h.stream)
	if s == nil || s.partial == nil {
		c.mu.Unlock()
		return nil
	}
	s.partial = append(s.partial, p...)
	switch more := h.flags&flagMore != 0; {
	case uint32(len(s.partial)) > s.answer.total, !more && uint32(len(s.partial)) != s.answer.total:
		c.mu.Unlock()
		return fmt.Errorf("%w: an answer of another length than declared", errFrame)
	case more:
		c.mu.Unlock()
		return nil
	}
	answer := s.answer
	c.finish(s, &answer, s.partial, true)
	return nil
}

// finish hands an answer to who waits for it; keep says that the body may be
// kept. It gives up mu.
func (c *clientConn) finish(s *slot, h *header, body []byte, keep bool) {
	wait, ticket, resp := s.wait, s.ticket, s.resp
	if !wait.Claim(ticket) {
		c.mu.Unlock() // abandoned: whoever waited frees the slot
		return
	}
	if c.unqueue(s.stream) && !c.dead { // answered early: the rest of the body is not the connection's any more
		c.signal(typeCancel, s.stream)
	}
	c.release(s)
	c.mu.Unlock()
	resp.Status = scorer.Status(h.code)
	if !resp.Status.Valid() {
		resp.Status = scorer.Internal
	}
	resp.NotStarted = h.flags&flagNotStarted != 0
	if keep {
		resp.Body = body
	} else {
		resp.Body = append(resp.Body[:0], body...)
	}
	resp.HeadLength, resp.Rows, resp.Batch = int(h.head), int(h.left), int(h.offer)
	resp.Queue, resp.Device = duration(h.queued), duration(h.running)
	wait.Finish(ticket)
}

// abandonAll answers what was in flight when the connection ended. A request
// that was not handed to the kernel whole never began.
func (c *clientConn) abandonAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.slots {
		s := &c.slots[i]
		if !s.used || !s.wait.Claim(s.ticket) {
			continue
		}
		if unsent := c.unqueue(s.stream); unsent || s.batch == c.batch {
			s.resp.Fail(scorer.Unavailable, "the scorer's connection was lost before the request was sent; try again")
			s.resp.NotStarted = true
		} else {
			s.resp.Fail(scorer.ModelFailed, "the scorer's connection was lost before it answered; whether the work was done is not known")
		}
		wait, ticket := s.wait, s.ticket
		c.release(s)
		wait.Finish(ticket)
	}
}
