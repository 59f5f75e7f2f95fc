package grpcapi

import (
	"compress/zlib"
	"io"
	"sync"

	"google.golang.org/grpc/encoding"
)

// deflate is gRPC's message encoding of that name: zlib's format. The library has
// gzip alone, and clients of Triton offer both.
type deflate struct{ readers, writers sync.Pool }

func init() { encoding.RegisterCompressor(&deflate{}) } // the library takes them at no other time

// Name implements encoding.Compressor.
func (*deflate) Name() string { return "deflate" }

// Compress implements encoding.Compressor.
func (d *deflate) Compress(w io.Writer) (io.WriteCloser, error) {
	z, _ := d.writers.Get().(*deflateWriter)
	if z == nil {
		z = &deflateWriter{Writer: zlib.NewWriter(w), pool: &d.writers}
	}
	z.Reset(w)
	return z, nil
}

type deflateWriter struct {
	*zlib.Writer
	pool *sync.Pool
}

// Close ends the message and gives the writer back.
func (z *deflateWriter) Close() error {
	defer z.pool.Put(z)
	return z.Writer.Close()
}

// Decompress implements encoding.Compressor.
func (d *deflate) Decompress(r io.Reader) (io.Reader, error) {
	if z, _ := d.readers.Get().(*deflateReader); z != nil {
		return z, z.ReadCloser.(zlib.Resetter).Reset(r, nil)
	}
	z, err := zlib.NewReader(r)
	if err != nil {
		return nil, err
	}
	return &deflateReader{ReadCloser: z, pool: &d.readers}, nil
}

type deflateReader struct {
	io.ReadCloser
	pool *sync.Pool
}

// Read gives the reader back at the message's end.
func (z *deflateReader) Read(p []byte) (int, error) {
	n, err := z.ReadCloser.Read(p)
	if err == io.EOF {
		z.pool.Put(z)
	}
	return n, err
}
