package upstream

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"sluice.dev/accel/tensor"
	"sluice.dev/scorer"
	"sluice.dev/scorer/codec"
)

// messages are the protocol's, as protobuf's own library has them.
var messages = func() protoreflect.MessageDescriptors {
	type d = descriptorpb.FieldDescriptorProto
	f := func(name string, num int32, typ descriptorpb.FieldDescriptorProto_Type, many bool, of ...string) *d {
		label := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL
		if many {
			label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED
		}
		out := &d{Name: &name, Number: &num, Type: &typ, Label: &label}
		if len(of) > 0 {
			out.TypeName = proto.String(".inference." + of[0])
		}
		return out
	}
	const (
		text, blob, sub    = descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_BYTES, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
		flag, i32, i64     = descriptorpb.FieldDescriptorProto_TYPE_BOOL, descriptorpb.FieldDescriptorProto_TYPE_INT32, descriptorpb.FieldDescriptorProto_TYPE_INT64
		u32, u64, f32, f64 = descriptorpb.FieldDescriptorProto_TYPE_UINT32, descriptorpb.FieldDescriptorProto_TYPE_UINT64, descriptorpb.FieldDescriptorProto_TYPE_FLOAT, descriptorpb.FieldDescriptorProto_TYPE_DOUBLE
	)
	m := func(name string, fields ...*d) *descriptorpb.DescriptorProto {
		return &descriptorpb.DescriptorProto{Name: &name, Field: fields}
	}
	model := []*d{f("name", 1, text, false), f("version", 2, text, false)}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("test.proto"), Package: proto.String("inference"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{
			m("Model", model...), m("Ready", f("ready", 1, flag, false)),
			m("Metadata", f("name", 1, text, false), f("versions", 2, text, true), f("platform", 3, text, false), f("inputs", 4, sub, true, "Tensor"), f("outputs", 5, sub, true, "Tensor")),
			m("Contents", f("bool", 1, flag, true), f("int", 2, i32, true), f("int64", 3, i64, true), f("uint", 4, u32, true), f("uint64", 5, u64, true), f("fp32", 6, f32, true), f("fp64", 7, f64, true), f("bytes", 8, blob, true)),
			m("Tensor", f("name", 1, text, false), f("datatype", 2, text, false), f("shape", 3, i64, true), f("contents", 5, sub, false, "Contents")),
			m("Request", f("model", 1, text, false), f("version", 2, text, false), f("id", 3, text, false), f("inputs", 5, sub, true, "Tensor"), f("raw", 7, blob, true)),
			m("Response", f("model", 1, text, false), f("version", 2, text, false), f("id", 3, text, false), f("outputs", 5, sub, true, "Tensor"), f("raw", 6, blob, true)),
		},
	}, nil)
	if err != nil {
		panic(err)
	}
	return file.Messages()
}()

// message is a message made of names and values; lists of messages and of numbers
// are slices of any.
type message map[string]any

func (m message) in(name protoreflect.Name) *dynamicpb.Message {
	out := dynamicpb.NewMessage(messages.ByName(name))
	for key, v := range m {
		f := out.Descriptor().Fields().ByName(protoreflect.Name(key))
		one := func(v any) protoreflect.Value {
			if sub, ok := v.(message); ok {
				return protoreflect.ValueOfMessage(sub.in(f.Message().Name()))
			}
			return protoreflect.ValueOf(v)
		}
		if list, ok := v.([]any); ok {
			to := out.Mutable(f).List()
			for _, item := range list {
				to.Append(one(item))
			}
			continue
		}
		out.Set(f, one(v))
	}
	return out
}

func (m message) bytes(t testing.TB, name protoreflect.Name) []byte {
	t.Helper()
	b, err := proto.Marshal(m.in(name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// same reports whether b is m.
func (m message) same(t testing.TB, name protoreflect.Name, b []byte) bool {
	t.Helper()
	got := dynamicpb.NewMessage(messages.ByName(name))
	if err := proto.Unmarshal(b, got); err != nil {
		t.Error(err)
		return false
	}
	if !proto.Equal(got, m.in(name)) {
		t.Errorf("got %v; want %v", got, m.in(name))
		return false
	}
	return true
}

func i64s(list ...int64) (out []any) {
	for _, v := range list {
		out = append(out, v)
	}
	return out
}

// oipServer is a gRPC server whose calls a test handles, until the test ends.
func oipServer(t testing.TB, l net.Listener, handle func(ctx context.Context, method string, in []byte) ([]byte, error)) string {
	t.Helper()
	if l == nil {
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(serveOIP(l, handle))
	return l.Addr().String()
}

// serveOIP is the same until stop.
func serveOIP(l net.Listener, handle func(ctx context.Context, method string, in []byte) ([]byte, error)) (stop func()) {
	s := grpc.NewServer(grpc.ForceServerCodecV2(bytesCodec{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		var in []byte
		if err := stream.RecvMsg(&in); err != nil {
			return err
		}
		method, _ := grpc.MethodFromServerStream(stream)
		out, err := handle(stream.Context(), strings.TrimPrefix(method, service), in)
		if err != nil {
			return err
		}
		return stream.SendMsg(out)
	}))
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	return func() {
		s.Stop()
		<-done
	}
}

// digitsMetadata is of a model with one input and two outputs.
var digitsMetadata = message{"name": "m", "platform": "p", "inputs": []any{message{"name": "x", "datatype": "FP32", "shape": i64s(-1, 2)}},
	"outputs": []any{message{"name": "label", "datatype": "INT64", "shape": i64s(-1)}, message{"name": "text", "datatype": "BYTES", "shape": i64s(-1, 1)}}}

// model answers what is asked about a model, and calls infer.
func model(t testing.TB, infer func(ctx context.Context, in []byte) ([]byte, error)) func(context.Context, string, []byte) ([]byte, error) {
	return func(ctx context.Context, method string, in []byte) ([]byte, error) {
		switch method {
		case "ModelReady":
			return message{"ready": true}.bytes(t, "Ready"), nil
		case "ModelMetadata":
			message{"name": "m", "version": "3"}.same(t, "Model", in)
			return digitsMetadata.bytes(t, "Metadata"), nil
		case "ModelInfer":
			return infer(ctx, in)
		}
		return nil, status.Error(codes.Unimplemented, method)
	}
}

func floats(list ...float32) (out []byte) {
	for _, v := range list {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
	}
	return out
}

func TestEveryKindOfBodyIsScoredOverGRPC(t *testing.T) {
	const label, text = "\x07\x00\x00\x00\x00\x00\x00\x00", "\x02\x00\x00\x00hi"
	raw := []any{message{"name": "label", "datatype": "INT64", "shape": i64s(1)}, message{"name": "text", "datatype": "BYTES", "shape": i64s(1, 1)}}
	answers := map[string]message{
		"raw": {"model": "m", "outputs": raw, "raw": []any{[]byte(label), []byte(text)}},
		"raw, with contents that are empty": {"outputs": []any{
			message{"name": "label", "datatype": "INT64", "shape": i64s(1), "contents": message{}},
			message{"name": "text", "datatype": "BYTES", "shape": i64s(1, 1), "contents": message{}}}, "raw": []any{[]byte(label), []byte(text)}},
		"typed, in another order": {"outputs": []any{
			message{"name": "text", "datatype": "BYTES", "shape": i64s(1, 1), "contents": message{"bytes": []any{[]byte("hi")}}},
			message{"name": "more", "datatype": "INT8", "shape": i64s(1), "contents": message{"int": []any{int32(-1)}}},
			message{"name": "label", "datatype": "INT64", "shape": i64s(1), "contents": message{"int64": i64s(7)}}}},
	}
	for name, answer := range answers {
		address := oipServer(t, nil, model(t, func(ctx context.Context, in []byte) ([]byte, error) {
			message{"model": "m", "version": "3", "inputs": []any{message{"name": "x", "datatype": "FP32", "shape": i64s(1, 2)}}, "raw": []any{floats(1, 2)}}.same(t, "Request", in)
			md, _ := metadata.FromIncomingContext(ctx)
			for name, want := range map[string]string{
				"traceparent": "00-ab000000000000000000000000000000-0100000000000000-01", "tracestate": "vendor=x", "x-request-id": "an id",
			} {
				if got := md.Get(name); len(got) != 1 || got[0] != want {
					t.Errorf("%s %q", name, got)
				}
			}
			if left, ok := ctx.Deadline(); !ok || time.Until(left) > forever {
				t.Error("no deadline")
			}
			return answer.bytes(t, "Response"), nil
		}))
		_, offers := watched(t, Config{GRPC: &GRPC{Addresses: []string{address}, Model: "m", Version: "3"}})
		o := until(t, offers, many(1))[0]
		if o.Offer.Window != 64 || o.Offer.Platform != "p" || len(o.Offer.Signature.Outputs) != 2 {
			t.Errorf("offered %+v", o.Offer)
		}
		a := newAsker()
		a.req.Trace = scorer.Trace{TraceID: [16]byte{0xab}, SpanID: [8]byte{1}, Flags: 1}
		a.req.State, a.req.ID = []byte("vendor=x"), []byte("an id")
		f := func(kind scorer.Kind, head int, body, wanted string, wantHead int) {
			t.Helper()
			a.req.HeadLength = head
			r := a.ask(o.Scorer, kind, body, forever)
			if r.Status != scorer.OK || string(r.Body) != wanted || r.HeadLength != wantHead || r.Rows != 1 || r.Code != 0 {
				t.Errorf("%s: %v %q, head %d, %d rows; want %q, head %d", name, r.Status, r.Body, r.HeadLength, r.Rows, wanted, wantHead)
			}
		}
		const outputs = `{"model_name":"digits","model_version":"old","outputs":[`
		f(scorer.AML, 0, `{"data":[[1,2]]}`, `{"label":[7],"text":[["hi"]]}`, 0)
		f(scorer.OIP, 0, `{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}`,
			outputs+`{"name":"label","datatype":"INT64","shape":[1],"data":[7]},{"name":"text","datatype":"BYTES","shape":[1,1],"data":["hi"]}]}`, 0)
		binaryAnswer := outputs + `{"name":"label","datatype":"INT64","shape":[1],"parameters":{"binary_data_size":8}},{"name":"text","datatype":"BYTES","shape":[1,1],"parameters":{"binary_data_size":6}}]}`
		f(scorer.Raw, 0, string(floats(1, 2)), binaryAnswer+label+text, len(binaryAnswer))
		jsonHead := `{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}],"outputs":[{"name":"label"}]}`
		f(scorer.OIP, len(jsonHead), jsonHead+string(floats(1, 2)), outputs+`{"name":"label","datatype":"INT64","shape":[1],"data":[7]}]}`, 0)
		want(t, a.ask(o.Scorer, scorer.AML, `{"data":[[1]]}`, forever), scorer.InvalidArgument, "unexpected shape")
	}
}

// askModel asks a server whose model infers so.
func askModel(t *testing.T, infer func() ([]byte, error)) (ask func() *scorer.Response) {
	t.Helper()
	address := oipServer(t, nil, model(t, func(context.Context, []byte) ([]byte, error) { return infer() }))
	_, offers := watched(t, Config{GRPC: &GRPC{Addresses: []string{address}, Model: "m", Version: "3"}, MaxBody: 1 << 20})
	s, a := until(t, offers, many(1))[0].Scorer, newAsker()
	return func() *scorer.Response { return a.ask(s, scorer.AML, `{"data":[[1,2]]}`, forever) }
}

func TestErrorsOverGRPC(t *testing.T) {
	var next atomic.Pointer[status.Status]
	ask := askModel(t, func() ([]byte, error) { return nil, next.Load().Err() })
	f := func(c codes.Code, status_ scorer.Status, text string) {
		t.Helper()
		next.Store(status.New(c, "because"))
		if r := ask(); r.NotStarted {
			t.Errorf("%v counts as not started", c)
		} else {
			want(t, r, status_, text)
		}
	}
	f(codes.InvalidArgument, scorer.InvalidArgument, "because")
	f(codes.ResourceExhausted, scorer.Overloaded, "overloaded: because")
	f(codes.Unavailable, scorer.Unavailable, "not known: because")
	f(codes.DeadlineExceeded, scorer.DeadlineExceeded, "in time")
	for _, c := range []codes.Code{codes.Internal, codes.Unknown, codes.NotFound, codes.Unauthenticated, codes.Unimplemented, codes.Canceled} {
		f(c, scorer.ModelFailed, "because")
	}
	next.Store(status.New(codes.Unknown, "in run\nFile \"/srv/score.py\""))
	if r := ask(); r.Status != scorer.ModelFailed || string(r.Body) != "the model's server answered Unknown: in run" {
		t.Errorf("%v %q; want the first line", r.Status, r.Body)
	}
	next.Store(status.New(codes.ResourceExhausted, "Received message larger than max (5 vs. 4)"))
	want(t, ask(), scorer.TooLarge, "as large as this")
}

// What a server answers is held against its own type and shape.
func TestAnswersOverGRPCThatDoNotFit(t *testing.T) {
	var answer atomic.Pointer[[]byte]
	ask := askModel(t, func() ([]byte, error) { return *answer.Load(), nil })
	g := func(m message, text string) {
		t.Helper()
		b := m.bytes(t, "Response")
		answer.Store(&b)
		want(t, ask(), scorer.ModelFailed, text)
	}
	label := func(typ string, shape ...int64) message {
		return message{"name": "label", "datatype": typ, "shape": i64s(shape...)}
	}
	two := func(l, text message, raw ...string) message {
		m := message{"outputs": []any{l, text}, "raw": []any{}}
		for _, r := range raw {
			m["raw"] = append(m["raw"].([]any), []byte(r))
		}
		return m
	}
	text := message{"name": "text", "datatype": "BYTES", "shape": i64s(1, 1)}
	g(message{}, `no output "label"`)
	g(two(label("INT64", 1), text, "12345678"), "one for each output")
	g(two(label("INT64", 1), text, "12345678", "\x00\x00\x00\x00", ""), "one for each output")
	both := label("INT64", 1)
	both["contents"] = message{"int64": i64s(7)}
	g(two(both, text, "12345678", "\x00\x00\x00\x00"), "one for each output")
	g(two(label("INT64", make([]int64, maxRank+1)...), text), "dimensions")
	g(message{"outputs": slices.Repeat([]any{message{}}, maxTensors+2)}, "tensors")
	g(two(label("INT64", 1), text, "1234567", "\x00\x00\x00\x00"), "do not fit its shape")
	g(two(label("INT64", -1), text, "12345678", "\x00\x00\x00\x00"), "no shape")
	g(two(label("INT64", 1<<62, 1<<62), text, "12345678", "\x00\x00\x00\x00"), "no shape")
	g(two(label("INT64", 1<<40, 0), text, "", "\x00\x00\x00\x00"), "no shape") // as JSON, it would never end
	g(two(label("INT65", 1), text, "12345678", "\x00\x00\x00\x00"), "no shape or datatype")
	g(two(label("INT64", 1), text, "12345678", "\xff\xff\xff\xff"), "strings do not fit")
	g(two(label("INT64", 1), text, "12345678", "\x00\x00\x00\x00x"), "strings do not fit")
	broken := []byte{0xff}
	answer.Store(&broken)
	want(t, ask(), scorer.ModelFailed, "a message that is not one")
	long := make([]byte, 2<<20)
	answer.Store(&long)
	want(t, ask(), scorer.ModelFailed, "too long: grpc: received message larger than max")
}

func TestAGRPCServerNoticesThatNobodyWaits(t *testing.T) {
	asked, ended := make(chan struct{}, 2), make(chan error, 2)
	address := oipServer(t, nil, model(t, func(ctx context.Context, _ []byte) ([]byte, error) {
		asked <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}))
	_, offers := watched(t, Config{GRPC: &GRPC{Addresses: []string{address}, Model: "m", Version: "3"}})
	s, a := until(t, offers, many(1))[0].Scorer, newAsker()
	want(t, a.ask(s, scorer.AML, `{"data":[[1,2]]}`, 100*time.Millisecond), scorer.DeadlineExceeded, "in time")
	<-asked
	<-ended
	a.req.Deadline = scorer.Now().Add(forever)
	go func() {
		<-asked
		a.req.Wait.Abandon() // the client leaves
	}()
	a.resp.Reset()
	s.Score(&a.req, &a.resp)
	want(t, &a.resp, scorer.Canceled, "cancelled")
	<-ended
}

// A connection that ends in the middle of a call is told as over HTTP, and nothing
// of it reaches clients.
func TestAGRPCServerBreaksOff(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conns := make(chan net.Conn, 10)
	address := oipServer(t, &tapped{l, conns}, model(t, func(ctx context.Context, _ []byte) ([]byte, error) {
		_ = (<-conns).Close()
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	_, offers := watched(t, Config{GRPC: &GRPC{Addresses: []string{address}, Model: "m", Version: "3"}})
	r := newAsker().ask(until(t, offers, many(1))[0].Scorer, scorer.AML, `{"data":[[1,2]]}`, forever)
	if want(t, r, scorer.ModelFailed, "broke off; whether the work was done is not known"); r.NotStarted {
		t.Error("it counts as not started")
	}
}

// tapped is a listener that shows its connections.
type tapped struct {
	net.Listener
	conns chan net.Conn
}

func (l *tapped) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.conns <- c
	}
	return c, err
}

func TestAGRPCServerGoesAndComesBack(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	stop := serveOIP(l, model(t, nil))
	_, offers := watched(t, Config{GRPC: &GRPC{Addresses: []string{address}, Model: "m", Version: "3"}, Health: Health{Failures: 1 << 30}})
	s := until(t, offers, many(1))[0].Scorer
	stop()
	// The client's connection may take a moment to notice; then nothing is sent.
	for a := newAsker(); ; {
		if r := a.ask(s, scorer.AML, `{"data":[[1,2]]}`, forever); r.NotStarted {
			want(t, r, scorer.Unavailable, "does not take connections")
			break
		}
	}
	until(t, offers, many(0))
	if l, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	stop = serveOIP(l, model(t, nil))
	until(t, offers, many(1))
	stop()
}

// A server that does not say what its model takes cannot be called by tensors.
func TestAGRPCServerWithoutMetadataIsNotOffered(t *testing.T) {
	asked := make(chan struct{}, 100)
	address := oipServer(t, nil, func(_ context.Context, method string, _ []byte) ([]byte, error) {
		if method == "ModelReady" {
			return message{"ready": true}.bytes(t, "Ready"), nil
		}
		select {
		case asked <- struct{}{}:
		default:
		}
		return message{"name": "m"}.bytes(t, "Metadata"), nil
	})
	_, offers := watched(t, Config{GRPC: &GRPC{Addresses: []string{address}}})
	<-asked
	<-asked // the first answer was taken into account
	select {
	case o := <-offers:
		t.Errorf("offered %+v", o)
	default:
	}
}

// FuzzMessages holds the readers to not failing, and what they take to being
// encodable in every kind.
func FuzzMessages(f *testing.F) {
	f.Add(digitsMetadata.bytes(f, "Metadata"))
	f.Add(message{"ready": true}.bytes(f, "Ready"))
	f.Add(message{"outputs": []any{message{"name": "label", "datatype": "INT64", "shape": i64s(2)}, message{"name": "text", "datatype": "BYTES", "shape": i64s(1, 1)}},
		"raw": []any{make([]byte, 16), []byte("\x01\x00\x00\x00x")}}.bytes(f, "Response"))
	f.Add(message{"outputs": []any{message{"name": "label", "datatype": "FP64", "shape": i64s(), "contents": message{"fp64": []any{1.5}}},
		message{"name": "text", "datatype": "BOOL", "shape": i64s(2), "contents": message{"bool": []any{true, false}}}}}.bytes(f, "Response"))
	f.Add(message{"outputs": []any{message{"name": "label", "datatype": "INT64", "shape": i64s(1<<40, 0)}, message{"name": "text", "datatype": "BYTES", "shape": i64s(0, 3)}},
		"raw": []any{[]byte{}, []byte{}}}.bytes(f, "Response"))
	_, sig, err := readMetadata(digitsMetadata.bytes(f, "Metadata"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = readReady(data)
		if _, s, err := readMetadata(data); err == nil {
			_ = check(&s)
		}
		out, err := readInfer(data, sig.Outputs)
		if err != nil {
			return
		}
		for kind, body := range map[scorer.Kind]string{scorer.AML: `{"data":[[1,2]]}`, scorer.OIP: `{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}`, scorer.Raw: string(floats(1, 2))} {
			var in codec.Infer
			if err := in.Decode(kind, &sig, "m", "v", 0, []byte(body)); err != nil {
				t.Fatal(err)
			}
			_, _, _ = in.Append(nil, &sig, "m", "v", out)
		}
	})
}

// What was written is what protobuf's own library reads, for every type of contents.
func TestTypedContents(t *testing.T) {
	f := func(typ string, contents message, want ...byte) {
		t.Helper()
		m := message{"outputs": []any{message{"name": "y", "datatype": typ, "shape": i64s(2), "contents": contents}}}
		out, err := readInfer(m.bytes(t, "Response"), []tensor.Info{{Name: "y"}})
		if err != nil || !bytes.Equal(out[0].Data, want) || fmt.Sprint(out[0].DType) != typ {
			t.Errorf("%s: %v (%v); want %v", typ, out, err, want)
		}
	}
	f("BOOL", message{"bool": []any{true, false}}, 1, 0)
	f("INT8", message{"int": []any{int32(-1), int32(2)}}, 0xff, 2)
	f("INT16", message{"int": []any{int32(-2), int32(2)}}, 0xfe, 0xff, 2, 0)
	f("INT32", message{"int": []any{int32(-1), int32(2)}}, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0)
	f("UINT8", message{"uint": []any{uint32(200), uint32(2)}}, 200, 2)
	f("UINT32", message{"uint": []any{uint32(1 << 31), uint32(2)}}, 0, 0, 0, 0x80, 2, 0, 0, 0)
	f("INT64", message{"int64": i64s(-1, 1)}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0)
	f("UINT64", message{"uint64": []any{uint64(1), uint64(2)}}, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0)
	f("FP32", message{"fp32": []any{float32(1), float32(2)}}, 0, 0, 0x80, 0x3f, 0, 0, 0, 0x40)
	f("FP64", message{"fp64": []any{1.0, 2.0}}, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0x40)
	f("BYTES", message{"bytes": []any{[]byte("a"), []byte("")}}, 1, 0, 0, 0, 'a', 0, 0, 0, 0)
}

func BenchmarkScoreOverGRPC(b *testing.B) {
	answer := message{"outputs": []any{message{"name": "label", "datatype": "INT64", "shape": i64s(1)}, message{"name": "text", "datatype": "BYTES", "shape": i64s(1, 1)}},
		"raw": []any{make([]byte, 8), make([]byte, 4)}}.bytes(b, "Response")
	address := oipServer(b, nil, model(b, func(context.Context, []byte) ([]byte, error) { return answer, nil }))
	c := Config{Endpoint: "digits", Version: "old", GRPC: &GRPC{Addresses: []string{address}, Model: "m", Version: "3"}}
	c.setDefaults()
	g, err := newGRPC(&c, address, func() {})
	if err != nil {
		b.Fatal(err)
	}
	defer g.close()
	if _, err := g.describe(context.Background()); err != nil {
		b.Fatal(err)
	}
	a := newAsker()
	a.req.Kind, a.req.Body, a.req.Deadline = scorer.AML, []byte(`{"data":[[1,2]]}`), scorer.Now().Add(time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		a.resp.Reset()
		if g.Score(&a.req, &a.resp); a.resp.Status != scorer.OK {
			b.Fatalf("%v %s", a.resp.Status, a.resp.Body)
		}
	}
}
