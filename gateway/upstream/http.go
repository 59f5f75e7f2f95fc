package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/accel/tensor"
	"sluice.dev/gateway/header"
	"sluice.dev/scorer"
)

// HTTP is servers that are called over HTTP/1.1.
type HTTP struct {
	URLs     []string
	Protocol Protocol
	Path     string            // of AzureML's scoring route; empty means /score
	Model    string            // at the servers, of OIP; empty means the endpoint's name
	Version  string            // at the servers, of OIP; empty leaves it to them
	Headers  map[string]string // that every request gets
	TLS      *TLS              // of https URLs; nil is the default
}

// Protocol is what an HTTP server speaks.
type Protocol uint8

// The protocols.
const (
	AzureML Protocol = iota
	OIP
)

const (
	dialWithin = 5 * time.Second  // TLS included
	idleFor    = 30 * time.Second // until an idle connection is closed
	maxIdle    = 512              // connections
)

// httpServer is one HTTP server. It implements scorer.Scorer.
//
// Its idle connections are a stack: those that were used last are used next, and
// the others grow old and are closed.
type httpServer struct {
	azure   bool
	score   []byte // a request's head up to the value of Content-Length
	base    string // of URLs
	model   string // path of the model, of OIP
	probes  string // URL
	headers map[string]string
	maxBody int
	dial    func(context.Context) (net.Conn, error)
	secure  *tls.Config // nil is plain
	client  *http.Client
	lost    func() // a request met nobody
	log     *slog.Logger
	busy    atomic.Int64 // requests under way
	seen    atomic.Int64 // answers that came

	mu     sync.Mutex
	idle   []*conn
	closed bool
	tasks  sync.WaitGroup
}

// newHTTP makes the server at address, a URL.
func newHTTP(c *Config, address string, lost func()) (*httpServer, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("the URL of a model's server is not one")
	}
	prefix := strings.TrimSuffix(u.EscapedPath(), "/")
	h := &httpServer{
		azure: c.HTTP.Protocol == AzureML, base: u.Scheme + "://" + u.Host + prefix, headers: c.HTTP.Headers,
		maxBody: c.MaxBody, lost: lost, log: c.Log,
	}
	path, health := h.paths(c)
	h.probes = h.base + health
	h.score = fmt.Appendf(nil, "POST %s%s HTTP/1.1\r\nHost: %s\r\nAccept-Encoding: identity\r\n", prefix, path, u.Host)
	for name, value := range c.HTTP.Headers {
		h.score = fmt.Appendf(h.score, "%s: %s\r\n", name, value)
	}
	h.score = append(h.score, "Content-Length: "...)
	port := u.Port()
	if u.Scheme == "https" {
		if h.secure, err = c.HTTP.TLS.config(u.Hostname()); err != nil {
			return nil, err
		}
		port = cmp.Or(port, "443")
	}
	at := net.JoinHostPort(u.Hostname(), cmp.Or(port, "80"))
	var d net.Dialer
	h.dial = func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", at) }
	h.client = &http.Client{
		Transport:     &http.Transport{TLSClientConfig: h.secure, DisableKeepAlives: true, MaxResponseHeaderBytes: maxHead},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return h, nil
}

// paths are those of scoring and of health.
func (h *httpServer) paths(c *Config) (score, health string) {
	if h.azure {
		return cmp.Or(c.HTTP.Path, "/score"), cmp.Or(c.Health.Path, "/")
	}
	h.model = "/v2/models/" + url.PathEscape(cmp.Or(c.HTTP.Model, c.Endpoint))
	if c.HTTP.Version != "" {
		h.model += "/versions/" + url.PathEscape(c.HTTP.Version)
	}
	return h.model + "/infer", cmp.Or(c.Health.Path, h.model+"/ready")
}

// Score implements scorer.Scorer. A request that met a connection which its server
// had closed already, and of which the server got nothing, is sent once more on
// a new one.
func (h *httpServer) Score(req *scorer.Request, resp *scorer.Response) {
	if !h.takes(req.Kind) {
		resp.Fail(scorer.Unsupported, h.speaks())
		return
	}
	h.busy.Add(1)
	if reused := h.send(req, resp, false); reused && resp.NotStarted {
		resp.Reset()
		h.send(req, resp, true)
	}
	if resp.NotStarted {
		h.seen.Store(0)
		h.lost() // whoever called will not come back before the server is offered anew
	}
	h.busy.Add(-1)
}

func (h *httpServer) takes(k scorer.Kind) bool {
	if h.azure {
		return k == scorer.AML
	}
	return k == scorer.OIP || k == scorer.Raw
}

func (h *httpServer) speaks() string {
	if h.azure {
		return "this version is a server that speaks Azure ML's protocol only; POST to /api/v1/service/ENDPOINT/score"
	}
	return "this version is a server that speaks the Open Inference Protocol only; POST to /v2/models/ENDPOINT/infer"
}

// send sends req, and reports whether on a connection that had been used before.
func (h *httpServer) send(req *scorer.Request, resp *scorer.Response, fresh bool) (reused bool) {
	x := exchange{wait: req.Wait, ticket: req.Wait.Arm(), resp: resp}
	var c *conn
	var sent chan struct{}
	for begun := false; !begun; {
		if c = h.take(fresh); c == nil {
			x.refuse("the model's server is not used any more; try again")
			x.wait.Wait()
			return false
		}
		reused = c.used
		sent, begun = c.begin(x, req)
	}
	finished := x.wait.Wait()
	if !finished {
		c.abandon(x)
	}
	if sent != nil {
		<-sent // the body is not read any more
	}
	if !finished {
		resp.GiveUp(req)
	}
	return reused
}

// take finds an idle connection, or makes one. nil: the server is closed.
func (h *httpServer) take(fresh bool) *conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	if n := len(h.idle); n > 0 && !fresh {
		c := h.idle[n-1]
		h.idle = h.idle[:n-1]
		return c
	}
	h.tasks.Add(1)
	return newConn(h)
}

// put takes a connection that may be used again.
func (h *httpServer) put(c *conn) {
	h.mu.Lock()
	full := h.closed || len(h.idle) == maxIdle
	if !full {
		c.since = scorer.Now()
		h.idle = append(h.idle, c)
	}
	h.mu.Unlock()
	if full {
		c.kill()
	}
}

// drop forgets a connection that ended.
func (h *httpServer) drop(c *conn) {
	h.mu.Lock()
	if i := slices.Index(h.idle, c); i >= 0 {
		h.idle = slices.Delete(h.idle, i, i+1)
	}
	h.mu.Unlock()
}

// tidy implements server: it closes connections that were idle for too long.
func (h *httpServer) tidy() {
	now, old := scorer.Now(), 0
	h.mu.Lock()
	for old < len(h.idle) && now.Sub(h.idle[old].since) > idleFor {
		old++
	}
	ended := slices.Clone(h.idle[:old])
	h.idle = slices.Delete(h.idle, 0, old)
	h.mu.Unlock()
	for _, c := range ended {
		c.kill()
	}
}

// close implements server. Requests that are under way are answered first.
func (h *httpServer) close() {
	h.mu.Lock()
	h.closed = true
	ended := h.idle
	h.idle = nil
	h.mu.Unlock()
	for _, c := range ended {
		c.kill()
	}
	h.tasks.Wait()
}

// appendHead appends a request's head.
func (h *httpServer) appendHead(dst []byte, req *scorer.Request) []byte {
	dst = strconv.AppendInt(append(dst, h.score...), int64(len(req.Body)), 10)
	switch {
	case req.Kind == scorer.Raw:
		dst = append(dst, "\r\nContent-Type: application/octet-stream\r\nInference-Header-Content-Length: 0"...)
	case req.HeadLength > 0:
		dst = append(dst, "\r\nContent-Type: application/octet-stream\r\nInference-Header-Content-Length: "...)
		dst = strconv.AppendInt(dst, int64(req.HeadLength), 10)
	default:
		dst = append(dst, "\r\nContent-Type: application/json"...)
	}
	dst = append(dst, "\r\nX-Request-Timeout-Ms: "...)
	dst = strconv.AppendInt(dst, max(req.Deadline.Sub(scorer.Now()).Milliseconds(), 1), 10)
	if req.Trace != (scorer.Trace{}) {
		dst = header.AppendTrace(append(dst, "\r\nTraceparent: "...), &req.Trace)
	}
	if len(req.State) > 0 {
		dst = append(append(dst, "\r\nTracestate: "...), req.State...)
	}
	if len(req.ID) > 0 {
		dst = append(append(dst, "\r\nX-Request-Id: "...), req.ID...)
	}
	return append(dst, "\r\n\r\n"...)
}

// get asks for url, and returns the body of an answer 200.
func (h *httpServer) get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	for name, value := range h.headers {
		req.Header.Set(name, value)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	const most = 1 << 20
	body, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answered %d", resp.StatusCode)
	}
	return body, err
}

// probe implements server. A server that has answered since the last probe is
// not asked, and one of Azure ML's, which does one thing at a time, has time until
// it is done.
func (h *httpServer) probe(ctx context.Context) error {
	if h.seen.Swap(0) > 0 {
		return nil
	}
	_, err := h.get(ctx, h.probes)
	if h.azure && h.busy.Load() > 0 && errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// describe implements server. Servers of Azure ML do not tell what they take, and
// others may not; they can score all the same.
func (h *httpServer) describe(ctx context.Context) (scorer.Offer, error) {
	if h.azure {
		return scorer.Offer{Platform: "azureml"}, nil
	}
	var said struct {
		Platform string
		tensor.Signature
	}
	body, err := h.get(ctx, h.base+h.model)
	if err == nil {
		err = json.Unmarshal(body, &said)
	}
	if err == nil {
		err = check(&said.Signature)
	}
	if err != nil {
		h.log.Debug("a model's server does not say what it takes", "server", h.base, "error", err)
		return scorer.Offer{}, nil
	}
	return scorer.Offer{Platform: said.Platform, Signature: said.Signature}, nil
}
