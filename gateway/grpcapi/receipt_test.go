package grpcapi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"sluice.dev/gateway"
	pb "sluice.dev/gateway/grpcapi/inferencepb"
)

// FuzzReceipt holds what is counted against a plain reading of the same frames, which
// come in pieces of any size.
func FuzzReceipt(f *testing.F) {
	message := func(declared uint32, data string) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{0}, declared), data...)
	}
	write := func(frames func(w *http2.Framer)) []byte {
		var b bytes.Buffer
		frames(http2.NewFramer(&b, nil))
		return b.Bytes()
	}
	for _, frames := range []func(*http2.Framer){
		func(w *http2.Framer) {
			_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}, EndHeaders: true})
			_ = w.WriteData(1, false, message(8, "half"))
			_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte{0x82}, EndHeaders: true})
			_ = w.WriteDataPadded(3, false, message(2, "ab\x00\x00\x00"), make([]byte, 9))
			_ = w.WriteData(3, false, []byte("\x00\x07rest"))
			_ = w.WriteData(1, false, []byte("more"))
			_ = w.WriteRSTStream(3, http2.ErrCodeCancel)
			_ = w.WriteData(3, false, []byte("late"))
		},
		func(w *http2.Framer) {
			_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, BlockFragment: []byte{0x82}, EndHeaders: true})
			_ = w.WritePing(false, [8]byte{})
			_ = w.WriteData(5, false, message(100, "cut"))
			_ = w.WriteData(5, true, nil)
		},
	} {
		f.Add(write(frames), byte(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, size byte) {
		b = append([]byte(http2.ClientPreface), b...)
		all := &receipts{most: 1 << 40, conns: map[*receipt]struct{}{}}
		r := all.open(&piecewise{b: b, size: int(size)%20 + 1})
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Fatal(err)
		}
		if got, want := all.sum.Load(), unfinished(b[len(http2.ClientPreface):]); got != want {
			t.Fatalf("%d bytes are in receipt; want %d", got, want)
		}
		_ = r.Close()
		if all.sum.Load() != 0 || len(all.conns) != 0 {
			t.Fatalf("of a closed connection, %d bytes are in receipt", all.sum.Load())
		}
	})
}

// piecewise is a connection that gives its bytes in pieces.
type piecewise struct {
	net.Conn
	b    []byte
	size int
}

func (p *piecewise) Read(b []byte) (int, error) {
	n := copy(b, p.b[:min(len(p.b), p.size)])
	if p.b = p.b[n:]; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (p *piecewise) Close() error { return nil }

// unfinished is how many bytes of unfinished messages there are after frames b.
func unfinished(b []byte) (sum int64) {
	calls := map[uint32][]byte{}
	for len(b) >= 9 {
		length, kind, flags, call := int(b[0])<<16|int(b[1])<<8|int(b[2]), b[3], b[4], binary.BigEndian.Uint32(b[5:])&^(1<<31)
		b = b[9:]
		payload, whole := b[:min(length, len(b))], length <= len(b)
		b = b[len(payload):]
		_, there := calls[call]
		switch {
		case kind == 3, kind == 1 && flags&1 != 0:
			delete(calls, call)
		case kind == 1 && !there:
			calls[call] = nil
		case kind == 0:
			if flags&8 != 0 && length > 0 && len(payload) > 0 {
				pad := min(int(payload[0]), length-1)
				payload = payload[1:min(len(payload), length-pad)]
				whole = len(payload) == length-1-pad
			} else if flags&8 != 0 && length > 0 {
				whole = false
			}
			if there {
				calls[call] = append(calls[call], payload...)
			}
			if whole && flags&1 != 0 {
				delete(calls, call)
			}
		}
	}
	for _, m := range calls {
		for len(m) >= 5 && uint32(len(m)-5) >= binary.BigEndian.Uint32(m[1:]) {
			m = m[5+binary.BigEndian.Uint32(m[1:]):]
		}
		sum += max(int64(len(m))-5, 0)
	}
	return sum
}

// raw is a connection with one call, whose message of 64 MiB is never finished.
type raw struct {
	*http2.Framer
	conn net.Conn
}

func (h *house) raw(t *testing.T, method string, md ...string) raw {
	t.Helper()
	c, err := net.Dial("tcp", h.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	var block bytes.Buffer
	fields := hpack.NewEncoder(&block)
	md = append([]string{":method", "POST", ":scheme", "http", ":path", method, ":authority", "a", "content-type", "application/grpc", "te", "trailers"}, md...)
	for i := 0; i < len(md); i += 2 {
		_ = fields.WriteField(hpack.HeaderField{Name: md[i], Value: md[i+1]}) // to memory
	}
	r := raw{http2.NewFramer(c, c), c}
	r.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err = io.WriteString(c, http2.ClientPreface); err == nil {
		err = r.WriteSettings()
	}
	if err == nil {
		err = r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	}
	if err == nil {
		err = r.WriteData(1, false, []byte{0, 4, 0, 0, 0})
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// read returns the first frame that ok wants.
func (r raw) read(t *testing.T, ok func(http2.Frame) bool) {
	t.Helper()
	_ = r.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		f, err := r.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if ok(f) {
			return
		}
	}
}

// locked serves endpoints that nobody may call without their key.
func locked(t *testing.T, c Config) *house {
	t.Helper()
	h := open(t, c, identity{})
	h.path.Swap(gateway.NewSnapshot(2, []*gateway.Endpoint{h.path.Snapshot().Endpoint([]byte("locked"))}))
	return h
}

const inferMethod = pb.GRPCInferenceService_ModelInfer_FullMethodName

// Nothing of a message is kept for a caller that no endpoint lets in.
func TestStrangersAreRefusedBeforeTheirMessage(t *testing.T) {
	h := locked(t, Config{})
	for range 20 {
		r := h.raw(t, inferMethod, "x-api-key", "another")
		for range 4 {
			_ = r.WriteData(1, false, make([]byte, 15<<10)) // it may be refused by now
		}
		r.read(t, func(f http2.Frame) bool {
			m, ok := f.(*http2.MetaHeadersFrame)
			if ok && (field(m, "grpc-status") != "16" || !strings.Contains(field(m, "grpc-message"), "no valid credential")) {
				t.Errorf("answered %s %s; want UNAUTHENTICATED", field(m, "grpc-status"), field(m, "grpc-message"))
			}
			return ok
		})
	}
	call := pb.NewGRPCInferenceServiceClient(h.dial(t))
	large := ask("", make([]byte, 8<<20)...)
	large.ModelName = "locked"
	_, err := call.ModelInfer(soon(t), large)
	wantError(t, err, codes.Unauthenticated, "no valid credential")
	if _, err := call.ModelInfer(metadata.AppendToOutgoingContext(soon(t), "x-api-key", key), large); err != nil {
		t.Error(err)
	}
	until(t, "without unfinished messages", func() bool { return h.server.receipts.sum.Load() == 0 })
}

func field(m *http2.MetaHeadersFrame, name string) string {
	for _, f := range m.RegularFields() {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// Whoever sends much of messages that need no credential, and not their ends, loses the
// connection; a caller that is known is served meanwhile.
func TestUnfinishedMessagesAreBoundedInSum(t *testing.T) {
	const most, callers, each = 16 << 20, 64, 1 << 20
	h := locked(t, Config{MaxReceiving: most})
	call := pb.NewGRPCInferenceServiceClient(h.dial(t))
	large := ask("", make([]byte, 8<<20)...)
	large.ModelName = "locked"
	ctx := metadata.AppendToOutgoingContext(soon(t), "x-api-key", key)
	served := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		for {
			_, err := call.ModelInfer(ctx, large)
			select {
			case <-stop:
				served <- err
				return
			default:
			}
			if err != nil {
				served <- err
				return
			}
		}
	}()
	before := heap()
	for range callers {
		r := h.raw(t, pb.GRPCInferenceService_ServerLive_FullMethodName)
		r.read(t, func(f http2.Frame) bool { // until the message is being read
			_, ok := f.(*http2.WindowUpdateFrame)
			return ok && f.Header().StreamID == 1
		})
		for sent := 0; sent < each; sent += 16 << 10 {
			_ = r.WriteData(1, false, make([]byte, 16<<10)) // the connection may be closed by now
		}
	}
	until(t, "closed", func() bool { return h.server.receipts.ended.Load() >= callers-most/each })
	if n := testutil.CollectAndCount(h.server); n != 3 {
		t.Errorf("%d metrics; want 3", n)
	}
	close(stop)
	if err := <-served; err != nil {
		t.Errorf("a known caller was answered %v", err)
	}
	until(t, "bounded", func() bool { return h.server.receipts.sum.Load() <= most })
	if grown := heap() - before; grown > 6*most {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
}

// heap is how many bytes are in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// again is a connection on which one call after another comes whole.
type again struct {
	net.Conn
	call []byte
	n    uint32
}

func (a *again) Read(b []byte) (int, error) {
	a.n += 2
	binary.BigEndian.PutUint32(a.call[5:], a.n)
	binary.BigEndian.PutUint32(a.call[len(a.call)-29:], a.n)
	return copy(b, a.call), nil
}

// countingCalls is one call after another, counted.
func countingCalls(t testing.TB) (one func()) {
	var b bytes.Buffer
	w := http2.NewFramer(&b, nil)
	if err := errors.Join(w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: make([]byte, 40), EndHeaders: true}), w.WriteData(1, true, make([]byte, 25))); err != nil {
		t.Fatal(err)
	}
	all := &receipts{most: 1 << 30, conns: map[*receipt]struct{}{}}
	r := all.open(&again{call: b.Bytes()})
	r.in.skip = 0
	buf := make([]byte, 32<<10)
	return func() {
		_, _ = r.Read(buf)
		if len(r.calls) != 0 {
			t.Fatal("a call that is whole is there")
		}
	}
}

func TestCountingDoesNotAllocate(t *testing.T) {
	if n := testing.AllocsPerRun(1000, countingCalls(t)); n != 0 {
		t.Errorf("%v allocations per call", n)
	}
}

func BenchmarkReceipt(b *testing.B) {
	one := countingCalls(b)
	for b.Loop() {
		one()
	}
}
