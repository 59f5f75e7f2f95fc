package spec

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// Upstream is servers that Sluice did not write, and that serve a version: exactly one of http and grpc.
type Upstream struct {
	// Servers that are called over HTTP/1.1.
	HTTP *HTTPUpstream `json:"http,omitempty"`

	// Servers of the Open Inference Protocol that are called over gRPC.
	GRPC *GRPCUpstream `json:"grpc,omitempty"`

	// How it is found out whether a server can score.
	Health Health `json:"health,omitzero"`
}

// Protocol is what an HTTP server speaks.
type Protocol string

// The protocols.
const (
	ProtocolAzureML Protocol = "azureml"
	ProtocolOIP     Protocol = "oip"
)

// HTTPUpstream is servers that are called over HTTP/1.1. All must have the same model.
type HTTPUpstream struct {
	// One for each server, such as http://10.0.0.7:5001: http or https, a host, and perhaps a port and the beginning of all paths.
	URLs []string `json:"urls" jsonschema:"minItems=1,maxItems=64"`

	// What the servers speak: azureml, the scoring route of Azure ML's containers, or oip, the Open Inference Protocol (Triton, MLServer, KServe). Requests in another protocol get 501.
	Protocol Protocol `json:"protocol" jsonschema:"enum=azureml,enum=oip"`

	// Where requests are sent with protocol: azureml. Default /score.
	Path string `json:"path,omitempty" jsonschema:"pattern=^/[!$-~]*$"`

	// The model's name at the servers, with protocol: oip. Default the endpoint's name.
	Model string `json:"model,omitempty"`

	// The model's version at the servers, with protocol: oip. Default theirs.
	Version string `json:"version,omitempty"`

	// Headers that every request gets, such as a key that the servers want. Whoever reads the document has them.
	Headers map[string]string `json:"headers,omitempty"`

	// Of https URLs. Left out: the system's authorities, and no certificate of ours.
	TLS *ClientTLS `json:"tls,omitempty"`
}

// GRPCUpstream is servers of the Open Inference Protocol that are called over gRPC. All must have the same model.
type GRPCUpstream struct {
	// One HOST:PORT for each server.
	Addresses []string `json:"addresses" jsonschema:"minItems=1,maxItems=64"`

	// The model's name at the servers. Default the endpoint's name.
	Model string `json:"model,omitempty"`

	// The model's version at the servers. Default theirs.
	Version string `json:"version,omitempty"`

	// Left out: not encrypted. {} takes the system's authorities.
	TLS *ClientTLS `json:"tls,omitempty"`
}

// ClientTLS is whom we believe when we call, and who we are. Paths are relative to the document's.
type ClientTLS struct {
	// A PEM file of the authorities that sign the servers' certificates. Default the system's.
	CAFile string `json:"caFile,omitempty"`

	// A PEM file of our own certificate, for servers that ask for one. It may be replaced at any time.
	CertFile string `json:"certFile,omitempty"`

	// A PEM file of its key.
	KeyFile string `json:"keyFile,omitempty"`

	// The name that the servers' certificates must have. Default the host that is called.
	ServerName string `json:"serverName,omitempty"`
}

// Health is how it is found out whether a server can score. One that cannot gets no requests.
type Health struct {
	// The path that is asked for over HTTP, and must answer 200. Default / with protocol: azureml, /v2/models/MODEL/ready with oip. Over gRPC, ModelReady is called.
	Path string `json:"path,omitempty" jsonschema:"pattern=^/[!$-~]*$"`

	// Seconds between two probes of a server that gets requests. One that gets none is probed sooner. Default 5.
	PeriodSeconds int `json:"periodSeconds,omitempty" jsonschema:"minimum=1,maximum=3600,default=5"`

	// Seconds that a probe may take. Default 2.
	TimeoutSeconds int `json:"timeoutSeconds,omitempty" jsonschema:"minimum=1,maximum=3600,default=2"`

	// Good probes in a row after which a server gets requests again. Default 1.
	SuccessThreshold int `json:"successThreshold,omitempty" jsonschema:"minimum=1,maximum=1000,default=1"`

	// Failed probes in a row after which a server gets none. Default 3.
	FailureThreshold int `json:"failureThreshold,omitempty" jsonschema:"minimum=1,maximum=1000,default=3"`
}

// defaulted is a copy of u with the defaults in it that do not depend on others.
func (u *Upstream) defaulted() *Upstream {
	d := *u
	d.Health.PeriodSeconds = cmp.Or(d.Health.PeriodSeconds, 5)
	d.Health.TimeoutSeconds = cmp.Or(d.Health.TimeoutSeconds, 2)
	d.Health.SuccessThreshold = cmp.Or(d.Health.SuccessThreshold, 1)
	d.Health.FailureThreshold = cmp.Or(d.Health.FailureThreshold, 3)
	return &d
}

// tlsFiles are the paths in u, for whoever makes them absolute.
func (u *Upstream) tlsFiles() (paths []*string) {
	var all []*ClientTLS
	if u.HTTP != nil {
		all = append(all, u.HTTP.TLS)
	}
	if u.GRPC != nil {
		all = append(all, u.GRPC.TLS)
	}
	for _, t := range all {
		if t != nil {
			paths = append(paths, &t.CAFile, &t.CertFile, &t.KeyFile)
		}
	}
	return paths
}

// upstream checks what serves a version instead of a model.
func (c *check) upstream(path string, v *Version) {
	u := v.Upstream
	at := path + ".upstream"
	if v.Model != "" {
		c.fail(path+".model", "is given beside upstream; a version has one of them, remove the other")
	}
	if v.Accelerator != AcceleratorAuto || v.Threads != 0 || v.MaxBatchSize != 0 {
		c.fail(at, "is servers with devices and batches of their own; remove accelerator, threads and maxBatchSize")
	}
	if (u.HTTP == nil) == (u.GRPC == nil) && !c.source.isFaulty(at+".http") && !c.source.isFaulty(at+".grpc") {
		c.fail(at, "must have exactly one of http and grpc")
	}
	if u.HTTP != nil {
		c.httpUpstream(at+".http", u.HTTP)
	}
	if u.GRPC != nil {
		c.grpcUpstream(at+".grpc", u.GRPC)
	}
	c.urlPath(at+".health.path", u.Health.Path)
	if u.Health.Path != "" && u.HTTP == nil {
		c.fail(at+".health.path", "has no effect with grpc, where ModelReady is called; remove it")
	}
}

func (c *check) httpUpstream(path string, u *HTTPUpstream) {
	secure := false
	for i, text := range c.servers(path+".urls", u.URLs, "a URL, such as http://10.0.0.7:5001") {
		at := fmt.Sprintf("%s.urls[%d]", path, i)
		parsed, err := url.Parse(text)
		switch {
		case err != nil || parsed.Host == "" || parsed.Hostname() == "" || parsed.Scheme != "http" && parsed.Scheme != "https" || !isPrintable(text):
			c.fail(at, "is %s; must be an http or https URL, such as http://10.0.0.7:5001", quote(text))
		case parsed.User != nil:
			c.fail(at, "has a user; send credentials in headers")
		case parsed.RawQuery != "" || parsed.ForceQuery || strings.Contains(text, "#"):
			c.fail(at, "is %s; must end before '?' and '#'", quote(text))
		default:
			secure = secure || parsed.Scheme == "https"
		}
	}
	azure := u.Protocol == ProtocolAzureML
	c.urlPath(path+".path", u.Path)
	switch {
	case u.Protocol == "":
		c.fail(path+".protocol", "is missing; must be azureml or oip")
	case azure && (u.Model != "" || u.Version != ""):
		c.fail(path, "has a model or a version, which protocol: azureml does not know; remove them")
	case !azure && u.Path != "":
		c.fail(path+".path", "has no effect with protocol: oip, which has its own paths; remove it")
	}
	c.modelNames(path, u.Model, u.Version)
	for _, name := range sortedKeys(u.Headers) {
		c.header(element(path+".headers", name), name, u.Headers[name])
	}
	if u.TLS != nil && !secure {
		c.fail(path+".tls", "has no effect without an https URL; remove it, or write https")
	}
	c.clientTLS(path+".tls", u.TLS)
}

func (c *check) grpcUpstream(path string, u *GRPCUpstream) {
	for i, text := range c.servers(path+".addresses", u.Addresses, "HOST:PORT, such as 10.0.0.7:8001") {
		host, port, err := net.SplitHostPort(text)
		n, bad := strconv.ParseUint(port, 10, 16)
		if err != nil || bad != nil || n == 0 || host == "" || !isPrintable(text) || strings.Contains(host, "/") {
			c.fail(fmt.Sprintf("%s.addresses[%d]", path, i), "is %s; must be HOST:PORT, such as 10.0.0.7:8001", quote(text))
		}
	}
	c.modelNames(path, u.Model, u.Version)
	c.clientTLS(path+".tls", u.TLS)
}

// servers checks that there are some, each once, and returns them.
func (c *check) servers(path string, all []string, example string) []string {
	if len(all) == 0 {
		c.fail(path, "is missing; give %s", example)
	}
	for i, s := range all {
		for _, before := range all[:i] {
			if s == before {
				c.fail(fmt.Sprintf("%s[%d]", path, i), "is %s again; remove one", quote(s))
				break
			}
		}
	}
	return all
}

// modelNames checks names that become parts of paths.
func (c *check) modelNames(path, model, version string) {
	for _, n := range [][2]string{{"model", model}, {"version", version}} {
		if !isPrintable(n[1]) || len(n[1]) > 255 {
			c.fail(path+"."+n[0], "is %s; must be at most 255 printable ASCII characters without spaces", quote(n[1]))
		}
	}
}

// headerToken is the name of any header. Source: https://www.rfc-editor.org/rfc/rfc9110#name-tokens
var headerToken = regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")

// ownHeaders are those that say where a request ends, or that Sluice sets itself.
var ownHeaders = map[string]bool{
	"connection": true, "content-length": true, "content-type": true, "expect": true, "host": true, "keep-alive": true,
	"te": true, "trailer": true, "transfer-encoding": true, "upgrade": true, "accept-encoding": true,
	"traceparent": true, "tracestate": true, "x-request-id": true, "inference-header-content-length": true, "x-request-timeout-ms": true,
}

func (c *check) header(path, name, value string) {
	switch {
	case !headerToken.MatchString(name):
		c.fail(path, "%s is not the name of a header", quote(name))
	case ownHeaders[strings.ToLower(name)] || strings.HasPrefix(strings.ToLower(name), "proxy-"):
		c.fail(path, "is a header that is set for each request; remove it")
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }):
		c.fail(path, "must have printable ASCII characters only") // it may be a key: not quoted
	}
}

func (c *check) clientTLS(path string, t *ClientTLS) {
	if t == nil {
		return
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		c.fail(path, "must have both of certFile and keyFile, or none")
	}
	for _, f := range [][2]string{{"caFile", t.CAFile}, {"certFile", t.CertFile}, {"keyFile", t.KeyFile}} {
		if strings.ContainsRune(f[1], 0) {
			c.fail(path+"."+f[0], "is %s, with a zero byte; give the path of a file", quote(f[1]))
		}
	}
	if !isPrintable(t.ServerName) {
		c.fail(path+".serverName", "is %s; must be a host's name", quote(t.ServerName))
	}
}

// urlPath checks a path that may be left out.
func (c *check) urlPath(path, text string) {
	if text != "" && (!strings.HasPrefix(text, "/") || !isPrintable(text) || strings.ContainsAny(text, "\"#")) {
		c.fail(path, "is %s; must begin with '/', and have printable ASCII characters without spaces", quote(text))
	}
}

// isPrintable reports whether s is ASCII without spaces or control characters.
func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
