package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"sluice.dev/bench"
	"sluice.dev/scorer/codec/wire"
)

// Methods of the Open Inference Protocol's gRPC service.
const (
	unaryMethod    = "/inference.GRPCInferenceService/ModelInfer"
	streamMethod   = "/inference.GRPCInferenceService/ModelStreamInfer"
	metadataMethod = "/inference.GRPCInferenceService/ModelMetadata"
)

// GRPC is a target of the Open Inference Protocol over gRPC. Messages are sent and
// taken as the bytes that they are.
type GRPC struct {
	Address  string
	TLS      *tls.Config // nil: plain text
	Stream   bool        // one stream per connection, instead of a call per request
	Channels int         // connections of TCP; what is dialled beyond shares them in turn
	Header   map[string]string

	mu     sync.Mutex
	shared []*channel // guarded by mu
	dials  int        // guarded by mu
}

// channel is a connection of TCP, and how many use it.
type channel struct {
	cc    *grpc.ClientConn
	users int // guarded by GRPC.mu
}

// Dial is bench.Dial.
func (g *GRPC) Dial(ctx context.Context) (bench.Conn, error) {
	ch, err := g.acquire(ctx)
	if err != nil {
		return nil, err
	}
	base, cancel := context.WithCancel(metadata.NewOutgoingContext(context.WithoutCancel(ctx), metadata.New(g.Header)))
	c := &unaryConn{ctx: base, cc: ch.cc, items: make(chan *bench.Item, 1), close: func() { cancel(); g.release(ch) }}
	if !g.Stream {
		return c, nil
	}
	s, err := ch.cc.NewStream(base, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, streamMethod)
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("open stream: %w", err)
	}
	return &streamConn{unaryConn: c, stream: s}, nil
}

// acquire is a connection that works, a new one for the first Channels dials.
func (g *GRPC) acquire(ctx context.Context) (ch *channel, err error) {
	g.mu.Lock()
	if g.dials++; len(g.shared) >= max(1, g.Channels) {
		ch = g.shared[g.dials%len(g.shared)]
	} else {
		cc, err := g.connect()
		if err != nil {
			g.mu.Unlock()
			return nil, err
		}
		ch = &channel{cc: cc}
		g.shared = append(g.shared, ch)
	}
	ch.users++
	g.mu.Unlock()
	ch.cc.Connect()
	for s := ch.cc.GetState(); s != connectivity.Ready; s = ch.cc.GetState() {
		if s == connectivity.TransientFailure {
			err = why(ctx, ch.cc)
		} else if !ch.cc.WaitForStateChange(ctx, s) {
			err = ctx.Err()
		}
		if err != nil {
			g.release(ch)
			return nil, fmt.Errorf("connect to %s: %w", g.Address, err)
		}
	}
	return ch, nil
}

// why is what keeps a connection from coming about, which the library says of calls
// alone; nil where it has come about by now.
func why(ctx context.Context, cc *grpc.ClientConn) error {
	var ask, answer []byte
	err := cc.Invoke(ctx, metadataMethod, &ask, &answer)
	if status.Code(err) == codes.Unavailable {
		return errors.New(status.Convert(err).Message())
	}
	return ctx.Err()
}

func (g *GRPC) connect() (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if g.TLS != nil {
		creds = credentials.NewTLS(g.TLS)
	}
	return grpc.NewClient("passthrough:///"+g.Address, grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(maxBody), grpc.MaxCallSendMsgSize(maxBody)))
}

// release ends a connection that nobody uses any more.
func (g *GRPC) release(ch *channel) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ch.users--; ch.users > 0 {
		return
	}
	for i := range g.shared {
		if g.shared[i] == ch {
			g.shared = append(g.shared[:i], g.shared[i+1:]...)
			break
		}
	}
	_ = ch.cc.Close()
}

// Metadata asks for a model's metadata, as a message of gRPC.
func (g *GRPC) Metadata(ctx context.Context, model, version string) ([]byte, error) {
	ch, err := g.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer g.release(ch)
	var ask, answer []byte
	for i, text := range []string{model, version} {
		if text != "" {
			ask = protowire.AppendString(protowire.AppendTag(ask, protowire.Number(i+1), protowire.BytesType), text)
		}
	}
	err = ch.cc.Invoke(metadata.NewOutgoingContext(ctx, metadata.New(g.Header)), metadataMethod, &ask, &answer)
	return answer, err
}

// unaryConn makes a call per request.
type unaryConn struct {
	ctx    context.Context // of all calls; cancelled by close
	cc     *grpc.ClientConn
	close  func()
	once   sync.Once
	items  chan *bench.Item // of capacity 1: a Send that nobody receives does not wait
	body   []byte
	header metadata.MD
}

func (c *unaryConn) Send(item *bench.Item) error {
	c.items <- item
	return nil
}

func (c *unaryConn) Quick(item *bench.Item) bool { return len(item.Wire) <= quickSize }

func (c *unaryConn) Receive(a *bench.Answer) error {
	*a = bench.Answer{Version: a.Version[:0]}
	var item *bench.Item
	select {
	case item = <-c.items:
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
	c.header = nil
	if err := c.cc.Invoke(c.ctx, unaryMethod, &item.Wire, &c.body, grpc.Header(&c.header)); err != nil {
		if c.ctx.Err() != nil {
			return c.ctx.Err()
		}
		fail(a, err)
		return nil
	}
	a.Body = c.body
	for _, v := range c.header.Get(timingField) {
		Timing(a, []byte(v))
	}
	if v := c.header.Get(versionField); len(v) > 0 {
		a.Version = append(a.Version, v[0]...)
		return nil
	}
	a.Version = append(a.Version, field(c.body, 2)...)
	return nil
}

// fail makes a what a call's error says: its code, and as the body its message.
func fail(a *bench.Answer, err error) {
	s := status.Convert(err)
	a.Failure, a.Body = "gRPC "+s.Code().String(), []byte(s.Message())
}

func (c *unaryConn) Close() error {
	c.once.Do(c.close)
	return nil
}

// streamConn sends requests over one stream, each after the answer to the last one.
type streamConn struct {
	*unaryConn
	stream grpc.ClientStream
}

func (c *streamConn) Send(item *bench.Item) error { return c.stream.SendMsg(&item.Wire) }

func (c *streamConn) Receive(a *bench.Answer) error {
	*a = bench.Answer{Version: a.Version[:0]}
	if err := c.stream.RecvMsg(&c.body); err != nil {
		if c.ctx.Err() != nil {
			return c.ctx.Err()
		}
		fail(a, err)
		return ErrClosing
	}
	if text := field(c.body, 1); len(text) > 0 {
		a.Failure, a.Body = "gRPC stream error", text
		return nil
	}
	a.Body = field(c.body, 2)
	a.Version = append(a.Version, field(a.Body, 2)...)
	return nil
}

// field is the last value of a length-delimited field of a message, nil if there is
// none, or that is no message.
func field(message []byte, want protowire.Number) (value []byte) {
	m := wire.Read(message)
	for m.Next() {
		if m.Is(want) {
			value = m.Bytes
		}
	}
	if m.Bad() {
		return nil
	}
	return value
}

// raw is a codec of messages that are bytes already. What it encodes must stay as it
// is until the call is over; what it decodes is copied.
type raw struct{}

var _ encoding.CodecV2 = raw{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("a message must be bytes, not %T", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(*b)}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("a message must be bytes, not %T", v)
	}
	n := data.Len()
	if cap(*b) < n {
		*b = make([]byte, n)
	}
	*b = (*b)[:n]
	data.CopyTo(*b)
	return nil
}
