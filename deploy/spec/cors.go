package spec

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// CORS is which web pages may call an endpoint from a browser (Cross-Origin Resource Sharing, https://fetch.spec.whatwg.org/#http-cors-protocol). What a page may do beyond that, its credential says.
type CORS struct {
	// Where the pages come from: scheme, host, and port where it is not the scheme's own, as in https://app.example.com; or "*" for anywhere.
	AllowOrigins []string `json:"allowOrigins" jsonschema:"minItems=1,maxItems=100"`

	// Headers that pages may send. Default those that scoring knows.
	AllowHeaders []string `json:"allowHeaders,omitempty" jsonschema:"maxItems=100"`

	// Headers of answers that pages may read. Default those that Sluice adds.
	ExposeHeaders []string `json:"exposeHeaders,omitempty" jsonschema:"maxItems=100"`

	// How long browsers may remember this. Default 600.
	MaxAgeSeconds int `json:"maxAgeSeconds,omitempty" jsonschema:"minimum=1,maximum=86400,default=600"`

	// Whether browsers may send what they know of a user by themselves, such as a client certificate. Keys and tokens that a page sends in a header do not need it.
	AllowCredentials bool `json:"allowCredentials,omitempty"`
}

// What pages may send and read where nothing else is said.
var (
	corsSent = []string{
		"Authorization", "Content-Type", "X-Api-Key", "Inference-Header-Content-Length", "X-Request-Id", "X-Ms-Client-Request-Id", "X-Request-Timeout-Ms",
		"Azureml-Model-Deployment", "X-Sluice-Timing", "Traceparent", "Tracestate",
	}
	corsRead = []string{
		"Inference-Header-Content-Length", "X-Request-Id", "X-Ms-Request-Id", "X-Ms-Client-Request-Id", "X-Ms-Run-Fn-Exec-Ms", "X-Ms-Run-Function-Failed",
		"Azureml-Model-Deployment", "X-Sluice-Version", "X-Sluice-Variant", "X-Sluice-Assign", "X-Sluice-Generation", "Retry-After", "Server-Timing",
	}
)

func (c *CORS) setDefaults() {
	if c == nil {
		return
	}
	if c.AllowHeaders == nil {
		c.AllowHeaders = slices.Clone(corsSent)
	}
	if c.ExposeHeaders == nil {
		c.ExposeHeaders = slices.Clone(corsRead)
	}
	c.MaxAgeSeconds = cmp.Or(c.MaxAgeSeconds, 600)
}

// cors checks which pages may call; path is where it is said.
func (c *check) cors(path string, s *CORS) {
	if s == nil {
		return
	}
	if len(s.AllowOrigins) == 0 {
		c.fail(path+".allowOrigins", `is missing; name where the pages come from, as in https://app.example.com, or "*"`)
	}
	for i, o := range s.AllowOrigins {
		at := fmt.Sprintf("%s.allowOrigins[%d]", path, i)
		switch {
		case o == "*" && len(s.AllowOrigins) > 1:
			c.fail(at, `is "*", which is all there is; remove the others, or it`)
		case o == "*" && s.AllowCredentials:
			c.fail(at, `is "*", and with allowCredentials browsers want each origin named`)
		case o != "*" && !isOrigin(o):
			c.fail(at, `is %s; must be "*", or a scheme and a host in lower case, with a port where it is not the scheme's own, as in https://app.example.com`, quote(o))
		}
	}
	for name, list := range map[string][]string{"allowHeaders": s.AllowHeaders, "exposeHeaders": s.ExposeHeaders} {
		for i, h := range list {
			if !headerName.MatchString(h) {
				c.fail(fmt.Sprintf("%s.%s[%d]", path, name, i), "is %s; must be the name of a header: letters, digits and '-'", quote(h))
			}
		}
	}
}

// isOrigin reports whether s is an origin as browsers write it.
func isOrigin(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || s != u.Scheme+"://"+u.Host || strings.ToLower(s) != s || strings.Contains(s, "*") {
		return false
	}
	port := u.Port()
	return !strings.HasSuffix(s, ":") && !(u.Scheme == "http" && port == "80") && !(u.Scheme == "https" && port == "443")
}
