package upstream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"

	"sluice.dev/gateway/header"
)

// Limits of an answer, beside its body's.
const (
	maxHead    = 8 << 10 // bytes of a head, and of the trailers
	maxInterim = 8       // answers of status 1xx, which are too many
	maxLine    = 256     // bytes of a line that says how long a chunk is
	step       = 64 << 10
)

// readHead reads the head of the answer that counts into h, whose bytes are lent
// until the next read.
func readHead(r *bufio.Reader, h *head) error {
	for range maxInterim {
		n, err := peekHead(r)
		if err != nil {
			return err
		}
		b, err := r.Peek(n) // they are there
		if err == nil {
			err = h.parse(b)
		}
		if err != nil {
			return err
		}
		if h.status == 101 {
			return unclean("it switches protocols")
		}
		_, _ = r.Discard(n) // does not move the bytes
		if h.status >= 200 {
			return nil
		}
	}
	return unclean("interim answers without end")
}

// peekHead waits until r has buffered a head, and tells its length.
func peekHead(r *bufio.Reader) (int, error) {
	for want := 1; ; {
		_, err := r.Peek(want)
		b, _ := r.Peek(r.Buffered()) // they are there
		if n := end(b); n > 0 {
			return n, nil
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return 0, unclean(fmt.Sprintf("a head of more than %d bytes", maxHead))
		case err != nil && len(b) > 0:
			return 0, unclean("it ends in its head")
		case err != nil:
			return 0, err
		}
		want = len(b) + 1
	}
}

// readBody appends the body that h tells of to dst, at most limit bytes.
func readBody(r *bufio.Reader, h *head, dst []byte, limit int) ([]byte, error) {
	switch {
	case h.chunked:
		return readChunks(r, dst, limit)
	case h.length < 0:
		return readAll(r, dst, limit)
	case h.length > int64(limit):
		return dst, tooLong(limit)
	}
	return readN(r, dst, int(h.length))
}

func tooLong(limit int) error { return unclean(fmt.Sprintf("a body of more than %d bytes", limit)) }

// readN appends n bytes. Memory is taken as they come, not as they are announced.
func readN(r *bufio.Reader, dst []byte, n int) ([]byte, error) {
	for n > 0 {
		if len(dst) == cap(dst) {
			dst = slices.Grow(dst, min(n, max(len(dst), step)))
		}
		m, err := r.Read(dst[len(dst):min(cap(dst), len(dst)+n)])
		dst, n = dst[:len(dst)+m], n-m
		if err != nil && n > 0 {
			return dst, unclean("it ends in its body")
		}
	}
	return dst, nil
}

// readAll appends what comes until the connection ends.
func readAll(r *bufio.Reader, dst []byte, limit int) ([]byte, error) {
	for start := len(dst); ; {
		if len(dst) == cap(dst) {
			dst = slices.Grow(dst, max(len(dst), step))
		}
		m, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+m]
		switch {
		case len(dst)-start > limit:
			return dst, tooLong(limit)
		case err == io.EOF:
			return dst, nil
		case err != nil:
			return dst, unclean("it ends in its body")
		}
	}
}

// readChunks appends the chunks of a body, and drops its trailers.
func readChunks(r *bufio.Reader, dst []byte, limit int) ([]byte, error) {
	for start := len(dst); ; {
		line, err := readLine(r, maxLine)
		if err != nil {
			return dst, err
		}
		digits := 0
		for digits < len(line) && header.Token[line[digits]] {
			digits++
		}
		n, ok := number(line[:digits], 16)
		if !ok || digits < len(line) && line[digits] != ';' {
			return dst, unclean("a chunk's length")
		}
		if n == 0 {
			return dst, skipTrailers(r)
		}
		if n > int64(limit-(len(dst)-start)) {
			return dst, tooLong(limit)
		}
		if dst, err = readN(r, dst, int(n)); err != nil {
			return dst, err
		}
		if line, err = readLine(r, maxLine); err != nil || len(line) > 0 {
			return dst, unclean("a chunk's end")
		}
	}
}

// readLine reads a line of plain characters, without its end.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	b, err := r.ReadSlice('\n')
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
		return nil, unclean("it ends in its body")
	}
	line, _, ok := cutLine(b)
	if err != nil || !ok || len(line) > limit || !plain(line) {
		return nil, unclean("a line of its body's frame")
	}
	return line, nil
}

func skipTrailers(r *bufio.Reader) error {
	for left := maxHead; ; {
		line, err := readLine(r, left)
		if err != nil || len(line) == 0 {
			return err
		}
		left -= len(line)
	}
}
