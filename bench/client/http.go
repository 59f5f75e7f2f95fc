// Package client opens connections to targets, one request at a time on each, and
// reads as little of the answers as a measurement needs.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"sluice.dev/bench"
)

// HTTP dials address, a host and port, over TLS where config is given.
func HTTP(address string, config *tls.Config) bench.Dial {
	return func(ctx context.Context) (bench.Conn, error) {
		d := net.Dialer{Timeout: 10 * time.Second}
		c, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		if config == nil {
			return &httpConn{c: c}, nil
		}
		t := tls.Client(c, config)
		if err := t.HandshakeContext(ctx); err != nil {
			_ = c.Close()
			return nil, fmt.Errorf("TLS: %w", err)
		}
		return &httpConn{c: t}, nil
	}
}

const (
	readBuffer = 4 << 10  // grows to the answers' size
	maxHead    = 64 << 10 // bytes of an answer's head
	maxBody    = 1 << 30
	quickSize  = 32 << 10 // a request that surely fits into the socket's buffer
)

var errLarge = errors.New("the answer is larger than 1 GiB")

// httpConn reads into one buffer: the answer's head and as much of the body as comes
// with it. A body that does not fit makes the buffer grow, so that answers are read
// in place, without a copy.
type httpConn struct {
	c          net.Conn
	buf        []byte
	begin, end int  // of what was read and not used
	last       bool // the server closes after this answer
}

// ErrClosing says that the server ends the connection after the answer, as it may.
var ErrClosing = errors.New("the server closes the connection")

func (h *httpConn) Send(item *bench.Item) error {
	_, err := h.c.Write(item.Wire)
	return err
}

func (h *httpConn) Quick(item *bench.Item) bool { return len(item.Wire) <= quickSize }

func (h *httpConn) Close() error { return h.c.Close() }

// Receive reads one answer. ErrClosing comes with a whole answer.
func (h *httpConn) Receive(a *bench.Answer) error {
	h.compact()
	for {
		status, err := h.head(a)
		if err != nil {
			return err
		}
		if status < 100 || status > 199 { // 100 Continue and its like announce the answer
			break
		}
	}
	if h.last {
		return ErrClosing
	}
	return nil
}

// compact moves what is left of the buffer to its front; the last answer's body is
// over.
func (h *httpConn) compact() {
	h.end = copy(h.buf, h.buf[h.begin:h.end])
	h.begin = 0
}

// fill reads more. The buffer doubles when it is full.
func (h *httpConn) fill() error {
	if h.end == len(h.buf) {
		h.buf = append(h.buf, make([]byte, max(readBuffer, len(h.buf)))...)
	}
	n, err := h.c.Read(h.buf[h.end:])
	h.end += n
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// head reads an answer's head, and its body where the status has one. Offsets into
// the buffer are used throughout, since it moves when it grows.
func (h *httpConn) head(a *bench.Answer) (status int, err error) {
	size := 0 // of the head, its empty line included
	for {
		if i := bytes.Index(h.buf[h.begin+max(0, size-3):h.end], []byte("\r\n\r\n")); i >= 0 {
			size = max(0, size-3) + i + 4
			break
		}
		size = h.end - h.begin
		if size > maxHead {
			return 0, errors.New("the answer's head is larger than 64 KiB")
		}
		if err := h.fill(); err != nil {
			if size > 0 && err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
	head := h.buf[h.begin : h.begin+size]
	line, rest, _ := bytes.Cut(head, []byte("\r\n"))
	if status = statusOf(line); status == 0 {
		return 0, fmt.Errorf("%.40q does not start an HTTP/1.1 answer", line)
	}
	f := fields{length: -1}
	*a = bench.Answer{Failure: failure(status), Version: a.Version[:0]}
	for len(rest) > 2 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		f.read(a, line)
	}
	if f.bad {
		return 0, errors.New("the answer's length is not a number")
	}
	h.begin += size
	h.last = f.close || line10(head)
	if status < 200 || status == 204 || status == 304 {
		return status, nil
	}
	return status, h.body(a, &f)
}

// statusOf is the code of a status line, 0 if it is none.
func statusOf(line []byte) int {
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[8] != ' ' {
		return 0
	}
	n := 0
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return 0
		}
		n = 10*n + int(c-'0')
	}
	return n
}

func line10(head []byte) bool { return head[7] == '0' }

// body finds an answer's body, reading the rest of it.
func (h *httpConn) body(a *bench.Answer, f *fields) error {
	start := h.begin
	switch {
	case f.chunked:
		return h.chunks(a)
	case f.length >= 0:
		if err := h.want(f.length); err != nil {
			return err
		}
		h.begin += f.length
	default: // to the end of the connection
		h.last = true
		for {
			err := h.fill()
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			if h.end-h.begin > maxBody {
				return errLarge
			}
		}
		h.begin = h.end
	}
	a.Body = h.buf[start:h.begin]
	return nil
}

// want makes sure that n bytes are there.
func (h *httpConn) want(n int) error {
	if n > maxBody {
		return errLarge
	}
	for h.end-h.begin < n {
		if err := h.fill(); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// chunks joins a chunked body in place, over the chunks' sizes.
func (h *httpConn) chunks(a *bench.Answer) error {
	start, to := h.begin, h.begin
	for {
		line, err := h.line()
		if err != nil {
			return err
		}
		digits, _, _ := bytes.Cut(line, []byte(";"))
		size, err := strconv.ParseUint(string(bytes.TrimSpace(digits)), 16, 31)
		if err != nil || to-start > maxBody {
			return errors.New("a chunk of the answer has no size, or it is too large")
		}
		if size == 0 {
			break
		}
		n := int(size)
		if err := h.want(n + 2); err != nil {
			return err
		}
		copy(h.buf[to:], h.buf[h.begin:h.begin+n])
		to += n
		if h.begin += n; h.buf[h.begin] != '\r' || h.buf[h.begin+1] != '\n' {
			return errors.New("a chunk of the answer is longer than its size")
		}
		h.begin += 2
	}
	for { // trailers
		line, err := h.line()
		if err != nil {
			return err
		}
		if len(line) == 0 {
			a.Body = h.buf[start:to]
			return nil
		}
	}
}

// line is the next line without its end.
func (h *httpConn) line() ([]byte, error) {
	for seen := 0; ; {
		if i := bytes.IndexByte(h.buf[h.begin+seen:h.end], '\n'); i >= 0 {
			line := h.buf[h.begin : h.begin+seen+i]
			h.begin += seen + i + 1
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
		if seen = h.end - h.begin; seen > maxHead {
			return nil, errors.New("a line of the answer is larger than 64 KiB")
		}
		if err := h.want(seen + 1); err != nil {
			return nil, err
		}
	}
}
