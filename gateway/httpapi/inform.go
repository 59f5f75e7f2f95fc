package httpapi

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/valyala/fasthttp"

	"sluice.dev/accel/tensor"
	"sluice.dev/auth"
	"sluice.dev/gateway"
	"sluice.dev/scorer"
	"sluice.dev/scorer/codec"
)

// inform answers the routes that tell about the server and its models. Bodies
// have what clients of Triton and of KServe look for.
func (s *Server) inform(ctx *fasthttp.RequestCtx, t target) {
	switch t.op {
	case opServer:
		reply(ctx, fasthttp.StatusOK, map[string]any{"name": "sluice", "version": s.config.Version, "extensions": s.config.Triton.Names()})
	case opLive:
		reply(ctx, fasthttp.StatusOK, map[string]bool{"live": true})
	case opAlive:
		reply(ctx, fasthttp.StatusOK, map[string]string{"status": "alive"})
	case opReady:
		ready := !s.draining.Load() && s.path.Snapshot().AllReady()
		reply(ctx, readyCode(ready), map[string]bool{"ready": ready})
	case opModels:
		reply(ctx, fasthttp.StatusOK, map[string][]string{"models": slices.Sorted(maps.Keys(s.path.Snapshot().Endpoints()))})
	default:
		s.informModel(ctx, t)
	}
}

func readyCode(ready bool) int {
	if ready {
		return fasthttp.StatusOK
	}
	return fasthttp.StatusServiceUnavailable
}

// reply writes a JSON answer of a slow route.
func reply(ctx *fasthttp.RequestCtx, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = fasthttp.StatusInternalServerError, codec.AppendError(nil, "the answer could not be written")
	}
	ctx.Response.SetStatusCode(status)
	ctx.Response.Header.SetContentTypeBytes(typeJSON)
	ctx.Response.SetBody(body)
}

// informModel answers about one endpoint.
func (s *Server) informModel(ctx *fasthttp.RequestCtx, t target) {
	var h headers
	h.read(&ctx.Request.Header)
	name, ok := unescape(t.name)
	version, good := unescape(t.version)
	e := s.path.Snapshot().Endpoint(name)
	if !ok || !good || e == nil {
		s.refuse(ctx, fasthttp.StatusNotFound, "Request for unknown model: '"+string(name)+"' is not found")
		return
	}
	if e.CORS != nil {
		share(&ctx.Response, e.CORS, h.origin)
	}
	if !public(t.op) && !s.allowed(ctx, e, &h) {
		return
	}
	versions := e.Versions
	if len(version) > 0 {
		v := e.Find(version)
		if v == nil {
			s.refuse(ctx, fasthttp.StatusNotFound, "Request for unknown model: '"+string(name)+"' version "+string(version)+" is not found")
			return
		}
		versions = []*gateway.Version{v}
	}
	switch t.op {
	case opHealth:
		health(ctx, e)
	case opModelReady:
		modelReady(ctx, e, versions, len(version) > 0)
	case opV1Model:
		v1Model(ctx, e, versions)
	case opV1Metadata:
		s.describe(ctx, e, versions, v1Metadata)
	case opSwagger:
		s.describe(ctx, e, versions, swagger)
	default:
		s.describe(ctx, e, versions, metadata)
	}
}

// public reports whether an operation tells nothing but whether something is up.
func public(o op) bool { return o == opHealth || o == opModelReady }

// allowed checks the credential of a request that does not score.
func (s *Server) allowed(ctx *fasthttp.RequestCtx, e *gateway.Endpoint, h *headers) bool {
	err := auth.ErrSeveral
	if !h.several {
		_, err = e.Auth.Authenticate(h.credential)
	}
	if err == nil {
		return true
	}
	s.refuseWith(ctx, gateway.Refusal(err))
	return false
}

// health is Azure ML's liveness of a service.
func health(ctx *fasthttp.RequestCtx, e *gateway.Endpoint) {
	ctx.Response.Header.SetContentType("text/plain; charset=utf-8")
	if !e.Ready() {
		ctx.Response.SetStatusCode(fasthttp.StatusServiceUnavailable)
		ctx.Response.SetBodyString("Unhealthy")
		return
	}
	ctx.Response.SetBodyString("Healthy")
}

func modelReady(ctx *fasthttp.RequestCtx, e *gateway.Endpoint, versions []*gateway.Version, one bool) {
	ready := e.Ready()
	if one {
		ready = versions[0].Pool.Ready()
	}
	if !ready {
		reply(ctx, fasthttp.StatusServiceUnavailable, map[string]any{"name": e.Name, "ready": false, "error": "Model version not ready"})
		return
	}
	reply(ctx, fasthttp.StatusOK, map[string]any{"name": e.Name, "ready": true})
}

// describe answers with a document about the first of versions that is loaded,
// and says what it takes if one of them does.
func (s *Server) describe(ctx *fasthttp.RequestCtx, e *gateway.Endpoint, versions []*gateway.Version, document func(*gateway.Endpoint, []string, scorer.Offer) []byte) {
	names := make([]string, len(versions))
	for i, v := range versions {
		names[i] = v.Name
	}
	_, offer, err := e.Describe(versions)
	if err != nil {
		reply(ctx, fasthttp.StatusServiceUnavailable, map[string]string{"error": err.Error()})
		return
	}
	ctx.Response.Header.SetContentTypeBytes(typeJSON)
	ctx.Response.SetBody(document(e, names, offer))
}

func metadata(e *gateway.Endpoint, versions []string, o scorer.Offer) []byte {
	return codec.AppendMetadata(nil, e.Name, versions, o.Platform, &o.Signature)
}

// object is a JSON object of a document.
type object = map[string]any

// swagger is the Swagger 2.0 document of Azure ML's routes.
func swagger(e *gateway.Endpoint, _ []string, o scorer.Offer) []byte {
	prefix := "/api/v1/service/" + e.Name
	answers := func(schema object, also ...int) object {
		r := object{"200": object{"description": "The answer", "schema": schema}}
		for _, status := range also {
			r[strconv.Itoa(status)] = object{"description": fasthttp.StatusMessage(status), "schema": object{"$ref": "#/definitions/ErrorResponse"}}
		}
		return r
	}
	security := []object{{"Bearer": []string{}}}
	if _, err := e.Auth.Authenticate(nil); err == nil {
		security = []object{}
	}
	body, _ := json.Marshal(object{ // of plain values: cannot fail
		"swagger": "2.0", "schemes": []string{"http", "https"}, "consumes": []string{"application/json"}, "produces": []string{"application/json"},
		"info":                object{"title": e.Name, "version": "1.0", "description": "Scoring of endpoint " + e.Name},
		"securityDefinitions": object{"Bearer": object{"type": "apiKey", "name": "Authorization", "in": "header", "description": "Bearer KEY"}},
		"paths": object{
			prefix + "/": object{"get": object{
				"operationId": "ServiceHealthCheck", "description": "Whether the service can score", "produces": []string{"text/plain"},
				"responses": answers(object{"type": "string"}),
			}},
			prefix + "/score": object{"post": object{
				"operationId": "RunMLService", "description": "Scores rows", "security": security,
				"parameters": []object{{"in": "body", "name": "serviceInputPayload", "required": true, "schema": object{"$ref": "#/definitions/ServiceInput"}}},
				"responses":  answers(object{"$ref": "#/definitions/ServiceOutput"}, 400, 401, 413, 502, 503, 504),
			}},
		},
		"definitions": object{
			"ServiceInput":  schemaOf(o.Signature.Inputs, true),
			"ServiceOutput": schemaOf(o.Signature.Outputs, false),
			"ErrorResponse": object{"type": "object", "properties": object{"code": object{"type": "string"}, "message": object{"type": "string"}}},
		},
	})
	return body
}

// maxFloat32 is, as it is written in decimal, the largest that rounds to a float32.
const maxFloat32 = 0x1.ffffffp127

// ranges are what an input's values are refused beyond.
var ranges = map[tensor.DType][2]any{
	tensor.Uint8: {0, math.MaxUint8}, tensor.Uint16: {0, math.MaxUint16}, tensor.Uint32: {0, math.MaxUint32}, tensor.Uint64: {0, uint64(math.MaxUint64)},
	tensor.Int8: {math.MinInt8, math.MaxInt8}, tensor.Int16: {math.MinInt16, math.MaxInt16}, tensor.Int32: {math.MinInt32, math.MaxInt32},
	tensor.Int64: {math.MinInt64, math.MaxInt64}, tensor.Float32: {-maxFloat32, maxFloat32},
}

// schemaOf describes tensors as an object of nested arrays.
func schemaOf(tensors []tensor.Info, inputs bool) object {
	properties, names := object{}, make([]string, len(tensors))
	for k, t := range tensors {
		kind := "number"
		switch {
		case t.DType == tensor.Bytes:
			kind = "string"
		case t.DType == tensor.Bool:
			kind = "boolean"
		case t.DType < tensor.Float16:
			kind = "integer"
		}
		schema := object{"type": kind}
		if b, ok := ranges[t.DType]; ok && inputs {
			schema["minimum"], schema["maximum"] = b[0], b[1]
		}
		for i, d := range slices.Backward(t.Shape) {
			schema = object{"type": "array", "items": schema}
			switch {
			case d >= 0:
				schema["minItems"], schema["maxItems"] = d, d
			case i == 0:
				schema["minItems"] = 1 // rows
			}
		}
		properties[t.Name], names[k] = schema, t.Name
	}
	return object{"type": "object", "properties": properties, "required": names}
}
