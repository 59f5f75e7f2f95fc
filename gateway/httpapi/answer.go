package httpapi

import (
	"errors"
	"strconv"

	"github.com/valyala/fasthttp"

	"sluice.dev/auth"
	"sluice.dev/gateway"
	"sluice.dev/gateway/header"
	"sluice.dev/scorer"
	"sluice.dev/scorer/codec"
)

var (
	typeJSON   = []byte("application/json")
	typeBinary = []byte("application/octet-stream")

	keyDeployment = []byte("Azureml-Model-Deployment")
	keyVersion    = []byte("X-Sluice-Version")
	keyVariant    = []byte("X-Sluice-Variant")
	keyAssign     = []byte("X-Sluice-Assign")
	keyGeneration = []byte("X-Sluice-Generation")
	keyRequest    = []byte("X-Request-Id")
	keyMSRequest  = []byte("X-Ms-Request-Id")
	keyMSClient   = []byte("X-Ms-Client-Request-Id")
	keyRunMillis  = []byte("X-Ms-Run-Fn-Exec-Ms")
	keyRunFailed  = []byte("X-Ms-Run-Function-Failed")
	keyHeadLength = []byte("Inference-Header-Content-Length")
	keyTraceID    = []byte("Traceid")
	keyTrace      = []byte("Traceresponse")
	keyTiming     = []byte("Server-Timing")
	keyRetryAfter = []byte("Retry-After")
	keyChallenge  = []byte("Www-Authenticate")
)

// code is the one switch from statuses to HTTP.
func code(s scorer.Status) int {
	switch s {
	case scorer.OK:
		return fasthttp.StatusOK
	case scorer.InvalidArgument:
		return fasthttp.StatusBadRequest
	case scorer.NotFound:
		return fasthttp.StatusNotFound
	case scorer.Unauthenticated:
		return fasthttp.StatusUnauthorized
	case scorer.PermissionDenied:
		return fasthttp.StatusForbidden
	case scorer.Exhausted:
		return fasthttp.StatusTooManyRequests
	case scorer.Overloaded, scorer.Unavailable:
		return fasthttp.StatusServiceUnavailable
	case scorer.DeadlineExceeded:
		return fasthttp.StatusGatewayTimeout
	case scorer.Canceled:
		return 499 // nobody reads it; nginx's code, for logs
	case scorer.TooLarge:
		return fasthttp.StatusRequestEntityTooLarge
	case scorer.Unsupported:
		return fasthttp.StatusNotImplemented
	case scorer.MethodNotAllowed:
		return fasthttp.StatusMethodNotAllowed
	case scorer.ModelFailed:
		return fasthttp.StatusBadGateway
	}
	return fasthttp.StatusInternalServerError
}

// answer writes a call's answer.
func (s *Server) answer(ctx *fasthttp.RequestCtx, c *gateway.Call, h *headers, t target) {
	r, out := &c.Response, &ctx.Response
	identify(out, h, c.ID)
	if c.Endpoint != nil && c.Endpoint.CORS != nil {
		share(out, c.Endpoint.CORS, h.origin)
	}
	if v := c.Version; v != nil {
		tag(out, v, c)
	}
	if h.timing {
		var text [128]byte
		out.Header.SetCanonical(keyTiming, c.Times().Append(text[:0]))
	}
	if t.op == opScore {
		timing(out, r)
	}
	if r.Status != scorer.OK && r.Code == 0 {
		s.fail(ctx, c, t.op)
		return
	}
	if r.Code != 0 {
		hint(out, r.Status)
		out.SetStatusCode(r.Code)
	}
	out.Header.SetContentTypeBytes(typeJSON)
	if len(r.ContentType) > 0 {
		out.Header.SetContentTypeBytes(r.ContentType)
	}
	if r.HeadLength > 0 {
		var digits [20]byte
		out.Header.SetContentTypeBytes(typeBinary)
		out.Header.SetCanonical(keyHeadLength, strconv.AppendInt(digits[:0], int64(r.HeadLength), 10))
	}
	r.Body = out.SwapBody(r.Body)
	if len(out.Body()) >= compressFrom {
		compress(ctx)
	}
}

// identify gives the request's ids back, and the trace that it belongs to.
func identify(out *fasthttp.Response, h *headers, id []byte) {
	out.Header.SetCanonical(keyRequest, id)
	if len(h.traceID) > 0 && len(h.traceID) <= header.MaxID {
		out.Header.SetCanonical(keyTraceID, h.traceID)
	}
	if h.trace != (scorer.Trace{}) {
		var text [55]byte
		out.Header.SetCanonical(keyTrace, header.AppendTrace(text[:0], &h.trace))
	}
	if len(h.clientID) == 0 || len(h.clientID) > header.MaxID {
		out.Header.SetCanonical(keyMSRequest, id)
		return
	}
	out.Header.SetCanonical(keyMSRequest, h.clientID)
	out.Header.SetCanonical(keyMSClient, h.clientID)
}

// tag names what served the request.
func tag(out *fasthttp.Response, v *gateway.Version, c *gateway.Call) {
	tags := v.Tags()
	out.Header.SetCanonical(keyDeployment, tags.Name)
	out.Header.SetCanonical(keyVersion, tags.Name)
	out.Header.SetCanonical(keyVariant, tags.Variant)
	out.Header.SetCanonical(keyAssign, tags.Reasons[c.Reason])
	out.Header.SetCanonical(keyGeneration, c.Generation)
}

var texts = map[bool][]byte{true: []byte("True"), false: []byte("False")}

// timing adds what Azure ML's server says about the run.
func timing(out *fasthttp.Response, r *scorer.Response) {
	var digits [32]byte
	if r.Status == scorer.OK {
		out.Header.SetCanonical(keyRunMillis, gateway.AppendMillis(digits[:0], r.Device))
	}
	out.Header.SetCanonical(keyRunFailed, texts[r.Status == scorer.ModelFailed || r.Status == scorer.DeadlineExceeded])
}

// fail writes an error in the protocol's own form: {"error": text}, and for
// Azure ML's routes {"message": text, "code": status}.
func (s *Server) fail(ctx *fasthttp.RequestCtx, c *gateway.Call, o op) {
	r, out := &c.Response, &ctx.Response
	hint(out, r.Status)
	challenge(out, c.Refusal)
	if c.RetryIn > 0 {
		out.Header.SetCanonical(keyRetryAfter, strconv.AppendInt(nil, c.RetrySeconds(), 10))
	}
	body := out.SwapBody(nil)[:0]
	if o == opScore {
		body = append(append(append(body, `{"code":"`...), r.Status.String()...), `","message":`...)
		body = append(codec.AppendString(body, string(r.Body)), '}')
	} else {
		body = codec.AppendError(body, string(r.Body))
	}
	out.SetStatusCode(code(r.Status))
	out.Header.SetContentTypeBytes(typeJSON)
	out.SwapBody(body)
}

var keyVary = []byte("Vary")

// varies tells whoever keeps an answer that another may come with another value of
// a header.
func varies(out *fasthttp.Response, by []byte) {
	if before := out.Header.PeekBytes(keyVary); len(before) > 0 {
		by = append(append(append([]byte(nil), before...), ", "...), by...)
	}
	out.Header.SetCanonical(keyVary, by)
}

// hint adds the header that tells a client what to do about a status.
func hint(out *fasthttp.Response, s scorer.Status) {
	switch s {
	case scorer.Overloaded, scorer.Unavailable, scorer.Exhausted:
		out.Header.SetCanonical(keyRetryAfter, []byte("1"))
	}
}

// challenge tells a client that was not let in which credential would be, as far as
// it may know (RFC 6750, section 3).
func challenge(out *fasthttp.Response, refusal error) {
	text := `Bearer realm="sluice"`
	var lacking *auth.Lacking
	switch {
	case errors.Is(refusal, auth.ErrMissing):
	case errors.Is(refusal, auth.ErrSeveral):
		text += `, error="invalid_request"`
	case errors.Is(refusal, auth.ErrEnded):
		text += `, error="invalid_token", error_description="the token has expired or was revoked"`
	case errors.Is(refusal, auth.ErrInvalid):
		text += `, error="invalid_token"`
	case errors.As(refusal, &lacking):
		text += `, error="insufficient_scope", scope="` + lacking.Scope + `"` // a scope has no quotes
	case errors.Is(refusal, auth.ErrForbidden):
		text += `, error="insufficient_scope"`
	default:
		return
	}
	out.Header.SetCanonical(keyChallenge, []byte(text))
}

// refuse answers a request that is not for the path. What is not clean ends its
// connection, since where the next request begins is not certain.
func (s *Server) refuse(ctx *fasthttp.RequestCtx, status int, message string) {
	ctx.Response.SetStatusCode(status)
	ctx.Response.Header.SetContentTypeBytes(typeJSON)
	ctx.Response.SetBody(codec.AppendError(nil, message))
	if status != fasthttp.StatusNotFound && status != fasthttp.StatusMethodNotAllowed {
		hangUp(ctx)
	}
}

// hangUp closes the connection of a request, which may not have been read to its
// end, behind the answer.
func hangUp(ctx *fasthttp.RequestCtx) {
	ctx.SetConnectionClose()
	ctx.Conn().(*conn).lingers = true
}
