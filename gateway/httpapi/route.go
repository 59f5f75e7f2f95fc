package httpapi

import "bytes"

// op is what a request asks for.
type op uint8

const (
	opUnknown op = iota
	opScore      // Azure ML
	opHealth
	opSwagger
	opServer // Open Inference Protocol
	opLive
	opReady
	opModels
	opModel
	opModelReady
	opInfer
	opAlive
	opPredict // KServe's first protocol, and TensorFlow Serving's
	opClassify
	opRegress
	opV1Model
	opV1Metadata
	opStats // Triton's extensions
	opConfig
	opGenerate
	opExplain
	opIndex
	opLoad
	opUnload
	opLogging
	opTrace
	opMemoryStatus
	opMemoryRegister
	opMemoryUnregister
	opDeviceStatus
	opDeviceRegister
	opDeviceUnregister
)

// post reports whether the operation is called with POST, else with GET.
func (o op) post() bool {
	return o == opScore || o == opInfer || o == opPredict || o == opClassify || o == opRegress
}

// target is a parsed path. The names are as sent: still percent-encoded.
type target struct {
	op      op
	name    []byte // of the endpoint
	version []byte // empty if none is named
}

// parse reads a request target without its query:
//
//	/, KServe's first protocol's liveness
//	/api/v1/service/NAME/[score|swagger.json]
//	/v1/models, and what parseV1 reads
//	/v2[/], /v2/health/{live,ready}, /v2/models[/]
//	/v2/models/NAME[/versions/VERSION][/{ready,infer,stats,config,generate,generate_stream}]
//	/v2/models/NAME/trace/setting, and what parseExtension reads
func parse(uri []byte) target {
	if i := bytes.IndexByte(uri, '?'); i >= 0 {
		uri = uri[:i]
	}
	if rest, ok := bytes.CutPrefix(uri, []byte("/v2")); ok {
		return parseOIP(rest)
	}
	if rest, ok := bytes.CutPrefix(uri, []byte("/v1/models")); ok {
		return parseV1(rest)
	}
	if rest, ok := bytes.CutPrefix(uri, []byte("/api/v1/service/")); ok {
		return parseAML(rest)
	}
	if string(uri) == "/" {
		return target{op: opAlive}
	}
	return target{}
}

func parseAML(rest []byte) target {
	name, action, _ := bytes.Cut(rest, []byte("/"))
	t := target{name: name}
	switch string(action) {
	case "score":
		t.op = opScore
	case "":
		t.op = opHealth
	case "swagger.json":
		t.op = opSwagger
	}
	if len(name) == 0 {
		return target{}
	}
	return t
}

func parseOIP(rest []byte) target {
	switch string(rest) {
	case "", "/":
		return target{op: opServer}
	case "/health/live":
		return target{op: opLive}
	case "/health/ready":
		return target{op: opReady}
	case "/models", "/models/":
		return target{op: opModels}
	}
	all := rest
	rest, ok := bytes.CutPrefix(rest, []byte("/models/"))
	if !ok || string(rest) == "stats" {
		return parseExtension(all)
	}
	var t target
	t.name, rest, _ = bytes.Cut(rest, []byte("/"))
	if after, ok := bytes.CutPrefix(rest, []byte("versions/")); ok {
		if t.version, rest, _ = bytes.Cut(after, []byte("/")); len(t.version) == 0 {
			return target{}
		}
	}
	switch string(rest) {
	case "":
		t.op = opModel
	case "ready":
		t.op = opModelReady
	case "infer":
		t.op = opInfer
	case "stats":
		t.op = opStats
	case "config":
		t.op = opConfig
	case "generate", "generate_stream":
		t.op = opGenerate
	case "trace/setting":
		if len(t.version) == 0 {
			t.op = opTrace
		}
	}
	if len(t.name) == 0 {
		return target{}
	}
	return t
}

// unescape decodes a name's percent-encoding once; name itself stays as it is. False:
// it is not valid, or hides a slash or a control character.
func unescape(name []byte) ([]byte, bool) {
	if bytes.IndexByte(name, '%') < 0 {
		return name, true
	}
	out := make([]byte, 0, len(name))
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c == '%' {
			if i+2 >= len(name) {
				return nil, false
			}
			hi, lo := unhex(name[i+1]), unhex(name[i+2])
			if hi > 15 || lo > 15 {
				return nil, false
			}
			c = hi<<4 | lo
			i += 2
			if c < 0x20 || c == 0x7f || c == '/' || c == '\\' {
				return nil, false
			}
		}
		out = append(out, c)
	}
	return out, true
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}
