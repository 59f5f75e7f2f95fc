package httpapi

import (
	"bytes"

	"github.com/valyala/fasthttp"
)

// clean reports whether a request's frame leaves no room for two readings. What
// the HTTP library tolerates and another server might read differently is
// refused, and the connection closed, so that no request can hide in another.
func clean(h *fasthttp.RequestHeader) bool {
	if p := h.Protocol(); string(p) != "HTTP/1.1" && string(p) != "HTTP/1.0" {
		return false
	}
	return cleanLines(h.RawHeaders(), h.IsHTTP11()) && cleanTarget(h.RequestURI()) && cleanHost(h.Host(), h.IsHTTP11())
}

// cleanLines refuses bare line feeds, continued header lines, names that are no
// tokens, and a body of which the end could be read in two ways: at most one
// length, and of transfer encodings only chunked, in HTTP/1.1, without a length
// beside it.
func cleanLines(raw []byte, http11 bool) bool {
	lengths := 0
	for len(raw) > 0 {
		i := bytes.IndexByte(raw, '\n')
		if i < 1 || raw[i-1] != '\r' || raw[0] == ' ' || raw[0] == '\t' {
			return false
		}
		line := raw[:i-1]
		raw = raw[i+1:]
		if len(line) == 0 {
			continue
		}
		if !named(line) {
			return false
		}
		switch line[0] | 0x20 {
		case 'c':
			if _, ok := value(line, "content-length:"); ok {
				lengths++
			}
		case 't':
			if v, ok := value(line, "transfer-encoding:"); ok {
				lengths++
				if !http11 || string(v) != "chunked" {
					return false
				}
			}
		}
	}
	return lengths <= 1
}

// token says which bytes a name may have.
// Source: https://www.rfc-editor.org/rfc/rfc9110#name-tokens
var token = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
		t[c] = true
	}
	return t
}()

// named reports whether a header line begins with a token and a colon.
func named(line []byte) bool {
	i := 0
	for i < len(line) && token[line[i]] {
		i++
	}
	return i > 0 && i < len(line) && line[i] == ':'
}

// value is the value of a header line of the given name, which is in lower case
// and has its colon.
func value(line []byte, name string) ([]byte, bool) {
	if len(line) < len(name) {
		return nil, false
	}
	for i := range len(name) {
		c := line[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != name[i] {
			return nil, false
		}
	}
	return bytes.Trim(line[len(name):], " \t"), true
}

// cleanTarget wants the origin form in plain characters.
func cleanTarget(uri []byte) bool {
	if len(uri) == 0 || uri[0] != '/' {
		return false
	}
	for _, c := range uri {
		if c <= 0x20 || c >= 0x7f {
			return false
		}
	}
	return true
}

// cleanHost wants exactly what HTTP/1.1 wants: a host without user information.
func cleanHost(host []byte, required bool) bool {
	return (len(host) > 0 || !required) && bytes.IndexByte(host, '@') < 0 && bytes.IndexByte(host, '/') < 0
}
