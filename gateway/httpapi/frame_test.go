package httpapi

import (
	"bufio"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

// What is refused here, the HTTP library lets through.
func TestClean(t *testing.T) {
	f := func(head string, want bool) {
		t.Helper()
		var h fasthttp.RequestHeader
		if err := h.Read(bufio.NewReader(strings.NewReader(head + "\r\n\r\n"))); err != nil {
			if want {
				t.Errorf("%q is refused by the library: %v", head, err)
			}
			return
		}
		if got := clean(&h); got != want {
			t.Errorf("clean(%q) = %v; want %v", head, got, want)
		}
	}
	f("POST /v2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3", true)
	f("POST /v2?a=b%20c HTTP/1.1\r\nHost: a:80\r\nTransfer-Encoding: chunked", true)
	f("GET /v2 HTTP/1.0", true)
	f("GET /v2 HTTP/1.1\r\nHost: [::1]:8000", true)

	f("GET /v2 HTTP/1.1", false)                                                                         // no host
	f("GET /v2 HTTP/1.1\r\nHost: user@a", false)                                                         // user information
	f("GET /v2 HTTP/1.1\r\nHost: a/b", false)                                                            // a path
	f("GET /v2 HTTP/1.2\r\nHost: a", false)                                                              // no such version
	f("GET /v2 HTTP/2.0\r\nHost: a", false)                                                              // another protocol
	f("GET /v2 HTTP/1.1\r\nHost: a\r\nX: b\r\n c", false)                                                // a continued line
	f("GET /v2 HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc", false)                                               // a continued line
	f("GET /v2 HTTP/1.1\r\nHost: a\nX: b", false)                                                        // a bare line feed
	f("POST /v2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked", false)          // two lengths
	f("POST /v2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3", false)          // two lengths
	f("POST /v2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity", false)                              // not a length at all
	f("POST /v2 HTTP/1.0\r\nTransfer-Encoding: chunked", false)                                          // not of 1.0
	f("GET http://b/v2 HTTP/1.1\r\nHost: a", false)                                                      // the absolute form
	f("GET * HTTP/1.1\r\nHost: a", false)                                                                // no path
	f("GET /v2\x80 HTTP/1.1\r\nHost: a", false)                                                          // not plain
	f("CONNECT a:80 HTTP/1.1\r\nHost: a", false)                                                         // not a path
	f("POST /v2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4", false)                   // two lengths
	f("POST /v2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked", false) // twice
}
