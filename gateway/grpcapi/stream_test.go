package grpcapi

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	pb "sluice.dev/gateway/grpcapi/inferencepb"
	"sluice.dev/scorer"
)

type inferStream = grpc.BidiStreamingClient[pb.ModelInferRequest, pb.ModelStreamInferResponse]

func openStream(t testing.TB, call pb.GRPCInferenceServiceClient, md ...string) inferStream {
	t.Helper()
	s, err := call.ModelStreamInfer(metadata.AppendToOutgoingContext(soon(t), md...))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func send(t testing.TB, s inferStream, list ...*pb.ModelInferRequest) {
	t.Helper()
	for _, q := range list {
		if err := s.Send(q); err != nil {
			t.Fatal(err)
		}
	}
}

func receive(t testing.TB, s inferStream) *pb.ModelStreamInferResponse {
	t.Helper()
	r, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAStreamAnswersAllBeforeItEnds(t *testing.T) {
	call, _ := client(t, Config{MaxInFlight: 4}, identity{})
	s := openStream(t, call)
	const n = 200
	data := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 1+i*31) }
	go func() {
		for i := range n {
			if s.Send(ask(fmt.Sprint(i), data(i)...)) != nil {
				return
			}
		}
		_ = s.CloseSend()
	}()
	seen := map[string]bool{}
	for range n {
		r := receive(t, s)
		var i int
		if _, err := fmt.Sscan(r.InferResponse.Id, &i); err != nil || r.ErrorMessage != "" || !bytes.Equal(r.InferResponse.RawOutputContents[0], data(i)) {
			t.Fatalf("answered %v", r)
		}
		if !r.InferResponse.Parameters["triton_final_response"].GetBoolParam() {
			t.Fatalf("answer %d does not say that it is the last", i)
		}
		seen[r.InferResponse.Id] = true
	}
	if _, err := s.Recv(); err != io.EOF || len(seen) != n {
		t.Errorf("%v after %d answers", err, len(seen))
	}
}

// hold blocks the requests whose data begins with 0, and counts all.
func hold() (s identity, begun *atomic.Int32, release func()) {
	begun, open := &atomic.Int32{}, make(chan struct{})
	return identity{before: func(req *scorer.Request, _ *scorer.Response) bool {
		begun.Add(1)
		if bytes.HasSuffix(req.Body, []byte{0}) {
			<-open
		}
		return true
	}}, begun, sync.OnceFunc(func() { close(open) })
}

func TestAnswersOfAStreamComeAsTheyAreReady(t *testing.T) {
	scorer, _, release := hold()
	defer release()
	call, _ := client(t, Config{}, scorer)
	s := openStream(t, call)
	send(t, s, ask("slow", 0), ask("fast", 1))
	if r := receive(t, s); r.InferResponse.Id != "fast" {
		t.Errorf("answered %v first", r)
	}
	_ = s.CloseSend()
	release()
	if r := receive(t, s); r.InferResponse.Id != "slow" {
		t.Errorf("answered %v then", r)
	}
	if _, err := s.Recv(); err != io.EOF {
		t.Error(err)
	}
}

func TestAStreamHasABoundedNumberInFlight(t *testing.T) {
	scorer, begun, release := hold()
	defer release()
	call, h := client(t, Config{MaxInFlight: 2}, scorer)
	s := openStream(t, call)
	send(t, s, ask("a", 0), ask("b", 0), ask("c", 1))
	until(t, "two in flight", func() bool { return begun.Load() == 2 })
	// The third was sent long before the unary call that is answered now.
	if _, err := call.ModelInfer(soon(t), ask("", 1)); err != nil {
		t.Fatal(err)
	}
	if n := begun.Load(); n != 3 || h.path.InFlight() != 2 {
		t.Errorf("%d begun, of which one is unary; %d in flight; want 2 of the stream", n, h.path.InFlight())
	}
	release()
	for range 3 {
		receive(t, s)
	}
}

func TestAnErrorDoesNotEndAStream(t *testing.T) {
	call, _ := client(t, Config{}, identity{})
	s := openStream(t, call)
	f := func(id, text string, change func(*pb.ModelInferRequest)) {
		t.Helper()
		q := ask(id, 1)
		change(q)
		send(t, s, q)
		if r := receive(t, s); r.ErrorMessage != text || r.InferResponse.GetId() != id {
			t.Errorf("answered %v; want %q", r, text)
		}
	}
	f("1", "Request for unknown model: 'nope' is not found", func(q *pb.ModelInferRequest) { q.ModelName = "nope" })
	f("2", "inference input 'in' data-type is 'INT8', but model 'e' expects 'UINT8'", func(q *pb.ModelInferRequest) { q.Inputs[0].Datatype = "INT8" })
	f("3", "", func(*pb.ModelInferRequest) {})
	f("4", "", func(q *pb.ModelInferRequest) {
		q.Parameters = map[string]*pb.InferParameter{"triton_enable_empty_final_response": {ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: true}}}
	})
	_ = s.CloseSend()
	if _, err := s.Recv(); err != io.EOF {
		t.Error(err)
	}
}

func TestAnErrorEndsAStreamThatAskedForIt(t *testing.T) {
	call, _ := client(t, Config{}, identity{})
	s := openStream(t, call, "triton_grpc_error", "true")
	send(t, s, ask("1", 1))
	receive(t, s)
	q := ask("2", 1)
	q.ModelName = "nope"
	send(t, s, q)
	_, err := s.Recv()
	wantError(t, err, codes.NotFound, "Request for unknown model: 'nope' is not found")
}

func TestAStreamsCredentialIsThatOfItsMetadata(t *testing.T) {
	call, _ := client(t, Config{}, identity{})
	q := ask("1", 1)
	q.ModelName = "locked"
	s := openStream(t, call)
	send(t, s, q)
	if r := receive(t, s); r.ErrorMessage == "" {
		t.Errorf("answered %v without a key", r)
	}
	s = openStream(t, call, "authorization", "Bearer "+key)
	send(t, s, q)
	if r := receive(t, s); r.ErrorMessage != "" {
		t.Errorf("answered %v with the key", r)
	}
}

func TestAStreamThatIsCancelledFreesWhatItHas(t *testing.T) {
	scorer, release := gate()
	defer release()
	call, h := client(t, Config{}, scorer)
	ctx, cancel := context.WithCancel(soon(t))
	defer cancel()
	s, err := call.ModelStreamInfer(ctx)
	if err != nil {
		t.Fatal(err)
	}
	send(t, s, ask("1", 1), ask("2", 1))
	until(t, "in flight", func() bool { return h.path.InFlight() == 2 })
	cancel()
	until(t, "idle", func() bool { return h.path.InFlight() == 0 })
}

func TestShutdownEndsStreamsAfterWhatIsInFlight(t *testing.T) {
	scorer, begun, release := hold()
	defer release()
	call, h := client(t, Config{}, scorer)
	s := openStream(t, call)
	send(t, s, ask("1", 0))
	until(t, "in flight", func() bool { return begun.Load() == 1 })
	down := make(chan error, 1)
	go func() { down <- h.server.Shutdown(soon(t)) }()
	until(t, "stopping", h.server.draining)
	release()
	if r := receive(t, s); r.InferResponse.Id != "1" {
		t.Errorf("answered %v", r)
	}
	_, err := s.Recv()
	wantError(t, err, codes.Unavailable, "shutting down")
	if err := <-down; err != nil {
		t.Error(err)
	}
}
