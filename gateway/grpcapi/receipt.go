package grpcapi

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// receipts bounds what clients have sent of messages that are not whole yet, in sum.
//
// The library reads a message to its end before anybody sees it, or learns how long it
// is. So the frames of every connection are looked at as they pass, and the bytes of
// unfinished messages counted. When there are too many, the connection that has most
// of them is closed, of strangers before others: to hold all back would have those wait
// for each other that could go on.
type receipts struct {
	most  int64 // bytes
	sum   atomic.Int64
	ended atomic.Uint64 // connections that were closed for it

	mu    sync.Mutex // taken before a receipt's
	conns map[*receipt]struct{}
}

// over reports whether there is too much.
func (a *receipts) over() bool { return a.sum.Load() > a.most }

// relieve closes connections until there is not too much any more.
func (a *receipts) relieve() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.over() {
		worst := a.worst()
		if worst == nil {
			return
		}
		a.ended.Add(1)
		a.drop(worst)
		_ = worst.Conn.Close() // its reader tells
	}
}

// worst is the connection that has most, of strangers if one has anything. Holding mu.
func (a *receipts) worst() (worst *receipt) {
	rank := func(r *receipt) (stranger bool, bytes int64) { return !r.known.Load(), r.bytes.Load() }
	for r := range a.conns {
		stranger, bytes := rank(r)
		if bytes == 0 {
			continue
		}
		if worst != nil {
			if s, most := rank(worst); s && !stranger || s == stranger && most >= bytes {
				continue
			}
		}
		worst = r
	}
	return worst
}

// drop forgets a connection. Holding mu.
func (a *receipts) drop(r *receipt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(a.conns, r)
	r.over = true
	a.sum.Add(-r.bytes.Swap(0))
}

// open is a connection whose messages are counted from its first Read until Close.
func (a *receipts) open(c net.Conn) *receipt {
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	return &receipt{Conn: c, all: a, in: frames{skip: len(preface)}, calls: map[uint32]partial{}}
}

// receipt is a connection. One goroutine at a time reads, and one writes.
type receipt struct {
	net.Conn
	all   *receipts
	known atomic.Bool  // a caller of an endpoint that is not open to all sent a call
	bytes atomic.Int64 // of unfinished messages; changed holding mu
	begun bool         // its reader's, as in is; out is its writer's
	in    frames
	out   frames

	mu    sync.Mutex
	calls map[uint32]partial // that the client has not ended, nor the server
	over  bool               // nothing is counted any more
}

// Read implements net.Conn.
func (r *receipt) Read(b []byte) (int, error) {
	if !r.begun { // the library closes what it has read from
		r.begun = true
		r.all.mu.Lock()
		r.all.conns[r] = struct{}{}
		r.all.mu.Unlock()
	}
	n, err := r.Conn.Read(b)
	r.mu.Lock()
	before := r.bytes.Load()
	r.in.feed(b[:n], r.received)
	more := r.bytes.Load() - before
	if more != 0 {
		r.all.sum.Add(more)
	}
	r.mu.Unlock()
	if more > 0 && r.all.over() {
		r.all.relieve()
	}
	return n, err
}

// Write implements net.Conn.
func (r *receipt) Write(b []byte) (int, error) {
	n, err := r.Conn.Write(b)
	r.mu.Lock()
	before := r.bytes.Load()
	r.out.feed(b[:n], r.sent)
	if less := r.bytes.Load() - before; less != 0 {
		r.all.sum.Add(less)
	}
	r.mu.Unlock()
	return n, err
}

// Close implements net.Conn.
func (r *receipt) Close() error {
	r.all.mu.Lock()
	r.all.drop(r)
	r.all.mu.Unlock()
	return r.Conn.Close()
}

// received takes a client's frame into account. Holding mu.
func (r *receipt) received(f *frames, part []byte, whole bool) {
	p, there := r.calls[f.call]
	switch {
	case r.over:
		return
	case f.kind == frameReset || whole && f.ends():
		r.end(f.call)
		return
	case f.kind == frameHeaders && !there:
		r.calls[f.call] = partial{}
	case there && len(part) > 0:
		before := p.have
		p.take(part)
		r.bytes.Add(p.have - before)
		r.calls[f.call] = p
	}
}

// sent takes the server's frame into account. Holding mu.
func (r *receipt) sent(f *frames, _ []byte, whole bool) {
	if !r.over && (f.kind == frameReset || whole && f.ends()) {
		r.end(f.call)
	}
}

// end forgets a call, whose message is whole, or given up. Holding mu.
func (r *receipt) end(call uint32) {
	if p, ok := r.calls[call]; ok {
		r.bytes.Add(-p.have)
		delete(r.calls, call)
	}
}

// RemoteAddr implements net.Conn. The library shows it to calls, which find the
// connection by it.
func (r *receipt) RemoteAddr() net.Addr { return address{r.Conn.RemoteAddr(), r} }

type address struct {
	net.Addr
	of *receipt
}

// know notes that a call's connection is not a stranger's.
func know(ctx context.Context) {
	if p, ok := peer.FromContext(ctx); ok {
		if a, ok := p.Addr.(address); ok {
			a.of.known.Store(true)
		}
	}
}

// partial is what has come of a call's message: five bytes that say how long it is,
// then the message. Source: gRPC over HTTP/2, Length-Prefixed-Message.
type partial struct {
	head       [5]byte
	got        int // of head
	need, have int64
}

// take reads what comes next; have is 0 between messages.
func (p *partial) take(b []byte) {
	for len(b) > 0 {
		if p.got < len(p.head) {
			n := copy(p.head[p.got:], b)
			p.got, b = p.got+n, b[n:]
			p.need = int64(binary.BigEndian.Uint32(p.head[1:]))
		} else {
			n := min(p.need-p.have, int64(len(b)))
			p.have, b = p.have+n, b[n:]
		}
		if p.got == len(p.head) && p.have == p.need {
			*p = partial{}
		}
	}
}

// The kinds of frames, and the flags, that are looked at: RFC 9113, section 6.
const (
	frameData    = 0
	frameHeaders = 1
	frameReset   = 3

	flagEnd    = 1
	flagPadded = 8
)

// frames finds the frames of HTTP/2 in what passes. What is no frame is left to the
// library, which ends the connection.
type frames struct {
	kind, flags byte
	call        uint32 // the stream's number

	head   [9]byte
	got    int  // of head
	left   int  // of the data, without padding
	skip   int  // bytes to pass over first
	padded bool // the next byte says how much padding follows the data
	pad    int
}

// ends reports whether whoever sent the frame sends no more of the call.
func (f *frames) ends() bool {
	return (f.kind == frameHeaders || f.kind == frameData) && f.flags&flagEnd != 0
}

// feed reads what comes next. each hears of a frame: of one with data as often as some
// comes, and else once; whole says that it is the last time.
func (f *frames) feed(b []byte, each func(f *frames, part []byte, whole bool)) {
	for len(b) > 0 {
		switch {
		case f.skip > 0:
			n := min(f.skip, len(b))
			f.skip, b = f.skip-n, b[n:]
		case f.got < len(f.head):
			n := copy(f.head[f.got:], b)
			f.got, b = f.got+n, b[n:]
			if f.got == len(f.head) {
				f.begin(each)
			}
		case f.padded:
			f.padded, f.left = false, f.left-1
			f.pad = min(int(b[0]), f.left)
			f.left, b = f.left-f.pad, b[1:]
			f.data(nil, each)
		default:
			n := min(f.left, len(b))
			f.left -= n
			f.data(b[:n], each)
			b = b[n:]
		}
	}
}

// begin reads a frame's head.
func (f *frames) begin(each func(f *frames, part []byte, whole bool)) {
	length := int(f.head[0])<<16 | int(f.head[1])<<8 | int(f.head[2])
	f.kind, f.flags, f.call = f.head[3], f.head[4], binary.BigEndian.Uint32(f.head[5:])&^(1<<31)
	if f.kind == frameData {
		f.left, f.padded, f.pad = length, f.flags&flagPadded != 0 && length > 0, 0
		if length == 0 {
			f.data(nil, each)
		}
		return
	}
	each(f, nil, true)
	f.got, f.skip = 0, length
}

// data tells of data, and ends the frame where it has no more.
func (f *frames) data(part []byte, each func(f *frames, part []byte, whole bool)) {
	each(f, part, f.left == 0)
	if f.left == 0 {
		f.got, f.skip = 0, f.pad
	}
}

// counted has what comes on connections counted, after their handshake.
type counted struct {
	credentials.TransportCredentials
	in *receipts
}

// ServerHandshake implements credentials.TransportCredentials.
func (c counted) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	return c.in.open(conn), info, nil
}

// Clone implements credentials.TransportCredentials.
func (c counted) Clone() credentials.TransportCredentials {
	return counted{c.TransportCredentials.Clone(), c.in}
}
