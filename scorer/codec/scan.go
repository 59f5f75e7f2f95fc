package codec

import (
	"strings"
	"unicode/utf8"

	"sluice.dev/scorer"
)

// maxDepth bounds the nesting of a JSON body.
const maxDepth = 100

// scanner reads JSON in one pass without building anything. The first error
// stays; readers after it return zero values, and loops end.
type scanner struct {
	b   []byte
	i   int
	b64 bool // an element of type BYTES may be {"b64": …}
	err error
}

func (s *scanner) fail(format string, args ...any) {
	if s.err == nil {
		s.err = scorer.Errorf(scorer.InvalidArgument, format, args...)
	}
	s.i = len(s.b)
}

// syntax fails at the current position.
func (s *scanner) syntax(what string) {
	s.fail("failed to parse the request JSON buffer: %s at %d", what, s.i)
}

// peek is the next byte that is not space, 0 at the end.
func (s *scanner) peek() byte {
	for ; s.i < len(s.b); s.i++ {
		if c := s.b[s.i]; c > ' ' || c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			return c
		}
	}
	return 0
}

// take consumes c if it is next.
func (s *scanner) take(c byte) bool {
	if s.peek() != c || s.err != nil {
		return false
	}
	s.i++
	return true
}

// want consumes c, or fails.
func (s *scanner) want(c byte, what string) bool {
	if s.take(c) {
		return true
	}
	s.syntax(what)
	return false
}

// begin consumes the c that begins a value. A document that ends here is an error
// of its own.
func (s *scanner) begin(c byte) bool {
	if s.err == nil && s.peek() == 0 {
		s.syntax("Invalid value.")
	}
	return s.take(c)
}

// end wants nothing but space.
func (s *scanner) end() {
	if s.err == nil && (s.peek() != 0 || s.i < len(s.b)) {
		s.syntax("The document root must not be followed by other values.")
	}
}

// key reads the next member's name of an object that began; false at its end.
// first is true for the first member.
func (s *scanner) key(first bool) (name []byte, more bool) {
	if s.err != nil || s.take('}') {
		return nil, false
	}
	if !first && !s.want(',', "Missing a comma or } after an object member.") {
		return nil, false
	}
	if s.peek() != '"' {
		s.syntax("Missing a name for object member.")
		return nil, false
	}
	name = s.text()
	return name, s.want(':', "Missing a colon after a name of object member.")
}

// element moves to the next element of an array that began; false at its end.
func (s *scanner) element(first bool) bool {
	if s.err != nil || s.take(']') {
		return false
	}
	return first || s.want(',', "Missing a comma or ] after an array element.")
}

// raw reads a string and returns what is between its quotes, escapes and all.
func (s *scanner) raw() (text []byte, escaped bool) {
	if s.peek() != '"' {
		s.syntax("Invalid value.")
		return nil, false
	}
	s.i++
	from := s.i
	for ; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return s.b[from : s.i-1], escaped
		case c == '\\':
			escaped = true
			s.i++
		case c < ' ':
			s.syntax("Invalid encoding in string.")
			return nil, false
		}
	}
	s.i = len(s.b)
	s.syntax("Missing a closing quotation mark in string.")
	return nil, false
}

// text reads a string and decodes it; without escapes it is a part of the body.
func (s *scanner) text() []byte {
	raw, escaped := s.raw()
	if s.err != nil {
		return nil
	}
	if escaped {
		var ok bool
		if raw, ok = unescape(make([]byte, 0, len(raw)), raw); !ok {
			s.syntax("Invalid escape character in string.")
			return nil
		}
	}
	if !utf8.Valid(raw) {
		s.syntax("Invalid encoding in string.")
		return nil
	}
	return raw
}

// unescape appends the decoded form of a JSON string's inside.
func unescape(dst, raw []byte) ([]byte, bool) {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			dst = append(dst, raw[i])
			continue
		}
		if i++; i >= len(raw) {
			return dst, false
		}
		switch c := raw[i]; c {
		case '"', '\\', '/':
			dst = append(dst, c)
		case 'b', 'f', 'n', 'r', 't':
			dst = append(dst, "\b\f\n\r\t"[strings.IndexByte("bfnrt", c)])
		case 'u':
			r, n, ok := unicode(raw[i+1:])
			if !ok {
				return dst, false
			}
			dst = utf8.AppendRune(dst, r)
			i += n
		default:
			return dst, false
		}
	}
	return dst, true
}

// unicode reads what follows \u, with its second half where it is the first of a
// surrogate pair, and says how long that was.
func unicode(raw []byte) (r rune, n int, ok bool) {
	r, ok = hex4(raw)
	if !ok || r < 0xd800 || r > 0xdfff {
		return r, 4, ok
	}
	if r > 0xdbff || len(raw) < 10 || raw[4] != '\\' || raw[5] != 'u' {
		return 0, 0, false
	}
	low, ok := hex4(raw[6:])
	if !ok || low < 0xdc00 || low > 0xdfff {
		return 0, 0, false
	}
	return (r-0xd800)<<10 | (low - 0xdc00) + 0x10000, 10, true
}

func hex4(raw []byte) (r rune, ok bool) {
	if len(raw) < 4 {
		return 0, false
	}
	for _, c := range raw[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// boolean reads true or false.
func (s *scanner) boolean() (value, ok bool) {
	s.peek()
	rest := s.b[s.i:]
	switch {
	case len(rest) >= 4 && string(rest[:4]) == "true":
		s.i += 4
		return true, true
	case len(rest) >= 5 && string(rest[:5]) == "false":
		s.i += 5
		return false, true
	}
	return false, false
}

// skip passes over any value, which must be JSON.
func (s *scanner) skip(depth int) {
	if depth > maxDepth {
		s.fail("JSON nesting depth exceeds maximum allowed limit (%d)", maxDepth)
		return
	}
	switch c := s.peek(); c {
	case '{':
		s.i++
		for _, more := s.key(true); more && s.err == nil; _, more = s.key(false) {
			s.skip(depth + 1)
		}
	case '[':
		s.i++
		for more := s.element(true); more && s.err == nil; more = s.element(false) {
			s.skip(depth + 1)
		}
	case '"':
		s.text()
	case 't', 'f':
		if _, ok := s.boolean(); !ok {
			s.syntax("Invalid value.")
		}
	case 'n':
		s.word("null")
	case 'N', 'I':
		if !s.tryWord("NaN") {
			s.word("Infinity")
		}
	default:
		s.number()
	}
}

func (s *scanner) tryWord(w string) bool {
	if rest := s.b[s.i:]; len(rest) < len(w) || string(rest[:len(w)]) != w {
		return false
	}
	s.i += len(w)
	return true
}

func (s *scanner) word(w string) {
	if !s.tryWord(w) {
		s.syntax("Invalid value.")
	}
}
