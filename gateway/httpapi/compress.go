package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/valyala/fasthttp"

	"sluice.dev/scorer"
)

// encodings are the codings of bodies, in order of preference among equals.
var encodings = [...]string{"gzip", "deflate", "zstd"}

const (
	compressFrom = 1 << 10 // bytes of an answer from which on it is compressed
	maxWindow    = 8 << 20 // bytes that a zstd decoder keeps; RFC 9659 asks for as many
)

var (
	keyEncoding = []byte("Content-Encoding")
	keyAccept   = []byte("Accept-Encoding")
	accepted    = []byte("gzip, deflate, zstd")
)

// decoder decompresses one body after another.
type decoder interface {
	io.Reader
	Reset(io.Reader) error
}

var decoders = map[string]*sync.Pool{
	"gzip":    {New: func() any { return new(gzip.Reader) }},
	"zlib":    {New: func() any { return &zlibDecoder{} }},
	"deflate": {New: func() any { return flateDecoder{flate.NewReader(nil)} }},
	"zstd": {New: func() any {
		d, _ := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow)) // good options
		return d
	}},
}

type zlibDecoder struct{ io.ReadCloser }

func (z *zlibDecoder) Reset(r io.Reader) (err error) {
	if z.ReadCloser == nil {
		z.ReadCloser, err = zlib.NewReader(r)
		return err
	}
	return z.ReadCloser.(zlib.Resetter).Reset(r, nil)
}

type flateDecoder struct{ io.ReadCloser }

func (f flateDecoder) Reset(r io.Reader) error { return f.ReadCloser.(flate.Resetter).Reset(r, nil) }

// inflate is the body of a request that says that it is compressed. A body that
// would become larger than MaxBody is refused when it has, and what it becomes
// counts among the large ones.
func (s *Server) inflate(ctx *fasthttp.RequestCtx) ([]byte, scorer.Status, string) {
	name := strings.ToLower(string(ctx.Request.Header.PeekBytes(keyEncoding)))
	body := ctx.Request.Body()
	switch name {
	case "gzip", "zstd":
	case "deflate":
		if isZlib(body) {
			name = "zlib" // as the standard has it; some send the bare stream
		}
	default:
		ctx.Response.Header.SetCanonical(keyAccept, accepted)
		return nil, scorer.Unsupported, "Unsupported compression type"
	}
	d := decoders[name].Get().(decoder)
	defer decoders[name].Put(d)
	err := d.Reset(bytes.NewReader(body))
	var out []byte
	if err == nil {
		out, err = s.readAll(ctx.Conn().(*conn), d, 4*len(body))
	}
	switch {
	case errors.Is(err, noRoom):
		return nil, scorer.Overloaded, noRoom.message
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return nil, scorer.TooLarge, fmt.Sprintf("the request's body exceeds %d bytes when it is decompressed", s.config.MaxBody)
	case err != nil:
		return nil, scorer.InvalidArgument, "the request's body is not what its Content-Encoding says"
	}
	return out, scorer.OK, ""
}

// isZlib reports whether a body begins as RFC 1950 has it.
func isZlib(b []byte) bool {
	return len(b) >= 2 && b[0]&0x0f == 8 && (uint(b[0])<<8|uint(b[1]))%31 == 0
}

// readAll reads r to its end, at most MaxBody bytes. Memory grows with what comes;
// likely is how much that may be.
func (s *Server) readAll(c *conn, r io.Reader, likely int) ([]byte, error) {
	out := make([]byte, 0, min(max(likely, 512), largeBody))
	for {
		if len(out) == cap(out) {
			if len(out) > s.config.MaxBody {
				return nil, fasthttp.ErrBodyTooLarge
			}
			if !c.reserve(int64(cap(out))) {
				return nil, noRoom
			}
			out = append(make([]byte, 0, 2*cap(out)), out...)
		}
		n, err := r.Read(out[len(out):cap(out)])
		out = out[:len(out)+n]
		if err == io.EOF && len(out) <= s.config.MaxBody {
			return out, nil
		}
		if err == io.EOF {
			return nil, fasthttp.ErrBodyTooLarge
		}
		if err != nil {
			return nil, err
		}
	}
}

// encoder compresses one body after another.
type encoder interface {
	io.WriteCloser
	Reset(io.Writer)
}

var encoders = map[string]*sync.Pool{
	"gzip":    {New: func() any { w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed); return w }}, // a good level
	"deflate": {New: func() any { w, _ := zlib.NewWriterLevel(nil, zlib.BestSpeed); return w }},
	"zstd": {New: func() any {
		w, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20))
		return w
	}},
}

// compress compresses an answer that is large enough, where the client takes that
// and it becomes smaller.
func compress(ctx *fasthttp.RequestCtx) {
	out := &ctx.Response
	if len(out.Header.PeekBytes(keyEncoding)) > 0 {
		return // by whoever gave the answer
	}
	varies(out, keyAccept)
	name := negotiate(ctx.Request.Header.PeekAll("Accept-Encoding"))
	if name == "" {
		return
	}
	body := out.Body()
	small := bytes.NewBuffer(make([]byte, 0, len(body)/2))
	e := encoders[name].Get().(encoder)
	defer encoders[name].Put(e)
	e.Reset(small)
	_, err := e.Write(body)
	if err = errors.Join(err, e.Close()); err != nil || small.Len() >= len(body) {
		return
	}
	out.Header.SetCanonical(keyEncoding, []byte(name))
	out.SetBody(small.Bytes())
}

// negotiate is the coding that a client would have most, by the lines of its
// Accept-Encoding; empty for none. What it names counts for itself, "*" for all
// else. Of equals the first that it names is taken. Who refuses the plain answer and
// all else gets it: the work is done by then.
// Source: https://www.rfc-editor.org/rfc/rfc9110#name-accept-encoding
func negotiate(lines [][]byte) (best string) {
	var named [len(encodings)]bool
	quality, plain, others := 0, -1, -1 // -1: not told
	for _, line := range lines {
		for part := range bytes.SplitSeq(line, []byte(",")) {
			name, q := weighed(part)
			switch i := slices.Index(encodings[:], name); {
			case q < 0: // not a weight
			case name == "*":
				others = max(others, q)
			case name == "identity":
				plain = max(plain, q)
			case i >= 0:
				named[i] = true
				if q > quality {
					best, quality = name, q
				}
			}
		}
	}
	for i, name := range encodings {
		if !named[i] && others > quality {
			best, quality = name, others
		}
	}
	if plain < 0 {
		plain = others
	}
	if quality < plain {
		return ""
	}
	return best
}

// weighed reads a coding and its quality in thousandths; -1 for what is neither.
func weighed(part []byte) (name string, quality int) {
	coding, rest, weighted := bytes.Cut(part, []byte(";"))
	name = string(bytes.ToLower(bytes.TrimSpace(coding)))
	if !weighted {
		return name, 1000
	}
	text, ok := bytes.CutPrefix(bytes.ToLower(bytes.TrimSpace(rest)), []byte("q="))
	q, err := strconv.ParseFloat(string(text), 64)
	if !ok || err != nil || !(q >= 0 && q <= 1) {
		return name, -1
	}
	return name, int(q * 1000)
}
