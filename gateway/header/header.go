// Package header reads headers: the values that both front ends know, whether they
// come in HTTP's headers or in gRPC's metadata, and what all names have in common.
package header

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"

	"sluice.dev/scorer"
)

// MaxID is the longest request id in bytes that is taken.
const MaxID = scorer.MaxID

// Bearer is the credential of an Authorization header: with the scheme Bearer,
// or bare, as Azure ML's gRPC clients send it.
func Bearer[T string | []byte](v T) T {
	const scheme = "bearer "
	if len(v) < len(scheme) || !Is([]byte(v[:len(scheme)]), scheme) {
		return v
	}
	return v[len(scheme):]
}

// Token says which bytes the name of a header may have.
// Source: https://www.rfc-editor.org/rfc/rfc9110#name-tokens
var Token = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
		t[c] = true
	}
	return t
}()

// Is reports whether b is want, which is in lower case, in letters of any case.
func Is(b []byte, want string) bool {
	if len(b) != len(want) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != want[i] {
			return false
		}
	}
	return true
}

// Trace parses the W3C header traceparent; the zero Trace if v is none. What
// versions to come add to version 00 is passed over, as they want it.
// Source: https://www.w3.org/TR/trace-context/#traceparent-header
func Trace(v []byte) (t scorer.Trace) {
	if len(v) < 55 || v[2] != '-' || v[35] != '-' || v[52] != '-' {
		return t
	}
	var version, flags [1]byte
	for _, part := range []struct{ dst, src []byte }{{version[:], v[:2]}, {t.TraceID[:], v[3:35]}, {t.SpanID[:], v[36:52]}, {flags[:], v[53:55]}} {
		if _, err := hex.Decode(part.dst, part.src); err != nil || upper(part.src) {
			return scorer.Trace{}
		}
	}
	future := version[0] > 0 && version[0] < 0xff && (len(v) == 55 || v[55] == '-')
	if t.TraceID == [16]byte{} || t.SpanID == [8]byte{} || !future && (version[0] != 0 || len(v) != 55) {
		return scorer.Trace{}
	}
	t.Flags = flags[0]
	return t
}

// upper reports whether hexadecimal digits have a letter in upper case.
func upper(digits []byte) bool {
	for _, c := range digits {
		if c <= 'F' && c >= 'A' {
			return true
		}
	}
	return false
}

// AppendTrace appends a trace context as the W3C's headers have it.
func AppendTrace(dst []byte, t *scorer.Trace) []byte {
	dst = hex.AppendEncode(append(dst, "00-"...), t.TraceID[:])
	dst = hex.AppendEncode(append(dst, '-'), t.SpanID[:])
	return hex.AppendEncode(append(dst, '-'), []byte{t.Flags})
}

// plain reports whether v may stand in a header of any protocol: printable ASCII.
func plain(v []byte) bool {
	for _, c := range v {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// State is the W3C header tracestate, or as many of its entries as may go on, the latest
// of which come first; nothing if it is none.
// Source: https://www.w3.org/TR/trace-context/#tracestate-limits
func State(v []byte) []byte {
	if len(v) > scorer.MaxState {
		v = v[:max(bytes.LastIndexByte(v[:scorer.MaxState+1], ','), 0)]
	}
	if !plain(v) {
		return nil
	}
	return v
}

// AppendRequestID appends the id that a request brought, or a new one where that is
// none.
func AppendRequestID(dst, brought []byte) []byte {
	if len(brought) == 0 || len(brought) > MaxID || !plain(brought) {
		return AppendID(dst)
	}
	return append(dst, brought...)
}

// AppendID appends a new request id, a random UUID.
func AppendID(dst []byte) []byte {
	var b [16]byte
	hi, lo := rand.Uint64(), rand.Uint64()
	for i := range 8 {
		b[i], b[8+i] = byte(hi>>(8*i)), byte(lo>>(8*i))
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	for i, at := range [...][2]int{{0, 4}, {4, 6}, {6, 8}, {8, 10}, {10, 16}} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, b[at[0]:at[1]])
	}
	return dst
}
