// Package pbtxt reads protobuf's text format without a schema, and remembers the
// line of everything, so that whoever has the schema can say where something is
// wrong.
// Source: https://protobuf.dev/reference/protobuf/textformat-spec/
package pbtxt

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Message is the fields of a message, in the order of the text. A repeated field
// is there once per element, be it written as a list or not.
type Message struct {
	Fields []Field
}

// Field is one value of a field.
type Field struct {
	Name  string
	Line  int // of the value, from 1
	Value Value
}

// Value is a message, a string, or a scalar as it is written: a number, or a name
// such as true or TYPE_FP32.
type Value struct {
	Message *Message // nil for the others
	Text    string   // decoded, where it is a string
	String  bool     // it stood in quotes
}

// Error says where the text is not of the format.
type Error struct {
	Line    int // from 1
	Message string
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Message) }

// maxDepth bounds the nesting of messages.
const maxDepth = 64

// Parse reads a text. The error is an *Error.
func Parse(text []byte) (*Message, error) {
	p := &parser{text: string(text), line: 1}
	if !utf8.Valid(text) {
		return nil, &Error{1, "the text is not UTF-8"}
	}
	p.next()
	m := p.message("", 0)
	if p.err != nil {
		return nil, p.err
	}
	return m, nil
}

// kind of a token.
type kind uint8

const (
	end    kind = iota
	word        // a name, or the letters of a number
	quoted      // a string, decoded
	symbol      // one character
)

// parser reads token by token. The first error stays, and is followed by the end.
type parser struct {
	text string
	i    int
	line int // at i
	err  *Error

	// The token at hand.
	kind  kind
	token string
	at    int // its line
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = &Error{p.at, fmt.Sprintf(format, args...)}
	}
	p.kind, p.token, p.i = end, "", len(p.text)
}

// next moves to the next token.
func (p *parser) next() {
	p.space()
	p.at = p.line
	if p.err != nil || p.i == len(p.text) {
		p.kind, p.token = end, ""
		return
	}
	switch c := p.text[p.i]; {
	case isWord(c):
		from := p.i
		for p.i < len(p.text) && (isWord(p.text[p.i]) || isSign(p.text, from, p.i)) {
			p.i++
		}
		p.kind, p.token = word, p.text[from:p.i]
	case c == '"' || c == '\'':
		p.string(c)
	case strings.IndexByte(":{}<>[],;-", c) >= 0:
		p.kind, p.token = symbol, p.text[p.i:p.i+1]
		p.i++
	default:
		r, _ := utf8.DecodeRuneInString(p.text[p.i:])
		p.fail("unexpected character %q", r)
	}
}

func (p *parser) space() {
	for ; p.i < len(p.text); p.i++ {
		switch c := p.text[p.i]; {
		case c == '\n':
			p.line++
		case c == '#':
			n := strings.IndexByte(p.text[p.i:], '\n')
			if n < 0 {
				n = len(p.text) - p.i
			}
			p.i += n - 1
		case c != ' ' && c != '\t' && c != '\r' && c != '\v' && c != '\f':
			return
		}
	}
}

func isWord(c byte) bool {
	return c == '_' || c == '.' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// isSign reports whether the byte at i is the sign of an exponent of the number
// that begins at from.
func isSign(text string, from, i int) bool {
	first, before := text[from], text[i-1]|0x20
	return (text[i] == '-' || text[i] == '+') && i > from && before == 'e' && (first == '.' || '0' <= first && first <= '9') &&
		!strings.HasPrefix(text[from:], "0x")
}

// string reads a string in quotes.
func (p *parser) string(quote byte) {
	var b strings.Builder
	for p.i++; p.i < len(p.text); p.i++ {
		switch c := p.text[p.i]; c {
		case quote:
			p.i++
			p.kind, p.token = quoted, b.String()
			return
		case '\n':
			p.fail("a string has no closing quote")
			return
		case '\\':
			n := escape(&b, p.text[p.i+1:])
			if n == 0 {
				p.fail("a string has an escape that does not exist")
				return
			}
			p.i += n
		default:
			b.WriteByte(c)
		}
	}
	p.fail("a string has no closing quote")
}

// escape writes what the escape after a backslash stands for, and returns how long
// it is; 0 for one that does not exist.
func escape(b *strings.Builder, rest string) int {
	if rest == "" {
		return 0
	}
	if i := strings.IndexByte(`abfnrtv\'"?`, rest[0]); i >= 0 {
		b.WriteByte("\a\b\f\n\r\t\v\\'\"?"[i])
		return 1
	}
	switch c := rest[0]; {
	case '0' <= c && c <= '7':
		n := 1
		for n < 3 && n < len(rest) && '0' <= rest[n] && rest[n] <= '7' {
			n++
		}
		v, err := strconv.ParseUint(rest[:n], 8, 8)
		if err != nil {
			return 0
		}
		b.WriteByte(byte(v))
		return n
	case c == 'x' || c == 'X':
		n := 1
		for n < 3 && n < len(rest) && strings.IndexByte("0123456789abcdefABCDEF", rest[n]) >= 0 {
			n++
		}
		v, err := strconv.ParseUint(rest[1:n], 16, 8)
		if err != nil {
			return 0
		}
		b.WriteByte(byte(v))
		return n
	case c == 'u' || c == 'U':
		n := map[byte]int{'u': 5, 'U': 9}[c]
		if len(rest) < n {
			return 0
		}
		v, err := strconv.ParseUint(rest[1:n], 16, 32)
		if err != nil || v > utf8.MaxRune || !utf8.ValidRune(rune(v)) {
			return 0
		}
		b.WriteRune(rune(v))
		return n
	}
	return 0
}

// is reports whether the token at hand is the symbol s.
func (p *parser) is(s string) bool { return p.kind == symbol && p.token == s }

// take passes over the symbol s if it is at hand.
func (p *parser) take(s string) bool {
	if !p.is(s) {
		return false
	}
	p.next()
	return true
}

// message reads fields until close, which is empty for the whole text.
func (p *parser) message(close string, depth int) *Message {
	m := &Message{}
	if depth > maxDepth {
		p.fail("messages are nested more than %d deep", maxDepth)
		return m
	}
	opened := p.at
	for p.err == nil {
		switch {
		case p.kind == end && close != "":
			p.fail("the message that begins in line %d has no closing %s", opened, close)
		case p.kind == end:
			return m
		case close != "" && p.take(close):
			return m
		case p.kind == word:
			p.field(m, depth)
		case p.is("["):
			p.fail("extensions and Any are not supported")
		default:
			p.fail("expected the name of a field, got %q", p.token)
		}
	}
	return m
}

// field reads one field and its separator.
func (p *parser) field(m *Message, depth int) {
	name := p.token
	if c := name[0]; c == '.' || '0' <= c && c <= '9' || strings.Contains(name, ".") {
		p.fail("expected the name of a field, got %q", name)
		return
	}
	p.next()
	colon := p.take(":")
	if p.take("[") {
		for first := true; !p.take("]") && p.err == nil; first = false {
			if !first && !p.take(",") {
				p.fail("a list needs a ',' or a ']'")
			}
			p.value(m, name, colon, depth)
		}
	} else {
		p.value(m, name, colon, depth)
	}
	if !p.take(",") {
		p.take(";")
	}
}

// value reads one value of the field called name.
func (p *parser) value(m *Message, name string, colon bool, depth int) {
	f := Field{Name: name, Line: p.at}
	switch {
	case p.take("{"):
		f.Value.Message = p.message("}", depth+1)
	case p.take("<"):
		f.Value.Message = p.message(">", depth+1)
	case !colon:
		p.fail("%s needs a ':', or a message in braces", name)
	case p.kind == quoted:
		f.Value.String = true
		var all strings.Builder
		for ; p.kind == quoted; p.next() { // strings next to each other are one
			all.WriteString(p.token)
		}
		f.Value.Text = all.String()
	case p.take("-") && p.kind == word:
		f.Value.Text = "-" + p.token
		p.next()
	case p.kind == word:
		f.Value.Text = p.token
		p.next()
	default:
		p.fail("%s has no value", name)
	}
	m.Fields = append(m.Fields, f)
}
