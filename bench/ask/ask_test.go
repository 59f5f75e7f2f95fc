package ask

import (
	"encoding/json"
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
}
