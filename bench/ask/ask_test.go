package ask

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"sluice.dev/bench"
	"sluice.dev/scorer/codec/wire"
)

func TestInputsAreMadeFromMetadata(t *testing.T) {
	in, err := ParseMetadata([]byte(`{"name":"m","inputs":[{"name":"x","datatype":"FP32","shape":[-1,3]},{"name":"t","datatype":"BYTES","shape":[2]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(in.JSON()), `{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[0,7,14]},{"name":"t","datatype":"BYTES","shape":[2],"data":["00","07"]}]}`; got != want {
		t.Errorf("JSON is %s, want %s", got, want)
	}
	if got, want := string(in.AML()), `{"data":{"t":["00","07"],"x":[[0,7,14]]}}`; got != want {
		t.Errorf("AML is %s, want %s", got, want)
	}
	head, body := in.Binary()
	var q struct {
		Inputs []struct {
			Parameters struct {
				Size int `json:"binary_data_size"`
			}
		}
	}
	if err := json.Unmarshal(body[:head], &q); err != nil || q.Inputs[0].Parameters.Size != 12 || q.Inputs[1].Parameters.Size != 12 || len(body)-head != 24 {
		t.Errorf("%v, %s", err, body[:head])
	}
	if got, want := string(body[head:]), "\x00\x00\x00\x00\x00\x00\xe0\x40\x00\x00\x60\x41\x02\x00\x00\x0000\x02\x00\x00\x0007"; got != want {
		t.Errorf("raw is %q, want %q", got, want)
	}
}

func TestMetadataThatCannotBeAskedIsRefused(t *testing.T) {
	for _, text := range []string{``, `{}`, `{"inputs":[{"name":"x","datatype":"FP99","shape":[1]}]}`, `{"inputs":[{"name":"x","datatype":"FP32","shape":[8192,8193]}]}`,
		`{"inputs":[{"name":"x","datatype":"FP32","shape":[9223372036854775807,2]}]}`} {
		if in, err := ParseMetadata([]byte(text)); err == nil {
			t.Errorf("%s: %+v", text, in)
		}
	}
}

func message(t *testing.T) []byte {
	t.Helper()
	text := func(b []byte, n protowire.Number, s string) []byte {
		return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
	}
	shape := protowire.AppendVarint(protowire.AppendVarint(nil, 1<<64-1), 64)
	return text(text(nil, 1, "m"), 4, string(text(text(text(nil, 1, "x"), 2, "INT64"), 3, string(shape))))
}

func TestGRPCMetadata(t *testing.T) {
	in, err := ParseMessage(message(t))
	if err != nil || len(in.Tensors) != 1 || in.Tensors[0].Name != "x" || in.Tensors[0].Datatype != "INT64" || in.Tensors[0].Shape[0] != 1 || in.Tensors[0].Shape[1] != 64 {
		t.Fatalf("%+v, %v", in, err)
	}
	var raw []byte
	m := wire.Read(in.Message("m", "2"))
	for m.Next() {
		if m.Is(7) {
			raw = m.Bytes
		}
	}
	if m.Bad() || len(raw) != 8*64 || raw[8] != 7 {
		t.Errorf("%v, %v", raw, m.Bad())
	}
}

// FuzzParseMessage: whatever a server says of its model, it is refused or asked.
func FuzzParseMessage(f *testing.F) {
	f.Add([]byte("\x22\x0b\x0a\x01x\x12\x04FP32\x1a\x02\x01\x40"))
	f.Add([]byte("\x22\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := ParseMessage(data)
		if err != nil {
			return
		}
		sum := int64(0)
		for i := range in.Tensors {
			sum += in.Tensors[i].elements()
		}
		if sum > 1000 {
			return // large ones take long
		}
		if !json.Valid(in.JSON()) || !json.Valid(in.AML()) {
			t.Errorf("%+v", in)
		}
	})
}

func TestAnswersAreLikeThoseExpected(t *testing.T) {
	f := func(want, got, wrong string) {
		t.Helper()
		err := Like([]byte(want))(&bench.Answer{Body: []byte(got)})
		if wrong == "" && err != nil || wrong != "" && (err == nil || !strings.Contains(err.Error(), wrong)) {
			t.Errorf("want %s, got %s: %v, not %q", want, got, err, wrong)
		}
	}
	f(`{"a":[1,0.5]}`, `{"id":"x","a":[1.00001,0.50001]}`, "")
	f(`{"a":[1,0.5]}`, `{"a":[1,0.6]}`, "answer.a[1]")
	f(`{"a":[1]}`, `{"a":[1,2]}`, "answer.a")
	f(`{"a":null,"b":"x"}`, `{"a":null,"b":"y"}`, "answer.b")
	f(`[1]`, `{"a":1}`, "answer")
	f("raw", "raw", "")
	f("raw", "row", "want")
	f(`{"a":1}`, `{"a":1} `+"\n", "")
	f(`{"a":1}`, `{"a":1}x`, "want")
	f(`{"a":{}}`, `{"a":[]}`, "answer.a")
	f(`{"a":"x"}`, `{"a":{"b":1}}`, "answer.a")
}

// Whole numbers are labels, ids and counts; small numbers are checked as large ones are.
func TestHowMuchNumbersMayDiffer(t *testing.T) {
	f := func(want, got string, like bool) {
		t.Helper()
		if err := Like([]byte(want))(&bench.Answer{Body: []byte(got)}); (err == nil) != like {
			t.Errorf("want %s, got %s: %v", want, got, err)
		}
	}
	f(`{"a":[30522]}`, `{"a":[30521]}`, false)
	f(`{"a":[0,1000000000]}`, `{"a":[1,1000000000]}`, false)
	f(`{"a":[9007199254740993]}`, `{"a":[9007199254740992]}`, false)
	f(`{"a":[1,-0]}`, `{"a":[1.00001,0]}`, true) // a float may look whole
	f(`{"a":[0.00001,0.00002]}`, `{"a":[0.00003,0.00002]}`, false)
	f(`{"a":0.00001}`, `{"a":0.000010000001}`, true)
	f(`{"a":[[0.9],[1e-9]]}`, `{"a":[[0.9],[9e-8]]}`, true) // beside 0.9 that is nothing
	f(`{"a":[[1e-9],[1e-9]]}`, `{"a":[[1e-9],[9e-8]]}`, false)
	f(`{"a":[1e999]}`, `{"a":[1e999]}  `, true)
	f(`{"a":[1e999]}`, `{"a":[2e999]}`, false)
	f(`{"datatype":"FP32","data":[16777216]}`, `{"datatype":"FP32","data":[16777218]}`, true)
	f(`{"datatype":"INT64","data":[16777216]}`, `{"datatype":"INT64","data":[16777218]}`, false)
	f(`{"datatype":"INT64","data":[16777216]}`, `{"datatype":"INT64","data":[16777216.5]}`, false)
	f(`{"datatype":"FP16","data":[0.5]}`, `{"datatype":"FP16","data":[0.5005]}`, true)
}

func floats32(v ...float32) (b []byte) {
	for _, x := range v {
		b = little.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func TestRawTensorsAreComparedByTheirDatatype(t *testing.T) {
	const head = `{"outputs":[{"name":"p","datatype":"FP32","shape":[2],"parameters":{"binary_data_size":8}},` +
		`{"name":"l","datatype":"INT32","shape":[1],"parameters":{"binary_data_size":4}}]}`
	f := func(got string, tail []byte, head2 int, wrong string) {
		t.Helper()
		want := append([]byte(head), append(floats32(0.5, 1e-6), 1, 0, 0, 0)...)
		err := Like(want)(&bench.Answer{Body: append([]byte(got), tail...), Head: head2})
		if wrong == "" && err != nil || wrong != "" && (err == nil || !strings.Contains(err.Error(), wrong)) {
			t.Errorf("%v, not %q", err, wrong)
		}
	}
	near := append(floats32(0.50001, 1.2e-6), 1, 0, 0, 0)
	f(head, near, len(head), "")
	f(head, near, 0, "")
	f(head+"  ", near, len(head)+2, "")
	f(head, append(floats32(0.501, 1e-6), 1, 0, 0, 0), len(head), `"p": value 0 is 0.5009999871253967, want 0.5`)
	f(head, append(floats32(0.5, float32(math.NaN())), 1, 0, 0, 0), len(head), "value 1 is NaN")
	f(head, append(floats32(0.5, float32(math.Inf(1))), 1, 0, 0, 0), len(head), "value 1 is +Inf")
	f(head, append(floats32(0.5, 1e-6), 2, 0, 0, 0), len(head), `output "l"`)
	f(head, near[:4], len(head), "4 bytes of raw tensors, want 12")
	f(head, append(near, 0), len(head), "want")
	f(head, near, 1000, "want")
	f(head, near, -1, "want")
	f(strings.Replace(head, `[2]`, `[1]`, 1), near, len(head), "shape[0]")
}

func TestHalfFloats(t *testing.T) {
	for bits, want := range map[uint16]float64{0: 0, 1: math.Ldexp(1, -24), 0x3c00: 1, 0xc000: -2, 0x7bff: 65504, 0x0400: math.Ldexp(1, -14), 0x7c00: math.Inf(1), 0xfc00: math.Inf(-1)} {
		if got := half(bits); got != want {
			t.Errorf("%#x is %v, want %v", bits, got, want)
		}
	}
	if !math.IsNaN(half(0x7e00)) {
		t.Error("a NaN is none")
	}
}

// answered is a ModelInferResponse of one output, with raw values or a typed list of
// the field's number.
func answered(version, datatype string, list protowire.Number, values []byte) []byte {
	out := wire.AppendBytes(wire.AppendBytes(wire.AppendBytes(nil, 1, "p"), 2, datatype), 3, []byte{1})
	if list != 0 {
		out = wire.AppendBytes(out, 5, wire.AppendBytes(nil, list, values))
	}
	m := wire.AppendBytes(wire.AppendBytes(wire.AppendBytes(nil, 1, "m"), 2, version), 5, out)
	if list == 0 {
		m = wire.AppendBytes(m, 6, values)
	}
	return m
}

func TestMessagesAreComparedByTheirOutputs(t *testing.T) {
	f := func(want, got []byte, like bool) {
		t.Helper()
		if err := LikeMessage(want)(&bench.Answer{Body: got}); (err == nil) != like {
			t.Errorf("want %q, got %q: %v", want, got, err)
		}
	}
	one, near, far := floats32(1), floats32(1.00001), floats32(1.01)
	f(answered("1", "FP32", 0, one), answered("2", "FP32", 0, near), true)
	f(answered("1", "FP32", 0, one), answered("1", "FP32", 0, far), false)
	f(answered("1", "FP32", 6, one), answered("1", "FP32", 6, near), true)
	f(answered("1", "FP32", 6, one), answered("1", "FP32", 6, far), false)
	f(answered("1", "INT32", 0, one), answered("1", "INT32", 0, near), false)
	f(answered("1", "INT32", 2, []byte{1}), answered("2", "INT32", 2, []byte{1}), true)
	f(answered("1", "INT32", 2, []byte{1}), answered("1", "INT32", 2, []byte{2}), false)
	f(answered("1", "FP32", 0, one), answered("1", "INT32", 0, one), false)
	f(answered("1", "FP32", 0, one), nil, false)
	f([]byte("raw"), []byte("raw"), true)
	f([]byte("raw"), []byte("row"), false)
}

// FuzzLike: whatever a server answers, it is like itself, and comparing it with another
// ends.
func FuzzLike(f *testing.F) {
	raw := `{"outputs":[{"name":"p","datatype":"FP16","parameters":{"binary_data_size":2}}]}`
	f.Add([]byte(raw+"ab"), []byte(raw+"ac"), len(raw))
	f.Add([]byte(`{"a":[1,[0.5,{"b":null}]]}`), []byte(`{"a":[1,[1e999,{"b":"x"}]]}`), 0)
	f.Add(answered("1", "FP32", 0, floats32(1)), answered("2", "FP32", 6, floats32(1)), -1)
	f.Fuzz(func(t *testing.T, want, got []byte, head int) {
		for _, like := range []func([]byte) func(*bench.Answer) error{Like, LikeMessage} {
			_ = like(want)(&bench.Answer{Body: got, Head: head})
			if err := like(want)(&bench.Answer{Body: want}); err != nil {
				t.Errorf("%q: %v", want, err)
			}
		}
		if v, n, err := parse(want); err == nil {
			if d := (slack{usual, false}).like(v, v, 0); d != nil {
				t.Errorf("%q: %v", want[:n], d)
			}
		}
	})
}
