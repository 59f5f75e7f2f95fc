package grpcapi

import (
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice.dev/scorer"
	"sluice.dev/scorer/codec/wire"
)

// stream is one ModelStreamInfer. One goroutine receives, up to MaxInFlight others
// answer, in the order in which they finish; when all of those are busy, receiving
// waits, and with it the client.
type stream struct {
	s       *Server
	grpc    grpc.ServerStream
	headers headers
	strict  bool // an error ends the stream
	work    chan *request
	failed  chan error    // capacity 1: the error that ends the stream
	ended   chan struct{} // closed when nothing more is begun

	send sync.Mutex

	mu      sync.Mutex
	over    bool // no worker may begin
	workers sync.WaitGroup
}

var errStopping = status.Error(codes.Unavailable, "the server is shutting down; open the stream anew")

// modelStreamInfer answers ModelStreamInfer. It returns when the client has sent all,
// when an error ends the stream or when the server stops, each time after what is in
// flight is answered.
func (s *Server) modelStreamInfer(g grpc.ServerStream) error {
	h := headersOf(g.Context())
	t := &stream{
		s: s, grpc: g, headers: h, strict: h.get("triton_grpc_error") == "true",
		work: make(chan *request), failed: make(chan error, 1), ended: make(chan struct{}),
	}
	if id := h.get("x-request-id"); id != "" {
		if err := g.SetHeader(metadata.Pairs("x-request-id", id)); err != nil {
			return err
		}
	}
	received := make(chan error, 1)
	go func() { received <- t.receive() }() // ends with the call at the latest
	var err error
	select {
	case err = <-received:
	case err = <-t.failed:
	case <-s.stop:
		err = errStopping
	}
	t.finish()
	if err == io.EOF {
		select {
		case err = <-t.failed:
		default:
			err = nil
		}
	}
	return err
}

// finish waits for what is in flight; nothing more is begun.
func (t *stream) finish() {
	t.mu.Lock()
	t.over = true
	t.mu.Unlock()
	close(t.ended)
	t.workers.Wait()
}

// receive hands requests to workers until the client has sent all or left.
func (t *stream) receive() error {
	for workers := 0; ; {
		r := &request{}
		if err := t.grpc.RecvMsg(r); err != nil {
			return err
		}
		select {
		case t.work <- r:
			continue
		default:
		}
		if workers < t.s.config.MaxInFlight {
			workers++
			t.begin()
		}
		select {
		case t.work <- r:
		case <-t.ended:
			r.free()
		}
	}
}

// begin starts a worker, unless the stream is over.
func (t *stream) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		t.workers.Go(t.answer)
	}
}

// answer answers one request after another.
func (t *stream) answer() {
	for {
		select {
		case r := <-t.work:
			t.one(r)
		case <-t.ended:
			return
		}
	}
}

// one answers one request. That it cannot be sent means that the client has left,
// which receive notices.
func (t *stream) one(r *request) {
	defer r.free()
	c, began := t.s.begin(t.headers)
	defer t.s.path.Done(c)
	names, err := scan(r.body)
	if err == nil {
		err = t.s.score(t.grpc.Context(), c, r, t.headers, names, scorer.GRPC)
	}
	if err == nil && c.Response.Status != scorer.OK {
		err = &scorer.Error{Status: c.Response.Status, Message: string(c.Response.Body)}
	}
	t.s.access(t.grpc.Context(), c, r, names, err, began)
	if err != nil && t.strict {
		select {
		case t.failed <- failure(err):
		default:
		}
		return
	}
	a := &answer{}
	if err != nil {
		a.add(streamedError(err, names.id))
	} else {
		streamed(a, &c.Response)
	}
	t.send.Lock()
	defer t.send.Unlock()
	_ = t.grpc.SendMsg(a)
}

// final is the parameter triton_final_response of a ModelInferResponse: true, since a
// request has one answer.
var final = wire.AppendBytes(nil, 4, append(wire.AppendBytes(nil, 1, "triton_final_response"), 0x12, 2, 0x08, 1))

// streamed makes a the ModelStreamInferResponse with the answer in r.
func streamed(a *answer, r *scorer.Response) {
	n := len(r.Body) + len(final)
	head := wire.AppendLength(make([]byte, 0, 16), 2, n)
	if len(r.Body) <= copied {
		b := make([]byte, 0, len(head)+n)
		a.add(mem.SliceBuffer(append(append(append(b, head...), r.Body...), final...)))
		return
	}
	a.add(mem.SliceBuffer(head))
	a.add(body(r))
	a.add(mem.SliceBuffer(final))
}

// streamedError is a ModelStreamInferResponse with an error, for the request with id.
func streamedError(err error, id []byte) mem.Buffer {
	var response []byte
	if len(id) > 0 {
		response = wire.AppendBytes(response, 3, id)
	}
	b := wire.AppendBytes(nil, 1, status.Convert(failure(err)).Message())
	return mem.SliceBuffer(wire.AppendBytes(b, 2, response))
}
