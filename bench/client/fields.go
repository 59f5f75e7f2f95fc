package client

import (
	"bytes"
	"strconv"
	"time"

	"sluice.dev/bench"
)

// fields are the parts of an answer's head that say how it goes on.
type fields struct {
	length         int // -1: not given
	chunked, close bool
	bad            bool
}

// Names that are looked for, in lower case.
const (
	contentLength    = "content-length"
	transferEncoding = "transfer-encoding"
	connection       = "connection"
	versionField     = "x-sluice-version"
	timingField      = "server-timing"
	headLength       = "inference-header-content-length"
)

// read takes what a line of the head says. Lines are told apart by the length of
// their names first: most are passed over after one look.
func (f *fields) read(a *bench.Answer, line []byte) {
	colon := bytes.IndexByte(line, ':')
	if colon < 0 {
		return
	}
	name, value := line[:colon], bytes.TrimSpace(line[colon+1:])
	switch colon {
	case len(contentLength):
		if is(name, contentLength) {
			n, err := strconv.ParseUint(string(value), 10, 62)
			f.bad = f.bad || err != nil || f.length >= 0 && f.length != int(n)
			f.length = int(n)
		}
	case len(transferEncoding):
		if is(name, transferEncoding) {
			f.chunked = is(value, "chunked")
		}
	case len(connection):
		if is(name, connection) {
			f.close = f.close || is(value, "close")
		}
	case len(versionField):
		if is(name, versionField) {
			a.Version = append(a.Version[:0], value...)
		}
	case len(timingField):
		if is(name, timingField) {
			Timing(a, value)
		}
	case len(headLength):
		if is(name, headLength) {
			a.Head, _ = strconv.Atoi(string(value)) // what is no number is no length
		}
	}
}

// is compares without regard to case.
func is(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// Timing reads a Server-Timing header (W3C: name;dur=milliseconds, by commas). The
// entries whose names have "queue" or "batch" in them are times in queues, and add up:
// Sluice's requests wait at the gateway, then for their batch. "device", "compute" or
// "infer" is the time on the device. Others are passed over.
func Timing(a *bench.Answer, value []byte) {
	for more := true; more; {
		var entry []byte
		entry, value, more = bytes.Cut(value, []byte(","))
		name, rest, _ := bytes.Cut(entry, []byte(";"))
		_, text, ok := bytes.Cut(rest, []byte("dur="))
		if !ok {
			continue
		}
		text, _, _ = bytes.Cut(text, []byte(";"))
		ms, err := strconv.ParseFloat(string(bytes.Trim(text, " \t\"")), 64)
		if err != nil || !(ms >= 0 && ms < 1e9) {
			continue
		}
		took := time.Duration(ms * 1e6)
		switch {
		case bytes.Contains(name, []byte("queue")), bytes.Contains(name, []byte("batch")):
			a.Queue, a.Timed = a.Queue+took, true
		case bytes.Contains(name, []byte("device")), bytes.Contains(name, []byte("compute")), bytes.Contains(name, []byte("infer")):
			a.Device, a.Timed = took, true
		}
	}
}

// failures are the texts of statuses that are no success.
var failures = func() (list [1000]string) {
	for s := range list {
		if s < 200 || s > 299 {
			list[s] = "status " + strconv.Itoa(s)
		}
	}
	return list
}()

func failure(status int) string { return failures[status] }
