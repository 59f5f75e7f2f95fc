package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"sluice.dev/gateway/header"
)

// head is what the transport wants to know of an answer's head. It is read
// strictly: where two readers could disagree on where the answer ends, it is
// refused, and the connection with it.
type head struct {
	status      int
	length      int64 // of the body in bytes; -1 where it is chunked or ends with the connection
	chunked     bool
	last        bool   // the connection is not to be used again
	contentType []byte // lent
	headLength  int    // Inference-Header-Content-Length; 0 if absent
	device      time.Duration
}

// errAnswer is the cause of every refusal.
var errAnswer = errors.New("not clean HTTP/1.1")

func unclean(what string) error { return fmt.Errorf("%w: %s", errAnswer, what) }

// end is how many bytes of b the head has, its empty line included; 0 if that has
// not come yet. Ends that parse refuses are ends, too.
func end(b []byte) int {
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return 0
		}
		at += i + 1
		switch rest := b[at:]; {
		case len(rest) > 0 && rest[0] == '\n':
			return at + 1
		case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
			return at + 2
		}
	}
}

// parse reads a head through its empty line.
func (h *head) parse(b []byte) error {
	*h = head{length: -1}
	line, b, ok := cutLine(b)
	if !ok {
		return unclean("a line that does not end in CR LF")
	}
	http10, err := h.statusLine(line)
	if err != nil {
		return err
	}
	for {
		if line, b, ok = cutLine(b); !ok {
			return unclean("a line that does not end in CR LF")
		}
		if len(line) == 0 {
			break
		}
		if err := h.field(line); err != nil {
			return err
		}
	}
	switch {
	case h.chunked && h.length >= 0:
		return unclean("both Content-Length and Transfer-Encoding")
	case h.chunked && http10:
		return unclean("Transfer-Encoding in HTTP/1.0")
	case h.status < 200 || h.status == 204 || h.status == 304:
		h.last = h.last || h.chunked || h.length > 0 // who knows whether a body follows
		h.chunked, h.length = false, 0
	case !h.chunked && h.length < 0:
		h.last = true // it ends with the connection
	}
	h.last = h.last || http10
	return nil
}

// cutLine takes a line, without its end, from b.
func cutLine(b []byte) (line, rest []byte, ok bool) {
	i := bytes.IndexByte(b, '\n')
	if i < 1 || b[i-1] != '\r' {
		return nil, b, false
	}
	return b[:i-1], b[i+1:], true
}

// statusLine reads HTTP/1.x, the status, and a reason or none.
func (h *head) statusLine(line []byte) (http10 bool, err error) {
	rest, ok := bytes.CutPrefix(line, []byte("HTTP/1."))
	if !ok || len(rest) < 5 || rest[0] != '0' && rest[0] != '1' || rest[1] != ' ' || len(rest) > 5 && rest[5] != ' ' || !plain(rest) {
		return false, unclean("its first line")
	}
	status, ok := number(rest[2:5], 10)
	if !ok || status < 100 || status > 599 {
		return false, unclean("its status")
	}
	h.status = int(status)
	return rest[0] == '0', nil
}

// field reads a line with a name and a value.
func (h *head) field(line []byte) error {
	colon := bytes.IndexByte(line, ':')
	if colon < 1 || !plain(line[colon+1:]) {
		return unclean("a header line")
	}
	for _, c := range line[:colon] {
		if !header.Token[c] {
			return unclean("a header's name")
		}
	}
	name, value := line[:colon], bytes.Trim(line[colon+1:], " \t")
	switch len(name) { // most are not for us
	case len("content-length"):
		if header.Is(name, "content-length") {
			n, ok := number(value, 10)
			if !ok || h.length >= 0 {
				return unclean("Content-Length")
			}
			h.length = n
		}
	case len("transfer-encoding"):
		if header.Is(name, "transfer-encoding") {
			if h.chunked || !header.Is(value, "chunked") {
				return unclean("Transfer-Encoding")
			}
			h.chunked = true
		}
	case len("content-encoding"):
		if header.Is(name, "content-encoding") && !header.Is(value, "identity") {
			return unclean("a body that is compressed, which was not asked for")
		}
	case len("connection"):
		if header.Is(name, "connection") {
			h.last = h.last || lists(value, "close")
		}
	case len("content-type"):
		if header.Is(name, "content-type") {
			h.contentType = value
		}
	case len("x-ms-run-fn-exec-ms"):
		if header.Is(name, "x-ms-run-fn-exec-ms") {
			h.device = millis(value)
		}
	case len("inference-header-content-length"):
		if header.Is(name, "inference-header-content-length") {
			n, ok := number(value, 10)
			if !ok || n > 1<<31-1 {
				return unclean("Inference-Header-Content-Length")
			}
			h.headLength = int(n)
		}
	}
	return nil
}

// plain reports whether b has no control characters but tabs.
func plain(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// lists reports whether a list, separated by commas, has want.
func lists(list []byte, want string) bool {
	for len(list) > 0 {
		var item []byte
		item, list, _ = bytes.Cut(list, []byte(","))
		if header.Is(bytes.Trim(item, " \t"), want) {
			return true
		}
	}
	return false
}

// number reads digits alone, of base 10 or 16, that make less than 2^56.
func number(b []byte, base int64) (n int64, ok bool) {
	if len(b) == 0 {
		return 0, false
	}
	for _, c := range b {
		d := int64(c - '0')
		switch {
		case '0' <= c && c <= '9':
		case base == 16 && 'a' <= c|0x20 && c|0x20 <= 'f':
			d = int64(c|0x20-'a') + 10
		default:
			return 0, false
		}
		if n = n*base + d; n >= 1<<56 {
			return 0, false
		}
	}
	return n, true
}

// millis reads decimal milliseconds, such as 1.234; 0 if they are none.
func millis(b []byte) time.Duration {
	whole, part, _ := bytes.Cut(b, []byte("."))
	ms, ok := number(whole, 10)
	if !ok || ms > int64(time.Hour/time.Millisecond) {
		return 0
	}
	d, unit := time.Duration(ms)*time.Millisecond, time.Millisecond
	for _, c := range part {
		if c < '0' || c > '9' {
			return 0
		}
		unit /= 10
		d += time.Duration(c-'0') * unit
	}
	return d
}
