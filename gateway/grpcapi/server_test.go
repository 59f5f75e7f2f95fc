package grpcapi

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"sluice.dev/accel/tensor"
	"sluice.dev/auth"
	"sluice.dev/auth/apikey"
	"sluice.dev/gateway"
	pb "sluice.dev/gateway/grpcapi/inferencepb"
	"sluice.dev/gateway/triton"
	"sluice.dev/router"
	"sluice.dev/scorer"
	"sluice.dev/scorer/codec"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("google.golang.org/grpc/internal/transport.(*controlBuffer).get"))
}

// identity gives its only input back: bytes, whatever they say, after before.
type identity struct {
	before func(*scorer.Request, *scorer.Response) bool // false: has answered
	of     *tensor.Signature                            // nil is signature
}

var signature = &tensor.Signature{
	Inputs:  []tensor.Info{{Name: "in", DType: tensor.Uint8, Shape: []int64{-1, -1}}},
	Outputs: []tensor.Info{{Name: "out", DType: tensor.Uint8, Shape: []int64{-1, -1}}},
}

func (s identity) Score(req *scorer.Request, resp *scorer.Response) {
	if s.before != nil && !s.before(req, resp) {
		return
	}
	var in codec.Infer
	of := cmp.Or(s.of, signature)
	err := in.Decode(req.Kind, of, "e", "v", req.HeadLength, req.Body)
	if err == nil {
		resp.Body, resp.HeadLength, err = in.Append(resp.Body[:0], of, "e", "v", in.Inputs)
	}
	if err != nil {
		known := err.(*scorer.Error)
		resp.Fail(known.Status, known.Message)
	}
}

// house is a server and what is behind it.
type house struct {
	server  *Server
	path    *gateway.Path
	pool    *gateway.Pool // of endpoint e, version v
	address string
}

const key = "a-key-for-tests-0123456789"

// open serves endpoint "e" with versions "v" (default) and "7", and "locked", which
// wants key, all with s.
func open(t testing.TB, c Config, s scorer.Scorer) *house {
	t.Helper()
	return openWith(t, c, s, triton.Config{})
}

// openWith is the same with extensions.
func openWith(t testing.TB, c Config, s scorer.Scorer, x triton.Config) *house {
	t.Helper()
	h := &house{path: gateway.NewPath(gateway.Config{})}
	keys := apikey.New(apikey.NewPepper(), key, "")
	endpoint := func(name string, a auth.Authenticator) *gateway.Endpoint {
		versions := []router.Version{{Name: "v", Default: true, Variant: router.Control}, {Name: "7"}}
		split, err := router.New(name, versions, router.NewSequence())
		if err != nil {
			t.Fatal(err)
		}
		e := &gateway.Endpoint{Name: name, Auth: a, Split: split}
		for _, v := range versions {
			pool := h.path.Pool(gateway.Key{Endpoint: name, Version: v.Name})
			pool.SetReplicas([]gateway.Offered{{Scorer: s, Offer: scorer.Offer{
				Window: 64, Platform: "p", Signature: *signature, Kinds: scorer.Kinds, Config: json.RawMessage(configuration),
			}}})
			e.Versions = append(e.Versions, &gateway.Version{Version: v, Pool: pool, Limits: gateway.Limits{QueueWait: time.Minute, ScoringTimeout: time.Minute}})
		}
		return e
	}
	h.path.Swap(gateway.NewSnapshot(1, []*gateway.Endpoint{endpoint("e", auth.Open{}), endpoint("locked", keys)}))
	h.pool = h.path.Pool(gateway.Key{Endpoint: "e", Version: "v"})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x.Path = h.path
	c.Triton = triton.New(x)
	h.address, h.server = l.Addr().String(), New(h.path, c)
	served := make(chan error, 1)
	go func() { served <- h.server.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := h.server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		h.path.Close()
	})
	return h
}

// dial connects to h, until the test ends.
func (h *house) dial(t testing.TB, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	options = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(1<<30)),
	}, options...)
	conn, err := grpc.NewClient(h.address, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func client(t testing.TB, c Config, s scorer.Scorer) (pb.GRPCInferenceServiceClient, *house) {
	t.Helper()
	h := open(t, c, s)
	return pb.NewGRPCInferenceServiceClient(h.dial(t)), h
}

// ask is a request with data.
func ask(id string, data ...byte) *pb.ModelInferRequest {
	return &pb.ModelInferRequest{
		ModelName: "e", Id: id, RawInputContents: [][]byte{data},
		Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "in", Datatype: "UINT8", Shape: []int64{1, int64(len(data))}}},
	}
}

// soon is a context that no test outlives.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// until waits for a condition that the server brings about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) { // polls the server
		if time.Now().After(end) {
			t.Fatalf("never %s", what)
		}
	}
}

func wantError(t *testing.T, err error, c codes.Code, text string) {
	t.Helper()
	if status.Code(err) != c || !strings.Contains(status.Convert(err).Message(), text) {
		t.Errorf("answered %v; want %v with %q", err, c, text)
	}
}

func TestInferSaysWhatServedIt(t *testing.T) {
	call, _ := client(t, Config{}, identity{})
	var header metadata.MD
	ctx := metadata.AppendToOutgoingContext(soon(t), "x-request-id", "r1")
	resp, err := call.ModelInfer(ctx, ask("i", 1, 2, 3), grpc.Header(&header))
	if err != nil || resp.Id != "i" || resp.ModelName != "e" || resp.ModelVersion != "v" || !bytes.Equal(resp.RawOutputContents[0], []byte{1, 2, 3}) {
		t.Errorf("answered %v, %v", resp, err)
	}
	for name, want := range map[string]string{
		"x-request-id": "r1", "azureml-model-deployment": "v", "x-sluice-version": "v", "x-sluice-variant": "control", "x-sluice-assign": "percentile", "x-sluice-generation": "1",
	} {
		if got := header.Get(name); len(got) != 1 || got[0] != want {
			t.Errorf("metadata %s is %q; want %q", name, got, want)
		}
	}
	if _, err := call.ModelInfer(soon(t), ask("", 1), grpc.Header(&header)); err != nil || len(header.Get("x-request-id")[0]) != 36 {
		t.Errorf("%v, metadata %v; want a fresh request id", err, header)
	}
}

// Who asks is told where the time went, whether the request succeeds or not; nobody else is.
func TestInferSaysWhereTheTimeWent(t *testing.T) {
	call, _ := client(t, Config{}, identity{before: func(_ *scorer.Request, resp *scorer.Response) bool {
		resp.Queue, resp.Device = 1500*time.Microsecond, 250*time.Microsecond
		return true
	}})
	f := func(asked, pin, want string) {
		t.Helper()
		var h metadata.MD
		ctx := metadata.AppendToOutgoingContext(soon(t), "x-sluice-timing", asked, "azureml-model-deployment", pin)
		_, _ = call.ModelInfer(ctx, ask("i", 1), grpc.Header(&h)) // the metadata counts
		if got := strings.Join(h.Get("server-timing"), "|"); !regexp.MustCompile("^(?:" + want + ")$").MatchString(got) {
			t.Errorf("asked %q of %s: %q; want %s", asked, pin, got, want)
		}
	}
	f("1", "v", `queue;dur=\d+\.\d{3}, batch;dur=1\.500, device;dur=0\.250, total;dur=\d+\.\d{3}`)
	f("1", "none", `queue;dur=.*`)
	f("0", "v", "")
	f("", "v", "")
}

// The scorer gets the trace of a request, and the id that its answer has.
func TestScorersKnowARequestByItsNames(t *testing.T) {
	var trace scorer.Trace
	var state, id string
	call, _ := client(t, Config{}, identity{before: func(req *scorer.Request, _ *scorer.Response) bool {
		trace, state, id = req.Trace, string(req.State), string(req.ID)
		return true
	}})
	f := func(wantState, wantID string, pairs ...string) {
		t.Helper()
		var h metadata.MD
		ctx := metadata.AppendToOutgoingContext(soon(t), pairs...)
		if _, err := call.ModelInfer(ctx, ask("", 1), grpc.Header(&h)); err != nil {
			t.Fatal(err)
		}
		if given := h.Get("x-request-id"); len(given) != 1 || given[0] != id || wantID != "" && id != wantID || wantID == "" && len(id) != 36 {
			t.Errorf("%q: the scorer knows it as %q, its client as %q; want %q", pairs, id, given, wantID)
		}
		if state != wantState || (trace != scorer.Trace{}) != (wantState != "") {
			t.Errorf("%q: trace %v, state %q; want %q", pairs, trace, state, wantState)
		}
	}
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	f("", "")
	f("a=b,c=d", "17", "x-request-id", "17", "traceparent", parent, "tracestate", "a=b", "tracestate", "c=d")
	f("", "", "tracestate", "a=b")
}

func TestAVersionIsPinnedByNameOrByMetadata(t *testing.T) {
	call, _ := client(t, Config{}, identity{})
	f := func(version, deployment, want, reason string) {
		t.Helper()
		var header metadata.MD
		q := ask("", 1)
		q.ModelVersion = version
		ctx := soon(t)
		if deployment != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "azureml-model-deployment", deployment)
		}
		if _, err := call.ModelInfer(ctx, q, grpc.Header(&header)); err != nil || header.Get("x-sluice-version")[0] != want || header.Get("x-sluice-assign")[0] != reason {
			t.Errorf("%v, %v; want version %s by %s", header, err, want, reason)
		}
	}
	f("", "", "v", "percentile")
	f("7", "", "7", "pinned")
	f("", "7", "7", "pinned")
	f("v", "7", "v", "pinned")
}

func TestErrorsHaveTheStatusAndTextOfTriton(t *testing.T) {
	call, h := client(t, Config{MaxBody: 1 << 20}, identity{})
	f := func(c codes.Code, text string, change func(*pb.ModelInferRequest), md ...string) {
		t.Helper()
		q := ask("i", 1)
		change(q)
		_, err := call.ModelInfer(metadata.AppendToOutgoingContext(soon(t), md...), q)
		wantError(t, err, c, text)
	}
	f(codes.NotFound, "Request for unknown model: 'nope' is not found", func(q *pb.ModelInferRequest) { q.ModelName = "nope" })
	f(codes.NotFound, "Request for unknown model: 'e' version 9 is not found", func(q *pb.ModelInferRequest) { q.ModelVersion = "9" })
	f(codes.InvalidArgument, "inference input 'in' data-type is 'INT8', but model 'e' expects 'UINT8'", func(q *pb.ModelInferRequest) { q.Inputs[0].Datatype = "INT8" })
	f(codes.InvalidArgument, "unexpected shape for input 'in' for model 'e'. Expected [-1,-1], got [1]", func(q *pb.ModelInferRequest) { q.Inputs[0].Shape = []int64{1} })
	f(codes.InvalidArgument, "at most 100 characters", func(*pb.ModelInferRequest) {}, "x-request-id", strings.Repeat("x", 101))
	f(codes.ResourceExhausted, "larger than max", func(q *pb.ModelInferRequest) { q.RawInputContents[0] = make([]byte, 2<<20) })
	f(codes.Unauthenticated, "no valid credential", func(q *pb.ModelInferRequest) { q.ModelName = "locked" })
	f(codes.Unauthenticated, "no valid credential", func(q *pb.ModelInferRequest) { q.ModelName = "locked" }, "authorization", "Bearer x")
	f(codes.OK, "", func(q *pb.ModelInferRequest) { q.ModelName = "locked" }, "authorization", "Bearer "+key)
	f(codes.OK, "", func(q *pb.ModelInferRequest) { q.ModelName = "locked" }, "authorization", key)
	f(codes.OK, "", func(q *pb.ModelInferRequest) { q.ModelName = "locked" }, "x-api-key", key)

	f(codes.InvalidArgument, "more than one credential", func(q *pb.ModelInferRequest) { q.ModelName = "locked" }, "authorization", key, "authorization", key)

	err := h.dial(t).Invoke(soon(t), pb.GRPCInferenceService_ModelInfer_FullMethodName, []byte{0xff}, new([]byte), grpc.ForceCodecV2(plain{}))
	wantError(t, err, codes.InvalidArgument, "no protobuf message")
}

// The one switch has every status.
func TestEveryStatusHasACode(t *testing.T) {
	want := map[scorer.Status]codes.Code{
		scorer.OK: codes.OK, scorer.Canceled: codes.Canceled, scorer.InvalidArgument: codes.InvalidArgument, scorer.DeadlineExceeded: codes.DeadlineExceeded,
		scorer.NotFound: codes.NotFound, scorer.Unauthenticated: codes.Unauthenticated, scorer.PermissionDenied: codes.PermissionDenied,
		scorer.Exhausted: codes.ResourceExhausted, scorer.TooLarge: codes.ResourceExhausted, scorer.Overloaded: codes.Unavailable, scorer.Unavailable: codes.Unavailable,
		scorer.Unsupported: codes.Unimplemented, scorer.MethodNotAllowed: codes.Unimplemented, scorer.ModelFailed: codes.Internal, scorer.Internal: codes.Internal,
	}
	for s := range scorer.Status(scorer.Statuses) {
		if got, ok := want[s]; !ok || code(s) != got {
			t.Errorf("%v is %v; want %v", s, code(s), got)
		}
	}
}

// gate blocks requests until it is opened, or nobody waits for them.
func gate() (s identity, release func()) {
	open := make(chan struct{})
	return identity{before: func(req *scorer.Request, resp *scorer.Response) bool {
		ticket, over := req.Wait.Arm(), make(chan struct{})
		go func() {
			select {
			case <-open:
				if req.Wait.Claim(ticket) {
					req.Wait.Finish(ticket)
				}
			case <-over:
			}
		}()
		answered := req.Wait.Wait()
		close(over)
		switch {
		case answered:
		case scorer.Now() >= req.Deadline:
			resp.Fail(scorer.DeadlineExceeded, "no answer in time")
		default:
			resp.Fail(scorer.Canceled, "cancelled by the client")
		}
		return answered
	}}, sync.OnceFunc(func() { close(open) })
}

// asking makes a request, whose end comes through the channel.
func asking(ctx context.Context, call pb.GRPCInferenceServiceClient) chan error {
	answered := make(chan error, 1)
	go func() {
		_, err := call.ModelInfer(ctx, ask("", 1))
		answered <- err
	}()
	return answered
}

func TestAClientThatLeavesFreesItsPlace(t *testing.T) {
	s, release := gate()
	defer release()
	call, h := client(t, Config{}, s)
	h.pool.SetLimit(1)
	leave := func(ctx context.Context) (cancel func(), answered chan error) {
		ctx, cancel = context.WithCancel(ctx)
		return cancel, asking(ctx, call)
	}
	load := func(busy, waiting int) func() bool {
		return func() bool {
			_, b, w := h.pool.Load()
			return b == busy && w == waiting
		}
	}
	first, one := leave(soon(t))
	until(t, "busy", load(1, 0))
	second, two := leave(soon(t))
	until(t, "waiting", load(1, 1))
	second()
	wantError(t, <-two, codes.Canceled, "")
	until(t, "free of the one that waited", load(1, 0))
	first()
	wantError(t, <-one, codes.Canceled, "")
	until(t, "free of the one that ran", load(0, 0))
}

func TestADeadlineEndsAWait(t *testing.T) {
	s, release := gate()
	defer release()
	call, h := client(t, Config{}, s)
	ctx, cancel := context.WithTimeout(soon(t), 100*time.Millisecond)
	defer cancel()
	_, err := call.ModelInfer(ctx, ask("", 1))
	wantError(t, err, codes.DeadlineExceeded, "no answer in time") // the server's words: the client's own clock has none
	until(t, "idle", func() bool { return h.path.InFlight() == 0 })
}

func TestLargeMessagesAndCompression(t *testing.T) {
	call, _ := client(t, Config{}, identity{})
	data := make([]byte, 20<<20)
	for i := range data {
		data[i] = byte(i >> 10)
	}
	for _, encoding := range []string{"", gzip.Name, "deflate"} {
		var options []grpc.CallOption
		if encoding != "" {
			options = append(options, grpc.UseCompressor(encoding))
		}
		for _, n := range []int{1, 1000, len(data)} {
			resp, err := call.ModelInfer(soon(t), ask("", data[:n]...), options...)
			if err != nil || !bytes.Equal(resp.RawOutputContents[0], data[:n]) {
				t.Errorf("%d bytes by %q: %v", n, encoding, err)
			}
		}
	}
}

// Memory of requests and answers is lent: concurrent ones must not meet in it.
func TestConcurrentAnswersAreNotMixed(t *testing.T) {
	call, _ := client(t, Config{}, identity{})
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range 30 {
				data := bytes.Repeat([]byte{byte(g), byte(i)}, 1+(g*i*97)%3000)
				resp, err := call.ModelInfer(soon(t), ask("", data...))
				if err != nil || !bytes.Equal(resp.RawOutputContents[0], data) {
					t.Errorf("worker %d, request %d: %v", g, i, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestAPanicIsAnsweredAndTheServerGoesOn(t *testing.T) {
	broken := true
	call, _ := client(t, Config{}, identity{before: func(*scorer.Request, *scorer.Response) bool {
		if broken {
			broken = false
			panic("a bug")
		}
		return true
	}})
	_, err := call.ModelInfer(soon(t), ask("", 1))
	wantError(t, err, codes.Internal, "could not be answered")
	if _, err := call.ModelInfer(soon(t), ask("", 1)); err != nil {
		t.Error(err)
	}
}

func TestServerAndModels(t *testing.T) {
	call, _ := client(t, Config{Version: "1.2"}, identity{})
	ctx := soon(t)
	live, err := call.ServerLive(ctx, &pb.ServerLiveRequest{})
	if err != nil || !live.Live {
		t.Error(live, err)
	}
	ready, err := call.ServerReady(ctx, &pb.ServerReadyRequest{})
	if err != nil || !ready.Ready {
		t.Error(ready, err)
	}
	server, err := call.ServerMetadata(ctx, &pb.ServerMetadataRequest{})
	if err != nil || server.Name != "sluice" || server.Version != "1.2" || len(server.Extensions) != 6 {
		t.Error(server, err)
	}
	for _, c := range []struct {
		name, version string
		ready         bool
	}{{"e", "", true}, {"e", "7", true}, {"e", "9", false}, {"nope", "", false}, {"locked", "", true}} {
		r, err := call.ModelReady(ctx, &pb.ModelReadyRequest{Name: c.name, Version: c.version})
		if err != nil || r.Ready != c.ready {
			t.Errorf("%+v: %v, %v", c, r, err)
		}
	}
	m, err := call.ModelMetadata(ctx, &pb.ModelMetadataRequest{Name: "e"})
	want := &pb.ModelMetadataResponse{
		Name: "e", Versions: []string{"v", "7"}, Platform: "p",
		Inputs:  []*pb.ModelMetadataResponse_TensorMetadata{{Name: "in", Datatype: "UINT8", Shape: []int64{-1, -1}}},
		Outputs: []*pb.ModelMetadataResponse_TensorMetadata{{Name: "out", Datatype: "UINT8", Shape: []int64{-1, -1}}},
	}
	if err != nil || !proto.Equal(m, want) {
		t.Errorf("%v, %v; want %v", m, err, want)
	}
	_, err = call.ModelMetadata(ctx, &pb.ModelMetadataRequest{Name: "nope"})
	wantError(t, err, codes.NotFound, "Request for unknown model: 'nope' is not found")
	_, err = call.ModelMetadata(ctx, &pb.ModelMetadataRequest{Name: "e", Version: "9"})
	wantError(t, err, codes.NotFound, "Request for unknown model: 'e' version 9 is not found")
	_, err = call.ModelMetadata(ctx, &pb.ModelMetadataRequest{Name: "locked"})
	wantError(t, err, codes.Unauthenticated, "no valid credential")
	if _, err = call.ModelMetadata(metadata.AppendToOutgoingContext(ctx, "authorization", key), &pb.ModelMetadataRequest{Name: "locked"}); err != nil {
		t.Error(err)
	}
}

// A model of a repository may have more versions than take part in a split.
func TestVersionsBesideTheSplitAreKnown(t *testing.T) {
	h := open(t, Config{}, identity{})
	e := *h.path.Snapshot().Endpoint([]byte("e"))
	beside := &gateway.Version{Version: router.Version{Name: "8"}, Pool: e.Versions[0].Pool, Limits: e.Versions[0].Limits}
	e.Versions = append(slices.Clone(e.Versions), beside)
	h.path.Swap(gateway.NewSnapshot(2, []*gateway.Endpoint{&e}))
	call := pb.NewGRPCInferenceServiceClient(h.dial(t))
	ready, err := call.ModelReady(soon(t), &pb.ModelReadyRequest{Name: "e", Version: "8"})
	if err != nil || !ready.Ready {
		t.Error(ready, err)
	}
	m, err := call.ModelMetadata(soon(t), &pb.ModelMetadataRequest{Name: "e", Version: "8"})
	if err != nil || !slices.Equal(m.Versions, []string{"8"}) {
		t.Error(m, err)
	}
}

// The server behind the first version does not say what it takes, that behind the
// second one does.
func TestMetadataIsOfAVersionThatHasSome(t *testing.T) {
	h := open(t, Config{}, &identity{})
	h.pool.SetReplicas([]gateway.Offered{{Scorer: &identity{}, Offer: scorer.Offer{Window: 64, Kinds: scorer.Kinds}}})
	m, err := pb.NewGRPCInferenceServiceClient(h.dial(t)).ModelMetadata(soon(t), &pb.ModelMetadataRequest{Name: "e"})
	if err != nil || m.Platform != "p" || len(m.Inputs) != 1 || len(m.Outputs) != 1 {
		t.Error(m, err)
	}
}

func TestHealthFollowsTheServer(t *testing.T) {
	h := open(t, Config{}, identity{})
	call := healthpb.NewHealthClient(h.dial(t))
	check := func(service string, want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		r, err := call.Check(soon(t), &healthpb.HealthCheckRequest{Service: service})
		if err != nil || r.Status != want {
			t.Errorf("%v, %v; want %v", r, err, want)
		}
	}
	check("", healthpb.HealthCheckResponse_SERVING)
	check("whatever", healthpb.HealthCheckResponse_SERVING)
	watch, err := call.Watch(soon(t), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := watch.Recv(); err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
		t.Fatal(r, err)
	}
	h.server.Drain()
	if r, err := watch.Recv(); err != nil || r.Status != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Fatal(r, err)
	}
	check("", healthpb.HealthCheckResponse_NOT_SERVING)
}

func TestReflectionNamesTheServices(t *testing.T) {
	h := open(t, Config{}, identity{})
	s, err := reflectionpb.NewServerReflectionClient(h.dial(t)).ServerReflectionInfo(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	r, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"inference.GRPCInferenceService", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService", "grpc.health.v1.Health"} {
		if !strings.Contains(r.String(), `"`+want+`"`) {
			t.Errorf("no %s in %v", want, r)
		}
	}
	_ = s.CloseSend()
	if _, err := s.Recv(); err != io.EOF {
		t.Error(err)
	}
}

// The certificate's configuration is made for each connection, for HTTP/1.1.
func TestTLS(t *testing.T) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	current := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: k}}, NextProtos: []string{"http/1.1"}}
	h := open(t, Config{TLS: &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return current, nil }}}, identity{})
	roots := x509.NewCertPool()
	cert, _ := x509.ParseCertificate(der)
	roots.AddCert(cert)
	call := pb.NewGRPCInferenceServiceClient(h.dial(t, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots}))))
	if _, err := call.ModelInfer(soon(t), ask("", 1)); err != nil {
		t.Error(err)
	}
}

// Clients of Triton ping every 200 ms, whether they have a call or not; a server that
// takes that for an attack closes the connection after the third.
func TestPingsOfAnIdleClientAreAnswered(t *testing.T) {
	h := open(t, Config{}, identity{})
	conn, err := net.Dial("tcp", h.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(conn, conn)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for acks := 0; acks < 5; {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatalf("after %d pings: %v", acks, err)
		}
		switch frame := frame.(type) {
		case *http2.GoAwayFrame:
			t.Fatalf("sent away after %d pings: %s", acks, frame.DebugData())
		case *http2.SettingsFrame:
			if frame.IsAck() {
				err = f.WritePing(false, [8]byte{})
			} else {
				err = f.WriteSettingsAck()
			}
		case *http2.PingFrame:
			acks++
			<-tick.C
			err = f.WritePing(false, [8]byte{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestShutdownFinishesWhatRuns(t *testing.T) {
	s, release := gate()
	call, h := client(t, Config{}, s)
	answered := asking(soon(t), call)
	until(t, "in flight", func() bool { return h.path.InFlight() == 1 })
	down := make(chan error, 1)
	go func() { down <- h.server.Shutdown(soon(t)) }()
	until(t, "draining", h.server.draining)
	release()
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
}

func TestShutdownCutsOffWhatDoesNotEnd(t *testing.T) {
	s, release := gate()
	defer release()
	call, h := client(t, Config{}, s)
	answered := asking(soon(t), call)
	until(t, "in flight", func() bool { return h.path.InFlight() == 1 })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := h.server.Shutdown(ctx); err != context.DeadlineExceeded {
		t.Error(err)
	}
	if err := <-answered; err == nil {
		t.Error("answered")
	}
}

// FuzzScan holds the scanner against the generated code.
func FuzzScan(f *testing.F) {
	for _, q := range []*pb.ModelInferRequest{{}, ask("i", 1, 2), {ModelName: "a", ModelVersion: "b", Id: "c", Outputs: []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "x"}}}} {
		b, err := proto.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(append(b, b...))
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		names, err := scan(b)
		_, _ = scanSpec(b) // must not panic
		var q pb.ModelInferRequest
		if proto.Unmarshal(b, &q) != nil {
			return
		}
		if err != nil || string(names.name) != q.ModelName || string(names.version) != q.ModelVersion || string(names.id) != q.Id {
			t.Fatalf("%q, %v; want %v", names, err, &q)
		}
	})
}

// plain is a client's codec of bytes.
type plain struct{}

// Name implements encoding.CodecV2.
func (plain) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (plain) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

// Unmarshal implements encoding.CodecV2.
func (plain) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}
