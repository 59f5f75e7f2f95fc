package httpapi

import (
	"bytes"
	"net/http"
	"unicode/utf8"

	"sluice.dev/gateway/header"
)

// framer reads the frames of a connection's requests, before the HTTP library
// does, and refuses what leaves room for two readings: what the library tolerates
// and another server might read differently. So no request can hide in another,
// and nothing behind a bad one is served. What it lets through, both read alike;
// bodies it only counts.
//
// It goes line by line over what was read, where it lies; only a line in two pieces
// is copied.
type framer struct {
	most   int   // bytes of a head
	fields int   // header lines of a head
	large  int64 // bytes: a body of more is

	at      place
	line    []byte // a line of which the end is still to come
	size    int    // bytes of the head or trailer so far
	count   int    // of its lines; of empty lines before a head
	left    int64  // bytes of the body or chunk to come
	sum     int64  // bytes of a body's chunks that have been declared
	length  int64  // that the head declares; -1 if it does not
	chunked bool
	hosts   int
	http11  bool
	fresh   bool // the head of what comes was among what was taken last
	ahead   int  // where in what was taken last a fresh body becomes large; 0 if none does
}

// place is what a framer expects next.
type place uint8

const (
	atStart place = iota // a request line
	atField              // a header line, or the empty one
	atBody               // of a declared length
	atSize               // of a chunk
	atChunk
	atChunkEnd // an empty line
	atTrailer  // a trailer line, or the empty one
)

// unclean is why a request is refused: a status, and what to tell the client.
type unclean struct {
	status  int
	message string
}

// Error implements error.
func (u *unclean) Error() string { return u.message }

func bad(message string) *unclean { return &unclean{http.StatusBadRequest, message} }

var (
	badEnd     = bad("a line of the request does not end with CR LF, or has one inside")
	badLine    = bad("the request line is not METHOD, a path, and HTTP/1.1")
	badTarget  = bad("the request's path is not in plain form: no dot segments, no encoded slashes, nothing that is not properly percent-encoded")
	badField   = bad("a header line is not NAME: VALUE")
	badHost    = bad("a request has exactly one Host: a name or an address, and maybe a port")
	badLength  = bad("the end of the request's body could be read in two ways")
	badChunk   = bad("the request's chunks are not well formed")
	badExpect  = &unclean{http.StatusExpectationFailed, "of expectations only 100-continue is met"}
	badHead    = &unclean{http.StatusRequestHeaderFieldsTooLarge, "the request's head is too large, or has too many lines"}
	badTrailer = &unclean{http.StatusRequestHeaderFieldsTooLarge, "the request's trailer is too large, or has too many lines"}
)

const (
	longestSize  = 256 // bytes of the line before a chunk, with its extensions
	emptyLines   = 2   // that may stand before a request
	mostDigits   = 18  // of a length: what fits into 63 bits
	mostHexDigit = 15  // of a chunk's size
)

// take reads b, which follows what was taken before. An error says that what
// begins n bytes into b must not be served.
func (f *framer) take(b []byte) (n int, err *unclean) {
	f.fresh, f.ahead = false, 0
	for n < len(b) {
		if f.at == atBody || f.at == atChunk {
			k := min(f.left, int64(len(b)-n))
			f.left -= k
			n += int(k)
			if f.left == 0 {
				f.at = f.afterBody()
			}
			continue
		}
		line := b[n:]
		i := bytes.IndexByte(line, '\n')
		if i >= 0 {
			line = line[:i+1]
		}
		if err := f.fits(len(line)); err != nil {
			return n, err
		}
		if i < 0 {
			f.line = append(f.line, line...)
			return len(b), nil
		}
		n += len(line)
		if f.line != nil {
			line, f.line = append(f.line, line...), nil
		}
		if err := f.next(line); err != nil {
			return n - (i + 1), err
		}
		if f.fresh && f.sum > f.large && f.ahead == 0 {
			f.ahead = n - (i + 1)
		}
	}
	return n, nil
}

func (f *framer) afterBody() place {
	if f.at == atChunk {
		return atChunkEnd
	}
	return atStart
}

// fits checks the length of a line, n bytes more of which have come.
func (f *framer) fits(n int) *unclean {
	n += len(f.line)
	switch f.at {
	case atSize:
		if n > longestSize {
			return badChunk
		}
	case atChunkEnd:
		if n > len("\r\n") {
			return badChunk
		}
	case atTrailer:
		if f.size+n > f.most {
			return badTrailer
		}
	default:
		if f.size+n > f.most {
			return badHead
		}
	}
	return nil
}

// next reads a line.
func (f *framer) next(line []byte) *unclean {
	f.size += len(line)
	end := len(line) - len("\r\n")
	if end < 0 || bytes.IndexByte(line, '\r') != end {
		return badEnd
	}
	line = line[:end]
	switch f.at {
	case atStart:
		return f.start(line)
	case atField:
		return f.field(line)
	case atSize:
		return f.chunkSize(line)
	case atChunkEnd: // fits has seen that it is empty
		f.at = atSize
		return nil
	}
	return f.trailer(line)
}

// start reads a request line. What may stand before it is an empty line, as old
// clients send after a body.
func (f *framer) start(line []byte) *unclean {
	if len(line) == 0 {
		if f.count++; f.count > emptyLines {
			return badLine
		}
		return nil
	}
	method, rest, _ := bytes.Cut(line, []byte(" "))
	target, protocol, _ := bytes.Cut(rest, []byte(" "))
	f.http11 = string(protocol) == "HTTP/1.1"
	if !f.http11 && string(protocol) != "HTTP/1.0" || tokenIn(method) != len(method) || len(method) == 0 || string(method) == "CONNECT" {
		return badLine
	}
	if !cleanTarget(target) {
		return badTarget
	}
	f.at, f.count, f.hosts, f.length, f.chunked = atField, 0, 0, -1, false
	return nil
}

// field reads a header line.
func (f *framer) field(line []byte) *unclean {
	if len(line) == 0 {
		return f.headEnds()
	}
	if f.count++; f.count > f.fields {
		return badHead
	}
	n := tokenIn(line) // a line that continues another begins with no token
	if n == 0 || n == len(line) || line[n] != ':' {
		return badField
	}
	switch line[0] | 0x20 {
	case 'c':
		if header.Is(line[:n], "content-length") {
			return f.contentLength(value(line[n:]))
		}
	case 't':
		if header.Is(line[:n], "transfer-encoding") {
			if f.chunked || !f.http11 || !header.Is(value(line[n:]), "chunked") {
				return badLength
			}
			f.chunked = true
		}
	case 'h':
		if header.Is(line[:n], "host") {
			if f.hosts++; f.hosts > 1 || !cleanHost(value(line[n:])) {
				return badHost
			}
		}
	case 'e':
		if header.Is(line[:n], "expect") && !header.Is(value(line[n:]), "100-continue") {
			return badExpect
		}
	}
	return nil
}

// contentLength reads a declared length.
func (f *framer) contentLength(v []byte) *unclean {
	if f.length >= 0 || len(v) == 0 || len(v) > mostDigits {
		return badLength
	}
	f.length = 0
	for _, c := range v {
		if c < '0' || c > '9' {
			return badLength
		}
		f.length = f.length*10 + int64(c-'0')
	}
	return nil
}

// headEnds decides where the body ends.
func (f *framer) headEnds() *unclean {
	f.size, f.count = 0, 0
	switch {
	case f.http11 && f.hosts == 0:
		return badHost
	case f.chunked && f.length >= 0:
		return badLength
	case f.chunked:
		f.at, f.sum, f.fresh = atSize, 0, true
	case f.length > 0:
		f.at, f.left = atBody, f.length
	default:
		f.at = atStart
	}
	return nil
}

// chunkSize reads the line before a chunk.
// Source: https://www.rfc-editor.org/rfc/rfc9112#name-chunked-transfer-coding
func (f *framer) chunkSize(line []byte) *unclean {
	f.size = 0
	i := 0
	for f.left = 0; i < len(line) && unhex(line[i]) < 16; i++ {
		f.left = f.left<<4 | int64(unhex(line[i]))
	}
	if i == 0 || i > mostHexDigit || !cleanExtensions(line[i:]) {
		return badChunk
	}
	f.at = atChunk
	f.sum += f.left
	if f.left == 0 {
		f.at = atTrailer
	}
	return nil
}

// trailer reads a trailer line. The library drops them, and refuses those that
// would be something else in a head.
func (f *framer) trailer(line []byte) *unclean {
	if len(line) == 0 {
		f.at, f.size, f.count, f.sum, f.fresh = atStart, 0, 0, 0, false
		return nil
	}
	if f.count++; f.count > f.fields {
		return badTrailer
	}
	if n := tokenIn(line); n == 0 || n == len(line) || line[n] != ':' {
		return badField
	}
	return nil
}

// cleanExtensions reports whether what follows a chunk's size is nothing, or
// ;NAME, ;NAME=TOKEN or ;NAME="TEXT", any number of times.
func cleanExtensions(b []byte) bool {
	for len(b) > 0 {
		n := tokenIn(b[1:])
		if b[0] != ';' || n == 0 {
			return false
		}
		if b = b[1+n:]; len(b) == 0 || b[0] != '=' {
			continue
		}
		if b = b[1:]; len(b) > 0 && b[0] == '"' {
			n = quotedIn(b)
		} else {
			n = tokenIn(b)
		}
		if n == 0 {
			return false
		}
		b = b[n:]
	}
	return true
}

// quotedIn is the length of the quoted text that b begins with; 0 if it is none.
func quotedIn(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c < 0x20 && c != '\t' || c == 0x7f || c == '\\':
			return 0
		}
	}
	return 0
}

const alphanumeric = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// bytesOf says of each byte whether it is in set.
func bytesOf(set string) *[256]bool {
	var t [256]bool
	for i := range len(set) {
		t[set[i]] = true
	}
	return &t
}

// tokenIn is how many bytes of a name b begins with.
func tokenIn(b []byte) int {
	i := 0
	for i < len(b) && header.Token[b[i]] {
		i++
	}
	return i
}

// value is that of a header line from its colon on.
func value(b []byte) []byte { return bytes.Trim(b[1:], " \t") }

// cleanTarget wants the origin form, in plain characters: a path that is the same
// whoever tidies it up, and maybe a query.
func cleanTarget(target []byte) bool {
	if len(target) == 0 || target[0] != '/' {
		return false
	}
	path, encoded, dots := len(target), false, false
	for i, c := range target {
		switch {
		case c <= 0x20 || c >= 0x7f || c == '#':
			return false
		case c == '?':
			path = min(path, i)
		case i >= path:
		case c == '\\':
			return false
		case c == '%':
			encoded = true
		case c == '.' && target[i-1] == '/':
			dots = true
		}
	}
	if !encoded && !dots {
		return true
	}
	p, ok := unescape(target[:path]) // no slash was encoded
	if !ok || !utf8.Valid(p) {
		return false
	}
	for len(p) > 0 {
		var segment []byte
		if segment, p, _ = bytes.Cut(p, []byte("/")); string(segment) == "." || string(segment) == ".." {
			return false
		}
	}
	return true
}

// What the name and the address of a host may have.
var (
	hostName    = bytesOf("-._~" + alphanumeric)
	hostAddress = bytesOf(":.0123456789abcdefABCDEF")
)

// cleanHost wants a name or an address, and maybe a port.
func cleanHost(host []byte) bool {
	name, port := host, []byte(nil)
	if i := bytes.LastIndexByte(host, ':'); i >= 0 && bytes.IndexByte(host[i:], ']') < 0 {
		name, port = host[:i], host[i+1:]
	}
	for _, c := range port {
		if c < '0' || c > '9' {
			return false
		}
	}
	if len(name) == 0 || len(port) > 5 {
		return false
	}
	if name[0] == '[' {
		return len(name) > 2 && bytes.IndexByte(name, ']') == len(name)-1 && allIn(name[1:len(name)-1], hostAddress)
	}
	return allIn(name, hostName)
}

// allIn reports whether b has bytes of set only.
func allIn(b []byte, set *[256]bool) bool {
	for _, c := range b {
		if !set[c] {
			return false
		}
	}
	return true
}
