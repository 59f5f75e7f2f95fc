package grpcapi

import (
	"bytes"
	"sync"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"sluice.dev/gateway"
	"sluice.dev/scorer"
)

// bytesCodec hands requests and answers of scoring through as bytes, and the other
// messages to protobuf's codec.
type bytesCodec struct{}

var protobuf = encoding.GetCodecV2(proto.Name)

// Name implements encoding.CodecV2.
func (bytesCodec) Name() string { return proto.Name }

// Unmarshal implements encoding.CodecV2.
func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	r, ok := v.(*request)
	if !ok {
		return protobuf.Unmarshal(data, v)
	}
	r.buf = data.MaterializeToBuffer(mem.DefaultBufferPool())
	r.body = r.buf.ReadOnlyData()
	return nil
}

// Marshal implements encoding.CodecV2.
func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	a, ok := v.(*answer)
	if !ok {
		return protobuf.Marshal(v)
	}
	return mem.BufferSlice(a.parts[:a.n]), nil
}

// request is a message as it came. It is for one call only, since whoever watches
// for its client to leave may come late.
type request struct {
	body []byte // lent until free
	buf  mem.Buffer

	mu   sync.Mutex
	call *gateway.Call // while it is served
}

// free gives the memory of body back.
func (r *request) free() {
	if r.buf != nil {
		r.buf.Free()
	}
	r.buf, r.body = nil, nil
}

// leave gives up what the call waits for. For anybody, at any time.
func (r *request) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.call != nil {
		r.call.Leave()
	}
}

// serving sets the call that leave gives up; nil is none.
func (r *request) serving(c *gateway.Call) {
	r.mu.Lock()
	r.call = c
	r.mu.Unlock()
}

// answer is a message in up to three parts.
type answer struct {
	parts [3]mem.Buffer
	n     int
}

func (a *answer) add(b mem.Buffer) {
	a.parts[a.n] = b
	a.n++
}

// copied is the most bytes of an answer that are copied to be sent: to keep track of
// memory that is lent costs more.
const copied = 1 << 10

// bodies is the memory of answers that were sent.
var bodies bodyPool

type bodyPool struct{ pool sync.Pool }

// maxKept bounds the memory in bytes of an answer that is kept.
const maxKept = 1 << 20

// Get implements mem.BufferPool.
func (p *bodyPool) Get(n int) *[]byte {
	b, _ := p.pool.Get().(*[]byte)
	if b == nil {
		b = new([]byte)
	}
	if cap(*b) < n {
		*b = make([]byte, n)
	}
	*b = (*b)[:n]
	return b
}

// Put implements mem.BufferPool.
func (p *bodyPool) Put(b *[]byte) {
	if cap(*b) <= maxKept {
		p.pool.Put(b)
	}
}

// body is r's body, to be sent. A large one is not copied: r gets other memory.
func body(r *scorer.Response) mem.Buffer {
	if len(r.Body) <= copied {
		return mem.SliceBuffer(bytes.Clone(r.Body))
	}
	b := bodies.Get(0)
	*b, r.Body = r.Body, *b
	return mem.NewBuffer(b, &bodies)
}
