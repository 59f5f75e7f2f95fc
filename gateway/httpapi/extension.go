package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"sluice.dev/auth"
	"sluice.dev/gateway"
	"sluice.dev/gateway/triton"
	"sluice.dev/scorer"
)

// maxManagement bounds the body of a request that manages, in bytes.
const maxManagement = largeBody

// parseExtension reads what follows /v2 on Triton's further routes:
//
//	/models/stats, /repository/index, /repository/models/NAME/{load,unload}
//	/logging, /trace/setting
//	/{system,cuda}sharedmemory[/region/NAME]/{status,register,unregister}
func parseExtension(rest []byte) target {
	switch string(rest) {
	case "/models/stats":
		return target{op: opStats}
	case "/repository/index":
		return target{op: opIndex}
	case "/logging":
		return target{op: opLogging}
	case "/trace/setting":
		return target{op: opTrace}
	}
	if model, ok := bytes.CutPrefix(rest, []byte("/repository/models/")); ok {
		name, what, _ := bytes.Cut(model, []byte("/"))
		return action(name, what, map[string]op{"load": opLoad, "unload": opUnload})
	}
	kinds := map[string]op{"status": opMemoryStatus, "register": opMemoryRegister, "unregister": opMemoryUnregister}
	region, ok := bytes.CutPrefix(rest, []byte("/systemsharedmemory/"))
	if !ok {
		if region, ok = bytes.CutPrefix(rest, []byte("/cudasharedmemory/")); !ok {
			return target{}
		}
		kinds = map[string]op{"status": opDeviceStatus, "register": opDeviceRegister, "unregister": opDeviceUnregister}
	}
	if named, ok := bytes.CutPrefix(region, []byte("region/")); ok {
		name, what, _ := bytes.Cut(named, []byte("/"))
		return action(name, what, kinds)
	}
	t := target{op: kinds[string(region)]}
	if t.op == opMemoryRegister || t.op == opDeviceRegister {
		return target{} // needs a name
	}
	return t
}

// action is what a route does with what it names.
func action(name, what []byte, ops map[string]op) target {
	if len(name) == 0 {
		return target{}
	}
	return target{op: ops[string(what)], name: name}
}

// extension says how Triton's further operations are called.
type extension struct {
	get, post bool
	manages   bool // is about the process, not about one endpoint
	answer    func(*Server, *request) (any, error)
}

var extensions = [...]extension{
	opStats:            {get: true, answer: (*Server).statistics},
	opConfig:           {get: true, answer: (*Server).modelConfig},
	opGenerate:         {post: true, answer: (*Server).generate},
	opExplain:          {post: true, answer: (*Server).explain},
	opIndex:            {post: true, manages: true, answer: (*Server).index},
	opLoad:             {post: true, manages: true, answer: (*Server).load},
	opUnload:           {post: true, manages: true, answer: (*Server).unload},
	opLogging:          {get: true, post: true, manages: true, answer: (*Server).logging},
	opTrace:            {get: true, post: true, manages: true, answer: (*Server).trace},
	opMemoryStatus:     {get: true, manages: true, answer: (*Server).memoryStatus},
	opMemoryRegister:   {post: true, manages: true, answer: (*Server).memoryRegister},
	opMemoryUnregister: {post: true, manages: true, answer: (*Server).memoryUnregister},
	opDeviceStatus:     {get: true, manages: true, answer: (*Server).deviceStatus},
	opDeviceRegister:   {post: true, manages: true, answer: (*Server).deviceRegister},
	opDeviceUnregister: {post: true, manages: true, answer: (*Server).deviceUnregister},
}

// allow names the methods that the operation may be called with.
func (e extension) allow() string {
	switch {
	case !e.post:
		return "GET"
	case !e.get:
		return "POST"
	}
	return "GET, POST"
}

// request is one that is about models or the process.
type request struct {
	credential    []byte
	name, version string
	body          []byte
	post          bool
	ctx           context.Context // ends when the server stops
}

// extend answers one of Triton's further routes.
func (s *Server) extend(ctx *fasthttp.RequestCtx, t target, e extension) {
	h, length := headers{}, ctx.Request.Header.ContentLength()
	h.read(&ctx.Request.Header)
	r := request{credential: h.credential, body: ctx.Request.Body(), post: ctx.IsPost(), ctx: ctx}
	name, named := unescape(t.name)
	version, versioned := unescape(t.version)
	r.name, r.version = string(name), string(version)
	var v any
	var err error
	switch {
	case !(e.get && ctx.IsGet() || e.post && r.post):
		ctx.Response.Header.Set("Allow", e.allow())
		err = scorer.Errorf(scorer.MethodNotAllowed, "Method Not Allowed")
	case h.several:
		err = gateway.Refusal(auth.ErrSeveral)
	case !named || !versioned:
		err = scorer.Errorf(scorer.InvalidArgument, "the path has a name that is not properly percent-encoded")
	case length > maxManagement || len(r.body) > maxManagement:
		err = scorer.Errorf(scorer.TooLarge, "the request's body exceeds %d bytes", maxManagement)
	case e.manages:
		err = s.config.Triton.Manage(r.credential, len(ctx.Request.Header.Peek("Origin")) > 0)
	}
	if err == nil {
		v, err = e.answer(s, &r)
	}
	if err != nil {
		s.refuseWith(ctx, err)
		return
	}
	ctx.Response.Header.SetContentTypeBytes(typeJSON)
	if v != nil {
		reply(ctx, fasthttp.StatusOK, v)
	}
}

// refuseWith answers a request that does not score with an error.
func (s *Server) refuseWith(ctx *fasthttp.RequestCtx, err error) {
	known := scorer.Known(err)
	hint(&ctx.Response, known.Status)
	challenge(&ctx.Response, err)
	reply(ctx, code(known.Status), map[string]string{"error": known.Message})
}

// statistics answers with Triton's body: what it has and we do not is empty.
func (s *Server) statistics(r *request) (any, error) {
	list, err := s.config.Triton.Statistics(r.credential, r.name, r.version)
	if err != nil {
		return nil, err
	}
	type model struct {
		triton.ModelStatistics
		Responses map[string]any `json:"response_stats"`
		Memory    []any          `json:"memory_usage"`
	}
	models := make([]model, len(list))
	for i := range list {
		models[i] = model{list[i], map[string]any{}, []any{}}
	}
	return map[string]any{"model_stats": models}, nil
}

func (s *Server) modelConfig(r *request) (any, error) {
	return s.config.Triton.ModelConfig(r.credential, r.name, r.version)
}

func (s *Server) generate(*request) (any, error) {
	return nil, scorer.Errorf(scorer.Unsupported, "generate and generate_stream are not offered: no model of this server produces text; use infer")
}

func (s *Server) explain(*request) (any, error) {
	return nil, scorer.Errorf(scorer.Unsupported, "explain is not offered; use predict")
}

// object reads the body as a JSON object; an empty one is empty.
func (r *request) object() (members map[string]json.RawMessage, err error) {
	if len(bytes.TrimSpace(r.body)) == 0 {
		return nil, nil
	}
	err = json.Unmarshal(r.body, &members)
	if err == nil && members == nil {
		err = errors.New("null is no object")
	}
	if err != nil {
		return nil, scorer.Errorf(scorer.InvalidArgument, "failed to parse the request JSON buffer: %v", err)
	}
	return members, nil
}

// reads reports whether v is of into's type, and then sets it. null is of none.
func reads(v json.RawMessage, into any) bool {
	return string(v) != "null" && json.Unmarshal(v, into) == nil
}

func (s *Server) index(r *request) (any, error) {
	members, err := r.object()
	if err != nil {
		return nil, err
	}
	ready := false
	if v, ok := members["ready"]; ok && !reads(v, &ready) {
		return nil, scorer.Errorf(scorer.InvalidArgument, "Invalid value for 'ready': expected a boolean")
	}
	return s.config.Triton.Index(ready), nil
}

// parameters are those of a load or unload.
func (r *request) parameters() (parameters map[string]json.RawMessage, err error) {
	members, err := r.object()
	if v, ok := members["parameters"]; ok && err == nil && !reads(v, &parameters) {
		err = scorer.Errorf(scorer.InvalidArgument, "Unable to parse 'parameters': attempt to access JSON non-object as object")
	}
	return parameters, err
}

func (s *Server) load(r *request) (any, error) {
	parameters, err := r.parameters()
	if err != nil {
		return nil, err
	}
	var config string
	files := false
	for name, v := range parameters {
		switch {
		case name == "config":
			if !reads(v, &config) {
				return nil, scorer.Errorf(scorer.InvalidArgument, "Unable to parse 'config': it must be a string with the configuration's JSON")
			}
		case strings.HasPrefix(name, "file:"):
			files = true
		default:
			return nil, scorer.Errorf(scorer.InvalidArgument, "unrecognized load parameter '%.64s'", name)
		}
	}
	return nil, s.config.Triton.Load(r.ctx, r.name, []byte(config), files)
}

func (s *Server) unload(r *request) (any, error) {
	parameters, err := r.parameters()
	if err != nil {
		return nil, err
	}
	dependents := false // there are none: no model is made of others
	if v, ok := parameters["unload_dependents"]; ok && !reads(v, &dependents) {
		return nil, scorer.Errorf(scorer.InvalidArgument, "Unable to parse 'unload_dependents': attempt to access JSON non-boolean as boolean")
	}
	return nil, s.config.Triton.Unload(r.ctx, r.name)
}

func (s *Server) logging(r *request) (any, error) {
	members, err := r.object()
	if err != nil {
		return nil, err
	}
	if !r.post {
		return s.config.Triton.LogSettings()
	}
	change := map[string]any{}
	for name, v := range members {
		var flag bool
		var number uint64
		var text string
		switch {
		case reads(v, &flag):
			change[name] = flag
		case reads(v, &number):
			change[name] = number
		case reads(v, &text):
			change[name] = text
		default:
			return nil, scorer.Errorf(scorer.InvalidArgument, "Unable to parse '%.64s': it must be a boolean, a number or a string", name)
		}
	}
	return s.config.Triton.SetLog(change)
}

func (s *Server) trace(r *request) (any, error) {
	members, err := r.object()
	if err != nil {
		return nil, err
	}
	if !r.post {
		return s.config.Triton.Trace(r.name)
	}
	change := map[string][]string{}
	for name, v := range members {
		list, ok := settingOf(v)
		if !ok && string(v) != "null" {
			return nil, scorer.Errorf(scorer.InvalidArgument, "Unable to parse '%.64s': it must be a string, or an array of strings", name)
		}
		change[name] = list
	}
	return s.config.Triton.SetTrace(r.name, change)
}

// settingOf reads a string, or an array of strings.
func settingOf(v json.RawMessage) ([]string, bool) {
	var one string
	if reads(v, &one) {
		return []string{one}, true
	}
	var several []*string
	if !reads(v, &several) || slices.Contains(several, nil) {
		return nil, false
	}
	list := make([]string, len(several))
	for i, text := range several {
		list[i] = *text
	}
	return list, true
}

func (s *Server) memoryStatus(r *request) (any, error) {
	m, err := s.config.Triton.Memory()
	if err != nil {
		return nil, err
	}
	return m.Status(r.name)
}

func (s *Server) memoryRegister(r *request) (any, error) {
	m, err := s.config.Triton.Memory()
	if err != nil {
		return nil, err
	}
	members, err := r.object()
	if err != nil {
		return nil, err
	}
	var key string
	if !reads(members["key"], &key) {
		return nil, scorer.Errorf(scorer.InvalidArgument, "Shared memory register request has no key")
	}
	offset, err := bytesMember(members, "offset", "0")
	if err != nil {
		return nil, err
	}
	size, err := bytesMember(members, "byte_size", "")
	if err != nil {
		return nil, err
	}
	return nil, m.Register(r.name, key, offset, size)
}

// bytesMember reads a number of bytes.
func bytesMember(members map[string]json.RawMessage, name, otherwise string) (uint64, error) {
	text := string(members[name])
	if text == "" {
		text = otherwise
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, scorer.Errorf(scorer.InvalidArgument, "Unable to parse '%s': it must be a number of bytes, got: %.32q", name, text)
	}
	return n, nil
}

func (s *Server) memoryUnregister(r *request) (any, error) {
	m, err := s.config.Triton.Memory()
	if err == nil {
		m.Unregister(r.name)
	}
	return nil, err
}

// deviceStatus lists the CUDA shared memory: none is registered.
func (s *Server) deviceStatus(*request) (any, error) { return []any{}, nil }

func (s *Server) deviceRegister(*request) (any, error) { return nil, triton.ErrDeviceMemory }

// deviceUnregister forgets what is not there. Clients that use none call it, too, to
// begin with nothing registered.
func (s *Server) deviceUnregister(*request) (any, error) { return nil, nil }
