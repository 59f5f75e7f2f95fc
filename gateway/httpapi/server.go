// Package httpapi is the HTTP front end: Azure ML's scoring routes and the Open
// Inference Protocol, each turned into one call of the request path.
package httpapi

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"sluice.dev/auth"
	"sluice.dev/gateway"
	"sluice.dev/gateway/header"
	"sluice.dev/gateway/triton"
	"sluice.dev/scorer"
)

// Config of a Server. The zero value is the default.
type Config struct {
	MaxBody        int   // bytes of a request's body; 0 means 100 MiB
	MaxLarge       int64 // bytes of bodies over 64 KiB at a time; 0 means 1 GiB
	MaxHeader      int   // bytes of a request's head; 0 means 16 KiB
	MaxFields      int   // header lines of a request; 0 means 100
	MaxConnections int   // at a time; 0 means 65,536

	// MaxConnectionsPerClient is how many one client's address may have at a time;
	// 0 does not count, since many clients may come from one proxy's address.
	MaxConnectionsPerClient int

	HandshakeTimeout time.Duration // for a TLS handshake; 0 means ten seconds
	ReadTimeout      time.Duration // for a whole request once it began; 0 means a minute
	IdleTimeout      time.Duration // between requests of a connection; 0 means five minutes
	ParkAfter        time.Duration // an idle connection gives its buffers back after it, or up to twice as late; 0 means a second
	WriteTimeout     time.Duration // for a client to take what is written at once; 0 means a minute
	TLS              *tls.Config   // nil serves plain HTTP
	Log              *slog.Logger
	Access           gateway.AccessLog
	Version          string             // of the server, in its metadata
	Triton           *triton.Extensions // nil has those that need no more than the path
}

func (c *Config) setDefaults() {
	c.MaxBody = cmp.Or(c.MaxBody, 100<<20)
	c.MaxLarge = cmp.Or(c.MaxLarge, 1<<30)
	c.MaxHeader = cmp.Or(c.MaxHeader, 16<<10)
	c.MaxFields = cmp.Or(c.MaxFields, 100)
	c.MaxConnections = cmp.Or(c.MaxConnections, 64<<10)
	c.HandshakeTimeout = cmp.Or(c.HandshakeTimeout, 10*time.Second)
	c.ParkAfter = cmp.Or(c.ParkAfter, time.Second)
	c.ReadTimeout = cmp.Or(c.ReadTimeout, time.Minute)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 5*time.Minute)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, time.Minute)
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
}

// Server serves one path over HTTP/1.1.
type Server struct {
	config   Config
	path     *gateway.Path
	http     *fasthttp.Server
	watch    *watch
	turns    chan struct{} // of TLS handshakes
	large    large
	draining atomic.Bool

	mu        sync.Mutex
	listeners []net.Listener
	down      bool // nothing is served any more
}

// New makes a server of p. Shutdown ends it.
func New(p *gateway.Path, c Config) *Server {
	c.setDefaults()
	if c.Triton == nil {
		c.Triton = triton.New(triton.Config{Path: p})
	}
	s := &Server{config: c, path: p, watch: newWatch(&c), turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
	s.large.most, s.large.each, s.large.from = c.MaxLarge, int64(c.MaxBody), int64(max(largeBody, c.MaxHeader))
	fasthttp.SetBodySizePoolLimit(maxKept, maxKept) // of every server of the process
	s.http = &fasthttp.Server{
		Handler:               s.handle,
		ErrorHandler:          s.broken,
		HeaderReceived:        s.received,
		ExpectHandler:         s.expects,
		ConnState:             changed,
		Name:                  "sluice",
		Concurrency:           2 * c.MaxConnections, // never reached: the listener counts
		MaxIdleWorkerDuration: 2 * c.ParkAfter,
		MaxRequestBodySize:    c.MaxBody,
		ReadBufferSize:        c.MaxHeader,
		NoDefaultContentType:  true,
		LazyRequestTime:       true,
		CloseOnShutdown:       true,
		SecureErrorLogMessage: true,
		Logger:                silent{},

		DisablePreParseMultipartForm: true,
	}
	return s
}

// framer is for a new connection.
func (s *Server) framer() framer {
	return framer{most: s.config.MaxHeader, fields: s.config.MaxFields, large: s.large.from}
}

// silent drops the library's log: what it says is a client's fault, and clients
// are told.
type silent struct{}

func (silent) Printf(string, ...any) {}

// Serve serves l until Shutdown.
func (s *Server) Serve(l net.Listener) error {
	if !s.open(l) {
		return nil
	}
	p, err := newPoller(s.watch)
	if err != nil {
		return err
	}
	defer p.stop()
	parked := make(chan error, 1)
	go func() { parked <- s.http.Serve(p) }()
	err = s.http.Serve(listener{l, s, p})
	_ = p.Close() // cannot fail
	if err = errors.Join(err, <-parked); err != nil {
		return fmt.Errorf("serve http: %w", err)
	}
	return nil
}

// open keeps l, so that Shutdown closes it whether the library knows it by then or
// not. False: Shutdown came first.
func (s *Server) open(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		_ = l.Close() // nobody has connected that was promised anything
		return false
	}
	s.listeners = append(s.listeners, l)
	return true
}

// Drain makes the server report that it is not ready, while it goes on serving.
func (s *Server) Drain() { s.draining.Store(true) }

// Ready reports whether the server wants traffic: it is not draining, and there
// is an endpoint that can serve.
func (s *Server) Ready() bool { return !s.draining.Load() && s.path.Snapshot().Ready() }

// Shutdown stops listening and returns when every request has its answer and
// every connection is closed, or with ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Drain()
	s.mu.Lock()
	s.down = true
	for _, l := range s.listeners {
		_ = l.Close() // an error means that it is closed already
	}
	s.mu.Unlock()
	s.watch.evictAll()
	defer s.watch.close()
	return s.http.ShutdownWithContext(ctx)
}

// handle answers one request.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	defer s.recovered(ctx)
	client := ctx.Conn().(*conn)
	defer client.release()
	client.enter(serving)
	r := &ctx.Request.Header
	t := parse(r.RequestURI())
	if t.op == opUnknown {
		s.refuse(ctx, fasthttp.StatusNotFound, "Not Found")
		return
	}
	if t.op >= opStats {
		s.extend(ctx, t, extensions[t.op])
		return
	}
	switch {
	case t.op.post() && r.IsPost(), t.op == opScore && r.IsGet():
		s.score(ctx, client, t)
	case !t.op.post() && (r.IsGet() || r.IsHead()):
		s.inform(ctx, t)
	case r.IsOptions() && s.preflight(ctx, t):
	default:
		ctx.Response.Header.Set("Allow", allow(t.op))
		s.refuse(ctx, fasthttp.StatusMethodNotAllowed, "Method Not Allowed")
	}
}

// allow names the methods that an operation may be called with.
func allow(o op) string {
	switch {
	case o == opScore:
		return "GET, POST"
	case o.post():
		return "POST"
	}
	return "GET, HEAD"
}

// recovered answers a request that met a bug, and keeps the process serving.
func (s *Server) recovered(ctx *fasthttp.RequestCtx) {
	if r := recover(); r != nil {
		s.config.Log.Error("request failed by a bug", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
		ctx.Response.Reset()
		s.refuse(ctx, fasthttp.StatusInternalServerError, "the request could not be answered")
	}
}

// score sends a request down the path.
func (s *Server) score(ctx *fasthttp.RequestCtx, client *conn, t target) {
	var h headers
	h.read(&ctx.Request.Header)
	if len(h.requestID) > header.MaxID || len(h.clientID) > header.MaxID {
		s.refuse(ctx, fasthttp.StatusRequestHeaderFieldsTooLarge, "a request id has at most 100 characters")
		return
	}
	began := scorer.Instant(0)
	if s.config.Access.Log != nil {
		began = scorer.Now()
	}
	c := s.path.Call()
	defer s.path.Done(c) // also where a scorer has a bug
	c.ID = header.AppendRequestID(c.ID, h.requestID)
	if status, message := s.prepare(ctx, c, &h, t); status != scorer.OK {
		c.Response.Fail(status, message)
	} else {
		s.serve(client, c)
	}
	wanted := s.config.Access.Wants(code(c.Response.Status) >= fasthttp.StatusInternalServerError)
	s.answer(ctx, c, &h, t)
	if wanted {
		s.access(ctx, c, &h, began)
	}
}

// serve serves a call for which client waits.
func (s *Server) serve(client *conn, c *gateway.Call) {
	client.begin(c)
	defer client.end()
	s.path.Serve(c)
}

// prepare fills in the call. A status other than OK answers it at once.
func (s *Server) prepare(ctx *fasthttp.RequestCtx, c *gateway.Call, h *headers, t target) (scorer.Status, string) {
	if h.several {
		c.Refusal = auth.ErrSeveral
		return gateway.Refuse(c.Refusal)
	}
	var named, pinned bool
	c.Name, named = unescape(t.name)
	c.Pin, pinned = unescape(t.version)
	if !named || !pinned {
		return scorer.InvalidArgument, "the path has a name that is not properly percent-encoded"
	}
	if len(c.Pin) == 0 {
		c.Pin = h.pin
	}
	c.Credential, c.Timeout, c.Headers = h.credential, h.timeout, &ctx.Request.Header
	c.SetTrace(h.trace, header.State(h.state))
	c.SetPriority(h.priority)
	c.SetCopy(h.mirror)
	if ctx.IsGet() {
		c.SetBody(scorer.AML, 0, queryBody(ctx.QueryArgs()))
		return scorer.OK, ""
	}
	if c.Unread = ctx.Request.Header.ContentLength() == unread; c.Unread {
		return scorer.OK, ""
	}
	body := ctx.Request.Body()
	if h.encoded && s.path.MayCall(c.Name, c.Credential) { // whom the path refuses gets no work done
		var status scorer.Status
		var message string
		if body, status, message = s.inflate(ctx); status != scorer.OK {
			return status, message
		}
	}
	return encode(c, t.op, h.headLength, body)
}

// encode sets the call's body with what is known about its form.
func encode(c *gateway.Call, o op, headLength int, body []byte) (scorer.Status, string) {
	switch {
	case o == opScore:
		c.SetBody(scorer.AML, 0, body)
	case o == opPredict:
		c.SetBody(scorer.V1, 0, body)
	case o == opClassify:
		c.SetBody(scorer.V1Classify, 0, body)
	case o == opRegress:
		c.SetBody(scorer.V1Regress, 0, body)
	case headLength == -1:
		c.SetBody(scorer.OIP, 0, body)
	case headLength == 0:
		c.SetBody(scorer.Raw, 0, body)
	case headLength < 0:
		return scorer.InvalidArgument, "Unable to parse Inference-Header-Content-Length: it must be a decimal number"
	case headLength > len(body):
		return scorer.InvalidArgument, fmt.Sprintf("inference header size should be in range (0, %d), got: %d", len(body), headLength)
	default:
		c.SetBody(scorer.OIP, headLength, body)
	}
	return scorer.OK, ""
}

// broken answers what the HTTP library could not read, and the connection closes.
func (s *Server) broken(ctx *fasthttp.RequestCtx, err error) {
	client := ctx.Conn().(*conn)
	client.release()
	var small *fasthttp.ErrSmallBuffer
	var timeout net.Error
	switch {
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		s.tooLarge(ctx)
	case client.unclean == noRoom:
		s.full(ctx)
	case client.unclean != nil:
		s.count(client.unclean.status)
		s.refuse(ctx, client.unclean.status, client.unclean.message)
	case errors.As(err, &small):
		s.count(badHead.status)
		s.refuse(ctx, badHead.status, badHead.message)
	case errors.As(err, &timeout) && timeout.Timeout():
		s.refuse(ctx, fasthttp.StatusRequestTimeout, "the request did not arrive in time")
	default:
		s.count(fasthttp.StatusBadRequest)
		s.refuse(ctx, fasthttp.StatusBadRequest, "the request is not clean HTTP/1.1")
	}
}

// count counts a request that is refused for its frame.
func (s *Server) count(status int) {
	w := whyFrame
	if status == badHead.status {
		w = whyHead
	}
	s.watch.refused[w].Add(1)
}
