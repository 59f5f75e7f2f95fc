package sim

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.dev/accel"
	"sluice.dev/accel/acceltest"
	"sluice.dev/accel/tensor"
)

// write makes a model file.
func write(t *testing.T, text string) accel.Model {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return accel.Model{Name: "simulated", Path: path}
}

func TestDriver(t *testing.T) { acceltest.Test(t, New(), write(t, `{"times": {"1": "10us"}}`)) }

func TestRunsTakeTheirTime(t *testing.T) {
	times, err := points(map[string]string{"4": "10ms", "1": "4ms", "8": "10ms"})
	if err != nil {
		t.Fatal(err)
	}
	for rows, want := range map[int]time.Duration{1: 4 * time.Millisecond, 2: 6 * time.Millisecond, 4: 10 * time.Millisecond, 6: 10 * time.Millisecond, 100: 10 * time.Millisecond} {
		if got := after(times, rows); got != want {
			t.Errorf("%d rows take %v; want %v", rows, got, want)
		}
	}
	m, err := New().Open(write(t, `{"times": {"1": "1ms", "2": "20ms"}}`), accel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := m.Bind(acceltest.Tensors(2))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := c.Run(); err != nil || time.Since(began) < 20*time.Millisecond {
		t.Errorf("a run of 2 rows took %v, %v; want 20 ms", time.Since(began), err)
	}
}

func TestARunIsTerminated(t *testing.T) {
	m, err := New().Open(write(t, `{"times": {"1": "1h"}}`), accel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := m.Bind(acceltest.Tensors(1))
	if err != nil {
		t.Fatal(err)
	}
	c.Terminate()
	c.Terminate()
	if err := c.Run(); !errors.Is(err, errTerminated) {
		t.Errorf("got %v", err)
	}
}

func TestASignatureOfItsOwn(t *testing.T) {
	m, err := New().Open(write(t, `{"times": {"1": "1us"}, "signature": {
		"inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
		"outputs": [{"name": "scores", "datatype": "FP64", "shape": [-1, 3]}, {"name": "one", "datatype": "BOOL", "shape": []}]}}`), accel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := m.Bind([]tensor.Tensor{{DType: tensor.Bytes, Shape: []int64{2}, Data: make([]byte, 8)}}, []tensor.Tensor{{DType: tensor.Float64}, {DType: tensor.Bool}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Run(); err != nil || len(c.Output(0).Data) != 48 || len(c.Output(1).Data) != 1 {
		t.Errorf("%v, %v, %v; want 2 rows of 3 numbers, and one", c.Output(0), c.Output(1), err)
	}
}

func TestBadModelsAreRefused(t *testing.T) {
	const in = `"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]`
	for text, want := range map[string]string{
		"":                         "it is JSON such as",
		`{"time": {}}`:             `unknown field "time"`,
		`{}`:                       `"times" says nothing`,
		`{"times": {"0": "1ms"}}`:  `"0" is not a number of rows`,
		`{"times": {"1": "-1ms"}}`: `"-1ms" is not a duration`,
		`{"times": {"1": "2h"}}`:   `is not a duration of up to 1h`,
		`{"times": {"1": "1ms"}, "signature": {}}`: "needs an input and an output",
		`{"times": {"1": "1ms"}, "signature": {` + in + `, "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, -1]}]}}`:            `output "y"`,
		`{"times": {"1": "1ms"}, "signature": {` + in + `, "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1000000000000]}]}}`: `output "y"`,
		`{"times": {"1": "1ms"}, "signature": {` + in + `, "outputs": [{"name": "y", "datatype": "FP32", "shape": [-2]}]}}`:                `tensor "y"`,
		`{"times": {"1": "1ms"}, "signature": {` + in + `, "outputs": [{"name": "y", "shape": [1]}]}}`:                                     `tensor "y"`,
		`{"times": {"1": "` + strings.Repeat("1", maxFile) + `ms"}}`:                                                                       "larger than 1 MiB",
	} {
		if _, err := New().Open(write(t, text), accel.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: got %v; want an error with %q", text, err, want)
		}
	}
	if _, err := New().Open(accel.Model{Path: "/not/there"}, accel.Options{}); err == nil || strings.Contains(err.Error(), "/not") {
		t.Errorf("got %v; want an error without the path", err)
	}
}

// Whatever a file says: an error, or a model that runs.
func FuzzModel(f *testing.F) {
	f.Add([]byte(`{"times": {"1": "1us", "64": "12us"}}`))
	f.Add([]byte(`{"times": {"3": "0s"}, "signature": {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}], "outputs": [{"name": "y", "datatype": "INT8", "shape": [-1]}]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		sig, times, err := parse(text)
		if err != nil {
			return
		}
		if after(times, 1) < 0 || after(times, 1000) < 0 {
			t.Errorf("%v: a run ends before it begins", times)
		}
		for _, o := range sig.Outputs {
			if size, ok := tensor.ByteSize(o.DType, o.Shape); ok && size > maxRow {
				t.Errorf("output %v has %d bytes", o, size)
			}
		}
	})
}
