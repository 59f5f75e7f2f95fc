package models_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.dev/accel"
	"sluice.dev/accel/ort"
	"sluice.dev/accel/ort/library"
	"sluice.dev/accel/tensor"
	"sluice.dev/bench/models"
	"sluice.dev/scorer"
	"sluice.dev/scorer/model"
)

func path(t *testing.T, m models.Model) string {
	t.Helper()
	p, err := models.Path(m)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// serve loads a model as a scorer does.
func serve(t *testing.T, m models.Model, maxBatch int) *model.Version {
	t.Helper()
	lib, err := library.Find(library.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cpu, err := ort.NewCPU(ort.Config{Library: lib})
	if err != nil {
		t.Fatal(err)
	}
	set := model.NewSet([]accel.Driver{cpu}, nil, slog.New(slog.DiscardHandler))
	t.Cleanup(set.Close)
	key := model.Key{Endpoint: "e", Version: "v"}
	stage, err := set.Stage(context.Background(), []model.Config{{Endpoint: key.Endpoint, Version: key.Version, Path: path(t, m), MaxBatch: maxBatch}})
	if err != nil {
		t.Fatal(err)
	}
	stage.Commit()
	return stage.Versions()[key]
}

// value is a tensor of a request or of an answer.
type value struct {
	Name     string         `json:"name"`
	Datatype string         `json:"datatype"`
	Shape    []int64        `json:"shape"`
	Params   map[string]int `json:"parameters,omitempty"`
	Data     any            `json:"data,omitempty"`

	raw []byte
}

func floats(name string, shape []int64, data []float32) value {
	raw := make([]byte, 0, 4*len(data))
	for _, v := range data {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	return value{Name: name, Datatype: "FP32", Shape: shape, raw: raw}
}

// floats is a value's data.
func (v *value) floats() []float32 {
	list := make([]float32, len(v.raw)/4)
	for i := range list {
		list[i] = math.Float32frombits(binary.LittleEndian.Uint32(v.raw[4*i:]))
	}
	return list
}

// ask sends a request, its raw values in binary, and reads a binary answer.
func ask(v *model.Version, in ...value) ([]value, error) {
	var tail []byte
	for i := range in {
		if in[i].raw != nil {
			in[i].Params = map[string]int{"binary_data_size": len(in[i].raw)}
			tail = append(tail, in[i].raw...)
		}
	}
	head, err := json.Marshal(map[string]any{"inputs": in, "parameters": map[string]bool{"binary_data_output": true}})
	if err != nil {
		return nil, err
	}
	req := scorer.Request{
		Kind: scorer.OIP, HeadLength: len(head), Body: append(head, tail...),
		Deadline: scorer.Now().Add(time.Minute), Wait: scorer.NewWaiter(),
	}
	var resp scorer.Response
	if v.Score(&req, &resp); resp.Status != scorer.OK {
		return nil, &scorer.Error{Status: resp.Status, Message: string(resp.Body)}
	}
	var answer struct {
		Outputs []value `json:"outputs"`
	}
	if err := json.Unmarshal(resp.Body[:resp.HeadLength], &answer); err != nil {
		return nil, err
	}
	rest := resp.Body[resp.HeadLength:]
	for i := range answer.Outputs {
		o := &answer.Outputs[i]
		o.raw, rest = rest[:o.Params["binary_data_size"]], rest[o.Params["binary_data_size"]:]
	}
	return answer.Outputs, nil
}

func mustAsk(t *testing.T, v *model.Version, in ...value) []value {
	t.Helper()
	out, err := ask(v, in...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// near fails unless two lists agree within a tolerance.
func near(t *testing.T, what string, got, want []float32, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values; want %d", what, len(got), len(want))
	}
	for i := range got {
		if d := math.Abs(float64(got[i] - want[i])); !(d <= tolerance) {
			t.Fatalf("%s: value %d is %v; want %v", what, i, got[i], want[i])
		}
	}
}

// shares fails unless every group of n values is a distribution.
func shares(t *testing.T, what string, list []float32, n int) {
	t.Helper()
	for i := 0; i < len(list); i += n {
		sum := 0.0
		for _, v := range list[i : i+n] {
			sum += float64(v)
		}
		if !(math.Abs(sum-1) < 1e-3) {
			t.Fatalf("%s: the shares of row %d add up to %v", what, i/n, sum)
		}
	}
}

func TestSignatures(t *testing.T) {
	for m, want := range map[models.Model]string{
		models.Magika:     "bytes:INT32[-1 2048] -> target_label:FP32[-1 214]",
		models.Direction:  "x:FP32[-1 3 -1 -1] -> save_infer_model/scale_0.tmp_1:FP32[-1 2]",
		models.Recogniser: "x:FP32[-1 3 -1 -1] -> softmax_11.tmp_0:FP32[-1 -1 6625]",
		models.Voice:      "input:FP32[-1 -1] state:FP32[2 -1 128] sr:INT64[] -> output:FP32[-1 1] stateN:FP32[-1 -1 -1]",
	} {
		sig := serve(t, m, 1).Offer().Signature
		var parts []string
		for _, list := range [][]tensor.Info{sig.Inputs, sig.Outputs} {
			for _, i := range list {
				parts = append(parts, fmt.Sprintf("%s:%s%v", i.Name, i.DType, i.Shape))
			}
			parts = append(parts, "->")
		}
		if got := strings.Join(parts[:len(parts)-1], " "); got != want {
			t.Errorf("%s is\n%s\nwant\n%s", m, got, want)
		}
	}
}

// features of a file are its first and last 1,024 bytes.
func features(t *testing.T, file string) []int {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) < 2048 {
		t.Fatalf("%s is shorter than the features; choose another file", file)
	}
	// The model's makers strip white space at both ends of what they look at.
	begin, end := []byte(strings.TrimLeft(string(data), " \n\t")), []byte(strings.TrimRight(string(data), " \n\t"))
	list := make([]int, 0, 2048)
	for _, b := range append(append([]byte(nil), begin[:1024]...), end[len(end)-1024:]...) {
		list = append(list, int(b))
	}
	return list
}

func TestMagikaKnowsFilesAloneAndTogether(t *testing.T) {
	v := serve(t, models.Magika, 4)
	var config struct {
		Labels []string `json:"target_labels_space"`
	}
	data, err := os.ReadFile(path(t, models.MagikaLabels))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &config); err != nil {
		t.Fatal(err)
	}
	files := []struct{ path, label string }{{"models.go", "go"}, {"../../examples/digits/train.py", "python"}, {"../../Makefile", "makefile"}}
	var together []int
	var alone []float32
	for _, f := range files {
		x := features(t, f.path)
		together = append(together, x...)
		out := mustAsk(t, v, value{Name: "bytes", Datatype: "INT32", Shape: []int64{1, 2048}, Data: x})
		p := out[0].floats()
		shares(t, f.path, p, len(config.Labels))
		best := slices.Index(p, slices.Max(p))
		if config.Labels[best] != f.label || p[best] < 0.5 {
			t.Errorf("%s is %s with %.2f; want %s", f.path, config.Labels[best], p[best], f.label)
		}
		alone = append(alone, p...)
	}
	out := mustAsk(t, v, value{Name: "bytes", Datatype: "INT32", Shape: []int64{3, 2048}, Data: together})
	near(t, "three files together", out[0].floats(), alone, 1e-4)
}

// picture is a line of text's picture: noise that is always the same.
func picture(seed, width int) []float32 {
	list := make([]float32, 3*48*width)
	for i := range list {
		list[i] = float32(math.Sin(float64(i*(seed+3)))) / 2
	}
	return list
}

func TestPicturesAloneAndTogether(t *testing.T) {
	v := serve(t, models.Direction, 2)
	a, b := picture(1, 192), picture(2, 192)
	shape := []int64{1, 3, 48, 192}
	alone := append(mustAsk(t, v, floats("x", shape, a))[0].floats(), mustAsk(t, v, floats("x", shape, b))[0].floats()...)
	shares(t, "direction", alone, 2)
	shape[0] = 2
	near(t, "two pictures together", mustAsk(t, v, floats("x", shape, append(a, b...)))[0].floats(), alone, 1e-4)
}

func TestWidthsDoNotMix(t *testing.T) {
	v := serve(t, models.Recogniser, 4)
	widths := []int{64, 96, 64, 96, 64, 96}
	want := make([][]float32, len(widths))
	f := func(i int) ([]value, error) {
		return ask(v, floats("x", []int64{1, 3, 48, int64(widths[i])}, picture(i, widths[i])))
	}
	for i, w := range widths {
		out, err := f(i)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(out[0].Shape, []int64{1, int64(w / 8), 6625}) {
			t.Errorf("width %d gave shape %v", w, out[0].Shape)
		}
		want[i] = out[0].floats()
		shares(t, "recogniser", want[i], 6625)
	}
	got := make([][]value, len(widths))
	errs := make([]error, len(widths))
	var together sync.WaitGroup
	for i := range widths {
		together.Go(func() { got[i], errs[i] = f(i) })
	}
	together.Wait()
	for i := range widths {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		near(t, fmt.Sprintf("picture %d among others", i), got[i][0].floats(), want[i], 1e-4)
	}
}

func TestVoiceCarriesItsState(t *testing.T) {
	v := serve(t, models.Voice, 0)
	rate := value{Name: "sr", Datatype: "INT64", Shape: []int64{}, Data: []int{16000}}
	state := make([]float32, 2*1*128)
	quiet := make([]float32, 576)
	for i := range 10 {
		out := mustAsk(t, v, floats("input", []int64{1, 576}, quiet), floats("state", []int64{2, 1, 128}, state), rate)
		if p := out[0].floats(); len(p) != 1 || !(p[0] >= 0 && p[0] < 0.1) {
			t.Fatalf("window %d of silence is voice with %v", i, p)
		}
		next := out[1].floats()
		if !slices.Equal(out[1].Shape, []int64{2, 1, 128}) || slices.Equal(next, state) {
			t.Fatalf("window %d: the state has shape %v, changed: %v", i, out[1].Shape, !slices.Equal(next, state))
		}
		state = next
	}
	refused := func(want string, in ...value) {
		t.Helper()
		if _, err := ask(v, in...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v; want an error with %q", err, want)
		}
	}
	refused("sr", floats("input", []int64{1, 576}, quiet), floats("state", []int64{2, 1, 128}, state))
	refused("state", floats("input", []int64{1, 576}, quiet), floats("state", []int64{2, 1, 64}, state[:128]), rate)
	refused("sr", floats("input", []int64{1, 576}, quiet), floats("state", []int64{2, 1, 128}, state), value{Name: "sr", Datatype: "FP32", Shape: []int64{}, Data: []int{16000}})
}
