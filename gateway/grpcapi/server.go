// Package grpcapi is the gRPC front end: the Open Inference Protocol with Triton's
// extensions, and TF Serving, each scoring request turned into one call of the
// request path. Bodies of requests go through unread but for their names.
package grpcapi

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"sluice.dev/gateway"
	"sluice.dev/gateway/grpcapi/inferencepb"
	"sluice.dev/gateway/grpcapi/tfservingpb"
	"sluice.dev/gateway/triton"
)

// Config of a Server. The zero value is the default.
type Config struct {
	MaxBody        int           // bytes of a message, in both directions and uncompressed; 0 means 100 MiB
	MaxReceiving   int64         // bytes of messages that have not come to their end, in sum; 0 means 1 GiB
	MaxHeader      uint32        // bytes of a call's metadata; 0 means 16 KiB
	MaxConnections int           // at a time; 0 means 65,536
	MaxStreams     uint32        // calls of a connection at a time; 0 means 1,024
	MaxInFlight    int           // requests of one ModelStreamInfer at a time; 0 means 64
	IdleTimeout    time.Duration // without a call, then a connection is closed; 0 means five minutes
	TLS            *tls.Config   // nil serves plain HTTP/2
	Log            *slog.Logger
	Access         gateway.AccessLog
	Version        string             // of the server, in its metadata
	Triton         *triton.Extensions // nil has those that need no more than the path
}

func (c *Config) setDefaults() {
	c.MaxBody = cmp.Or(c.MaxBody, 100<<20)
	c.MaxReceiving = cmp.Or(c.MaxReceiving, 1<<30)
	c.MaxHeader = cmp.Or(c.MaxHeader, 16<<10)
	c.MaxConnections = cmp.Or(c.MaxConnections, 64<<10)
	c.MaxStreams = cmp.Or(c.MaxStreams, 1<<10)
	c.MaxInFlight = cmp.Or(c.MaxInFlight, 64)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 5*time.Minute)
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
}

// How connections are kept alive. Clients of Triton ping every 200 ms, idle or not.
const (
	pingClients  = time.Minute // without a sign of the client, then it is asked for one
	pingPatience = 20 * time.Second
	pingsAtLeast = 100 * time.Millisecond // between those of a client
)

// workers are goroutines that serve calls one after another, so that most need not
// grow a stack of their own. When all are busy, a call gets a goroutine.
const workers = 64

// Windows of flow control, in bytes: what a client may send of a call that nobody reads.
// A message that is being read has its length. What a connection may send does not
// count, since its calls' windows do.
const (
	callWindow = 64 << 10
	connWindow = 16 << 20
)

// Server serves one path over gRPC.
type Server struct {
	config   Config
	path     *gateway.Path
	grpc     *grpc.Server
	receipts *receipts

	drain     chan struct{} // closed when the server is no longer ready
	drainOnce sync.Once
	stop      chan struct{} // closed when streams have to end
	stopOnce  sync.Once
}

// New makes a server of p. Shutdown ends it.
func New(p *gateway.Path, c Config) *Server {
	c.setDefaults()
	if c.Triton == nil {
		c.Triton = triton.New(triton.Config{Path: p})
	}
	s := &Server{config: c, path: p, receipts: &receipts{most: c.MaxReceiving, conns: map[*receipt]struct{}{}}, drain: make(chan struct{}), stop: make(chan struct{})}
	s.grpc = grpc.NewServer(s.options()...)
	s.grpc.RegisterService(s.inferenceService(), inferenceServer{s: s})
	s.grpc.RegisterService(s.predictionService(), predictionServer{s: s})
	tfservingpb.RegisterModelServiceServer(s.grpc, modelServer{s})
	grpc_health_v1.RegisterHealthServer(s.grpc, health{s: s})
	reflection.Register(s.grpc)
	return s
}

func (s *Server) options() []grpc.ServerOption {
	c, secure := &s.config, insecure.NewCredentials()
	if c.TLS != nil {
		secure = credentials.NewTLS(c.TLS)
	}
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(bytesCodec{}),
		grpc.Creds(counted{secure, s.receipts}),
		grpc.InTapHandle(s.tap),
		grpc.UnaryInterceptor(s.recovering),
		grpc.MaxRecvMsgSize(c.MaxBody),
		grpc.MaxSendMsgSize(c.MaxBody),
		grpc.MaxHeaderListSize(c.MaxHeader),
		grpc.MaxConcurrentStreams(c.MaxStreams),
		grpc.StaticStreamWindowSize(callWindow),
		grpc.StaticConnWindowSize(connWindow),
		grpc.NumStreamWorkers(workers),
		grpc.WaitForHandlers(true),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: c.IdleTimeout, Time: pingClients, Timeout: pingPatience}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingsAtLeast, PermitWithoutStream: true}),
	}
}

// handlers are the methods of a service that score, by name.
type handlers map[string]func(context.Context, *request) (*answer, error)

// unread is a generated service, but for methods: their bodies go through unread.
func unread(d grpc.ServiceDesc, methods handlers) *grpc.ServiceDesc {
	d.Methods = slices.Clone(d.Methods)
	for i := range d.Methods {
		if handle, ok := methods[d.Methods[i].MethodName]; ok {
			d.Methods[i].Handler = func(_ any, ctx context.Context, read func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				return unary(ctx, read, handle)
			}
		}
	}
	return &d
}

// inferenceService is the Open Inference Protocol.
func (s *Server) inferenceService() *grpc.ServiceDesc {
	d := unread(inferencepb.GRPCInferenceService_ServiceDesc, handlers{"ModelInfer": s.modelInfer})
	d.Streams = []grpc.StreamDesc{{
		StreamName: "ModelStreamInfer", ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error { return s.modelStreamInfer(stream) },
	}}
	return d
}

// Serve serves l until Shutdown.
func (s *Server) Serve(l net.Listener) error {
	if err := s.grpc.Serve(netutil.LimitListener(l, s.config.MaxConnections)); err != nil {
		return fmt.Errorf("serve grpc: %w", err)
	}
	return nil
}

// Drain makes the server report that it is not ready, while it goes on serving.
func (s *Server) Drain() { s.drainOnce.Do(func() { close(s.drain) }) }

func (s *Server) draining() bool {
	select {
	case <-s.drain:
		return true
	default:
		return false
	}
}

// Shutdown stops listening and returns when every request has its answer and every
// connection is closed. Streams are ended when what they have in flight is answered.
// When ctx ends first, all are cut off, and ctx's error is returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Drain()
	s.stopOnce.Do(func() { close(s.stop) })
	done := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.grpc.Stop()
		<-done
		return ctx.Err()
	}
}
