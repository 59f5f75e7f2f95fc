package httpapi

import (
	"github.com/valyala/fasthttp"

	"sluice.dev/gateway"
)

// Web pages may call an endpoint from a browser where its specification names their
// origin. The browser asks first, without a credential; that an answer says who may
// read it is all that holds it back.
// Source: https://fetch.spec.whatwg.org/#http-cors-protocol

var (
	keyAllowOrigin      = []byte("Access-Control-Allow-Origin")
	keyAllowCredentials = []byte("Access-Control-Allow-Credentials")
	keyAllowMethods     = []byte("Access-Control-Allow-Methods")
	keyAllowHeaders     = []byte("Access-Control-Allow-Headers")
	keyExposeHeaders    = []byte("Access-Control-Expose-Headers")
	keyMaxAge           = []byte("Access-Control-Max-Age")

	anyOrigin = []byte("*")
	yes       = []byte("true")
	keyOrigin = []byte("Origin")
)

// share lets the pages of an origin, which may be empty, read an answer, if they
// may. It reports whether they may.
func share(out *fasthttp.Response, c *gateway.CORS, origin []byte) bool {
	if c.Origins != nil {
		varies(out, keyOrigin) // whoever keeps the answer must ask anew for another
	}
	if len(origin) == 0 || !c.Allows(origin) {
		return false
	}
	if c.Origins == nil {
		origin = anyOrigin
	}
	out.Header.SetCanonical(keyAllowOrigin, origin)
	if c.Credentials {
		out.Header.SetCanonical(keyAllowCredentials, yes)
	}
	out.Header.SetCanonical(keyExposeHeaders, c.Read)
	return true
}

// preflight answers a browser that asks whether a page may make a request. False:
// that is not what was asked, or the endpoint lets no page call.
func (s *Server) preflight(ctx *fasthttp.RequestCtx, t target) bool {
	r := &ctx.Request.Header
	origin := r.Peek("Origin")
	if len(origin) == 0 || len(r.Peek("Access-Control-Request-Method")) == 0 {
		return false
	}
	name, ok := unescape(t.name)
	e := s.path.Snapshot().Endpoint(name)
	if !ok || e == nil || e.CORS == nil {
		return false
	}
	if !share(&ctx.Response, e.CORS, origin) {
		reply(ctx, fasthttp.StatusForbidden, map[string]string{"error": "pages of this origin may not call the endpoint; its specification names those that may in cors.allowOrigins"})
		return true
	}
	out := &ctx.Response.Header
	out.DelBytes(keyExposeHeaders) // of the answer proper
	out.SetCanonical(keyAllowMethods, []byte(allow(t.op)))
	out.SetCanonical(keyAllowHeaders, e.CORS.Sent)
	out.SetCanonical(keyMaxAge, e.CORS.MaxAge)
	ctx.Response.SetStatusCode(fasthttp.StatusNoContent)
	return true
}
