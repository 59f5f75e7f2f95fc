package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"sluice.dev/gateway/header"
	"sluice.dev/scorer"
	"sluice.dev/scorer/codec"
)

// GRPC is servers of the Open Inference Protocol that are called over gRPC.
type GRPC struct {
	Addresses []string // HOST:PORT
	Model     string   // at the servers; empty means the endpoint's name
	Version   string   // at the servers; empty leaves it to them
	Encrypt   bool     // with TLS
	TLS       *TLS
}

// grpcServer is one gRPC server. It implements scorer.Scorer for bodies of every
// kind: they become tensors, by the signature that the server tells, and its
// answers are encoded as the request was.
type grpcServer struct {
	endpoint, version string // in answers
	model, its        string // at the server
	conn              *grpc.ClientConn
	lost              func()
	offer             atomic.Pointer[scorer.Offer] // what the server says of the model; nil at first

	mu     sync.Mutex
	closed bool
	tasks  sync.WaitGroup
}

const service = "/inference.GRPCInferenceService/"

// newGRPC makes the server at address.
func newGRPC(c *Config, address string, lost func()) (*grpcServer, error) {
	g := &grpcServer{
		endpoint: c.Endpoint, version: c.Version, model: cmp.Or(c.GRPC.Model, c.Endpoint), its: c.GRPC.Version, lost: lost,
	}
	secure := insecure.NewCredentials()
	if c.GRPC.Encrypt {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("the address of a model's server is not one: %w", err)
		}
		var t *tls.Config
		if t, err = c.GRPC.TLS.config(host); err != nil {
			return nil, err
		}
		secure = credentials.NewTLS(t)
	}
	again := backoff.Config{BaseDelay: firstPause, Multiplier: 2, Jitter: 0.2, MaxDelay: c.Health.Period}
	var err error
	g.conn, err = grpc.NewClient("dns:///"+address,
		grpc.WithTransportCredentials(secure), grpc.WithDisableServiceConfig(), grpc.WithNoProxy(), grpc.WithStatsHandler(passageHandler{}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: again, MinConnectTimeout: dialWithin}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(bytesCodec{}), grpc.MaxCallRecvMsgSize(c.MaxBody), grpc.MaxCallSendMsgSize(1<<31-1)))
	if err != nil {
		return nil, fmt.Errorf("the address of a model's server: %w", err)
	}
	return g, nil
}

// bytesCodec passes messages as they are: []byte out, *[]byte in.
type bytesCodec struct{}

// Marshal implements encoding.CodecV2.
func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

// Unmarshal implements encoding.CodecV2.
func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// Name implements encoding.CodecV2. It is part of the content type.
func (bytesCodec) Name() string { return "proto" }

// passage is how far a call came. One that was not given to a connection cannot
// have begun.
type passage struct {
	sent     atomic.Bool // given to a connection
	answered atomic.Bool // an answer began to come, not only an error
	ended    atomic.Bool // by the server, whose words the error has
}

type passageKey struct{}

// passageHandler notes the passage of a call that has one.
type passageHandler struct{}

// TagRPC implements stats.Handler.
func (passageHandler) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements stats.Handler.
func (passageHandler) HandleRPC(ctx context.Context, s stats.RPCStats) {
	p, ok := ctx.Value(passageKey{}).(*passage)
	if !ok {
		return // a probe
	}
	switch s.(type) {
	case *stats.OutHeader:
		p.sent.Store(true)
	case *stats.InHeader:
		p.answered.Store(true)
	case *stats.InTrailer:
		p.ended.Store(true)
	}
}

// TagConn implements stats.Handler.
func (passageHandler) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (passageHandler) HandleConn(context.Context, stats.ConnStats) {}

// called is what came of a call.
type called struct {
	message []byte
	err     error
}

var infers = sync.Pool{New: func() any { return new(codec.Infer) }}

// Score implements scorer.Scorer. Between a message and its answer, nothing depends
// on how the request was encoded.
func (g *grpcServer) Score(req *scorer.Request, resp *scorer.Response) {
	offer := g.offer.Load()
	if offer == nil || !g.enter() {
		resp.Fail(scorer.Unavailable, "the model's server is not used; try again")
		resp.NotStarted = true
		return
	}
	in := infers.Get().(*codec.Infer)
	defer keep(in)
	if err := in.Decode(req.Kind, &offer.Signature, g.endpoint, g.version, req.HeadLength, req.Body); err != nil {
		g.tasks.Done()
		fail(resp, err)
		return
	}
	left := req.Deadline.Sub(scorer.Now())
	if in.Timeout > 0 {
		left = min(left, in.Timeout)
	}
	if message, ok := g.exchange(req, resp, left, appendInfer(nil, g.model, g.its, offer.Signature.Inputs, in.Inputs)); ok {
		g.answer(in, offer, message, resp)
	}
}

// keep puts in back, unless it has grown large.
func keep(in *codec.Infer) {
	if in.Size() <= maxKept {
		infers.Put(in)
	}
}

// enter counts a request in, unless the server is closed.
func (g *grpcServer) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.tasks.Add(1)
	}
	return !g.closed
}

// exchange sends a ModelInferRequest, which it owns, and returns the answer's
// message. False: resp says what came instead.
func (g *grpcServer) exchange(req *scorer.Request, resp *scorer.Response, left time.Duration, message []byte) (answer []byte, ok bool) {
	p := new(passage)
	got, finished := g.call(req, left, p, message)
	switch {
	case finished && got.err == nil:
		return got.message, true
	case finished:
		refused(resp, got.err, p)
		if resp.NotStarted {
			g.lost()
		}
	default:
		resp.GiveUp(req)
	}
	return nil, false
}

// call makes a call, and waits as long as req does. The call ends the task that
// enter began.
func (g *grpcServer) call(req *scorer.Request, left time.Duration, p *passage, message []byte) (got called, finished bool) {
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), passageKey{}, p), left)
	defer cancel() // and with it the call, whose server is told
	ctx = metadata.NewOutgoingContext(ctx, about(req))
	wait, ticket, answer := req.Wait, req.Wait.Arm(), new(called)
	go func() {
		defer g.tasks.Done()
		var c called
		c.err = g.conn.Invoke(ctx, service+"ModelInfer", message, &c.message)
		if wait.Claim(ticket) {
			*answer = c
			wait.Finish(ticket)
		}
	}()
	if wait.Wait() {
		return *answer, true
	}
	return called{}, false
}

// about is the metadata of a call: what the request is known by.
func about(req *scorer.Request) metadata.MD {
	md := make(metadata.MD, 3)
	if req.Trace != (scorer.Trace{}) {
		md["traceparent"] = []string{string(header.AppendTrace(nil, &req.Trace))}
	}
	if len(req.State) > 0 {
		md["tracestate"] = []string{string(req.State)}
	}
	if len(req.ID) > 0 {
		md["x-request-id"] = []string{string(req.ID)}
	}
	return md
}

// answer encodes what the server answered.
func (g *grpcServer) answer(in *codec.Infer, offer *scorer.Offer, message []byte, resp *scorer.Response) {
	out, err := readInfer(message, offer.Signature.Outputs)
	if err != nil {
		resp.Fail(scorer.ModelFailed, "the model's server gave an answer that does not fit its model: "+err.Error())
		return
	}
	body, head, err := in.Append(resp.Body[:0], &offer.Signature, g.endpoint, g.version, out)
	if err != nil {
		fail(resp, err)
		return
	}
	resp.Status, resp.Body, resp.HeadLength, resp.Rows = scorer.OK, body, head, in.Rows
}

// fail answers with an error of the codec.
func fail(resp *scorer.Response, err error) {
	known := scorer.Known(err)
	resp.Fail(known.Status, known.Message)
}

// refused answers with the error of a call. The statuses that say that we are
// refused, not the client, are the server's failure.
func refused(resp *scorer.Response, err error, p *passage) {
	s := status.Convert(err)
	text := short(s.Message())
	switch c := s.Code(); {
	case c == codes.Unavailable && !p.sent.Load():
		resp.Fail(scorer.Unavailable, "the model's server does not take connections; try again later")
		resp.NotStarted = true
	case c == codes.Unavailable && !p.ended.Load(): // the text is of the connection, and may have addresses
		resp.Fail(scorer.ModelFailed, "the model's server broke off; whether the work was done is not known")
	case c == codes.Unavailable:
		resp.Fail(scorer.Unavailable, "the model's server is not available, and whether the work was done is not known: "+text)
	case c == codes.InvalidArgument, c == codes.OutOfRange, c == codes.FailedPrecondition:
		resp.Fail(scorer.InvalidArgument, text)
	case c == codes.ResourceExhausted && p.answered.Load():
		resp.Fail(scorer.ModelFailed, "the model's server gave an answer that is too long: "+text)
	case c == codes.ResourceExhausted && strings.Contains(strings.ToLower(text), "larger than max"): // as all of gRPC's libraries say it
		resp.Fail(scorer.TooLarge, "the model's server does not take requests as large as this: "+text)
	case c == codes.ResourceExhausted:
		resp.Fail(scorer.Overloaded, "the model's server is overloaded: "+text)
	case c == codes.DeadlineExceeded:
		resp.Fail(scorer.DeadlineExceeded, "no answer in time")
	default:
		resp.Fail(scorer.ModelFailed, fmt.Sprintf("the model's server answered %v: %s", c, text))
	}
}

// probe implements server.
func (g *grpcServer) probe(ctx context.Context) error {
	var answer []byte
	if err := g.conn.Invoke(ctx, service+"ModelReady", appendModel(nil, g.model, g.its), &answer, grpc.WaitForReady(true)); err != nil {
		return err
	}
	ready, err := readReady(answer)
	if err == nil && !ready {
		err = errors.New("the model is not ready there")
	}
	return err
}

// describe implements server.
func (g *grpcServer) describe(ctx context.Context) (scorer.Offer, error) {
	var answer []byte
	if err := g.conn.Invoke(ctx, service+"ModelMetadata", appendModel(nil, g.model, g.its), &answer); err != nil {
		return scorer.Offer{}, err
	}
	platform, sig, err := readMetadata(answer)
	if err == nil {
		err = check(&sig)
	}
	if err == nil && (len(sig.Inputs) == 0 || len(sig.Outputs) == 0) {
		err = errors.New("it does not say what its model takes and gives; give it metadata, or call it over HTTP")
	}
	if err != nil {
		return scorer.Offer{}, err
	}
	o := scorer.Offer{Platform: platform, Signature: sig}
	g.offer.Store(&o)
	return o, nil
}

// tidy implements server.
func (g *grpcServer) tidy() {}

// close implements server. Requests that are under way are answered first.
func (g *grpcServer) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.tasks.Wait()
	_ = g.conn.Close() // only fails when it is closed already
}
