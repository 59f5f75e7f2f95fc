// Package lane is the wire between gateways and scorers: one connection carries
// all requests of a pair, framed and multiplexed. DESIGN.md has the format.
package lane

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"sluice.dev/scorer"
)

// Protocol is the lane's name where connections are encrypted (ALPN).
const Protocol = "sluice-lane/1"

// The types of frames.
const (
	typeHello = iota + 1
	typeOffers
	typeRequest
	typeResponse
	typeData
	typeCancel
	typePing
	typePong
	typeGoAway
	typeEnd // first that is none
)

// The flags of frames.
const (
	flagMore       = 1 << iota // the body goes on in DATA frames
	flagNotStarted             // of a response
	flagTrace                  // a request's payload begins with its trace context
	flagNames                  // then come its id and its trace state; sent to who says that it knows this
)

const (
	headerSize = 36
	traceSize  = 25
	chunk      = 64 << 10                                           // most bytes of a body in one frame
	maxPayload = chunk + traceSize + scorer.MaxID + scorer.MaxState // of any frame but OFFERS
	maxOffers  = 16 << 20                                           // payload of OFFERS
	version    = 1
)

// magic begins the payload of HELLO, followed by the version in two bytes.
const magic = "SLUICELANE"

// header is the fixed part of a frame. What the fields mean depends on the type.
type header struct {
	length  uint32 // of the payload
	stream  uint32
	kind    uint8 // type
	flags   uint8
	code    uint8  // REQUEST: scorer.Kind; RESPONSE: scorer.Status
	offer   uint32 // REQUEST: which; RESPONSE: rows of the batch
	head    uint32 // length of the JSON head
	left    uint32 // REQUEST: microseconds until the deadline; RESPONSE: rows
	total   uint32 // length of the whole body
	queued  uint32 // REQUEST: flow; RESPONSE: microseconds in the queue
	running uint32 // REQUEST: class, length of the id, length of the trace state (2 bytes); RESPONSE: microseconds on the device
}

func (h *header) append(dst []byte) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, h.length)
	dst = le.AppendUint32(dst, h.stream)
	dst = append(dst, h.kind, h.flags, h.code, 0)
	for _, v := range [...]uint32{h.offer, h.head, h.left, h.total, h.queued, h.running} {
		dst = le.AppendUint32(dst, v)
	}
	return dst
}

var errFrame = errors.New("the peer does not speak this lane")

// parse reads and checks a header.
func (h *header) parse(b []byte) error {
	le := binary.LittleEndian
	h.length, h.stream = le.Uint32(b), le.Uint32(b[4:])
	h.kind, h.flags, h.code = b[8], b[9], b[10]
	h.offer, h.head, h.left = le.Uint32(b[12:]), le.Uint32(b[16:]), le.Uint32(b[20:])
	h.total, h.queued, h.running = le.Uint32(b[24:]), le.Uint32(b[28:]), le.Uint32(b[32:])
	switch {
	case h.kind == 0 || h.kind >= typeEnd || b[11] != 0:
		return fmt.Errorf("%w: frame of type %d", errFrame, h.kind)
	case h.kind != typeOffers && h.length > maxPayload:
		return fmt.Errorf("%w: frame of %d bytes", errFrame, h.length)
	case (h.kind == typeRequest || h.kind == typeResponse) && !h.plausible():
		return fmt.Errorf("%w: a body of %d bytes in a frame of %d", errFrame, h.total, h.length)
	}
	return nil
}

// say puts what a request says of itself into the header. names tells that its id and
// trace state may be sent.
func (h *header) say(req *scorer.Request, names bool) {
	h.queued, h.running = req.Flow, uint32(uint8(req.Class))
	if req.Trace != (scorer.Trace{}) {
		h.flags |= flagTrace
	}
	if names && len(req.ID)+len(req.State) > 0 {
		h.flags |= flagNames
		h.running |= uint32(min(len(req.ID), scorer.MaxID))<<8 | uint32(min(len(req.State), scorer.MaxState))<<16
	}
}

// names are the lengths of a request's id and trace state.
func (h *header) names() (id, state uint32) {
	if h.kind != typeRequest || h.flags&flagNames == 0 {
		return 0, 0
	}
	return h.running >> 8 & 0xff, h.running >> 16
}

// prefix is how many bytes a payload has before its body.
func (h *header) prefix() uint32 {
	id, state := h.names()
	if h.kind == typeRequest && h.flags&flagTrace != 0 {
		return traceSize + id + state
	}
	return id + state
}

// plausible reports whether lengths agree: all of the body is here, or it goes on.
func (h *header) plausible() bool {
	id, state := h.names()
	if h.prefix() > h.length || id > scorer.MaxID || state > scorer.MaxState {
		return false
	}
	body, more := h.length-h.prefix(), h.flags&flagMore != 0
	return h.head <= h.total && (more && body < h.total || !more && body == h.total)
}

// reader reads frames. A payload is valid until the next frame is read.
type reader struct {
	buf  *bufio.Reader
	used int    // bytes of the last payload that are still in buf
	most uint32 // bytes of a payload of OFFERS
}

func newReader(r io.Reader) *reader {
	return &reader{buf: bufio.NewReaderSize(r, 2*chunk), most: maxOffers}
}

// next reads a frame.
func (r *reader) next(h *header) ([]byte, error) {
	if _, err := r.buf.Discard(r.used); err != nil {
		return nil, err
	}
	r.used = 0
	b, err := r.buf.Peek(headerSize)
	if err != nil {
		return nil, err
	}
	if err := h.parse(b); err != nil {
		return nil, err
	}
	if h.kind == typeOffers && h.length > r.most {
		return nil, fmt.Errorf("%w: offers of %d bytes", errFrame, h.length)
	}
	_, _ = r.buf.Discard(headerSize) // is there
	if h.kind == typeOffers {
		var all bytes.Buffer // grows with what comes, not with what is declared
		_, err := io.CopyN(&all, r.buf, int64(h.length))
		return all.Bytes(), err
	}
	r.used = int(h.length)
	return r.buf.Peek(r.used)
}

// whole reports whether the next frame is here already, so that next does not
// block.
func (r *reader) whole() bool {
	n := r.buf.Buffered()
	if n < r.used+headerSize {
		return false
	}
	b, _ := r.buf.Peek(r.used + headerSize) // is there
	return int64(n-r.used-headerSize) >= int64(binary.LittleEndian.Uint32(b[r.used:]))
}

// hello is the first frame of both sides.
func hello() []byte {
	h := header{kind: typeHello, length: uint32(len(magic) + 2)}
	return binary.LittleEndian.AppendUint16(append(h.append(nil), magic...), version)
}

// helloWithin is how long a peer may take for its first frame, the handshake of an
// encrypted connection included.
const helloWithin = 10 * time.Second

// expectHello reads the first frame from n.
func (r *reader) expectHello(n net.Conn) error {
	if err := n.SetReadDeadline(time.Now().Add(helloWithin)); err != nil {
		return err
	}
	if err := r.hello(); err != nil {
		return err
	}
	return n.SetReadDeadline(time.Time{})
}

func (r *reader) hello() error {
	var h header
	p, err := r.next(&h)
	if err != nil {
		return err
	}
	if h.kind != typeHello || len(p) != len(magic)+2 || string(p[:len(magic)]) != magic {
		return errFrame
	}
	if v := binary.LittleEndian.Uint16(p[len(magic):]); v != version {
		return fmt.Errorf("%w: version %d; this side speaks %d", errFrame, v, version)
	}
	return nil
}

// appendPrefix appends what comes before req's body.
func (h *header) appendPrefix(dst []byte, req *scorer.Request) []byte {
	if h.flags&flagTrace != 0 {
		t := &req.Trace
		dst = append(append(append(dst, t.TraceID[:]...), t.SpanID[:]...), t.Flags)
	}
	id, state := h.names()
	return append(append(dst, req.ID[:id]...), req.State[:state]...)
}

// parsePrefix fills in req, in its own memory, and returns the body.
func (h *header) parsePrefix(b []byte, req *scorer.Request) []byte {
	req.Flow, req.Class = h.queued, scorer.Class(h.running)
	if h.flags&flagTrace != 0 {
		t := &req.Trace
		copy(t.TraceID[:], b)
		copy(t.SpanID[:], b[16:])
		t.Flags = b[24]
		b = b[traceSize:]
	}
	id, state := h.names()
	req.ID = append(req.ID[:0], b[:id]...)
	req.State = append(req.State[:0], b[id:id+state]...)
	return b[id+state:]
}
