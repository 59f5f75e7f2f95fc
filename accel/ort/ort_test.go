package ort

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice.dev/accel"
	"sluice.dev/accel/acceltest"
	"sluice.dev/accel/ort/library"
	"sluice.dev/accel/tensor"
	"sluice.dev/bench/onnx"
	"sluice.dev/bench/wide"
)

var mlp = accel.Model{Name: "mlp", Path: "../../examples/digits/mlp.onnx"}

func driver(t testing.TB) *CPU {
	t.Helper()
	path, err := library.Find(library.Config{Path: os.Getenv("SLUICE_ORT_LIBRARY")})
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewCPU(Config{Library: path})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func open(t testing.TB) accel.Instance {
	t.Helper()
	m, err := driver(t).Open(mlp, accel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func bind(t testing.TB, m accel.Instance, in, out []tensor.Tensor) accel.Call {
	t.Helper()
	c, err := m.Bind(in, out)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDriver(t *testing.T) { acceltest.Test(t, driver(t), mlp) }

func TestTheModelRuns(t *testing.T) {
	in, out := acceltest.Tensors(2)
	c := bind(t, open(t), in, out)
	defer c.Close()
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	for row := range 2 {
		var sum float32
		for k := range 10 {
			sum += math.Float32frombits(binary.LittleEndian.Uint32(out[1].Data[40*row+4*k:]))
		}
		if sum < 0.999 || sum > 1.001 {
			t.Errorf("the probabilities of row %d sum to %v", row, sum)
		}
	}
}

func TestMemoryMustBeAligned(t *testing.T) {
	in, out := acceltest.Tensors(1)
	in[0].Data = make([]byte, 257)[1:]
	if c, err := open(t).Bind(in, out); err == nil || !strings.Contains(err.Error(), "not aligned") {
		t.Errorf("bound %v, %v", c, err)
	}
}

func TestWhatIsNoModelIsRefused(t *testing.T) {
	d := driver(t)
	whole, err := os.ReadFile("../../examples/digits/mlp.onnx")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"empty": {}, "text": []byte("hello"), "cut": whole[:len(whole)/2]} {
		path := filepath.Join(t.TempDir(), "m.onnx")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Open(accel.Model{Name: name, Path: path}, accel.Options{}); err == nil || !strings.HasPrefix(err.Error(), "model "+name+": ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The official library collects telemetry unless it is told not to before it
// starts. In a process with a fresh home, a run leaves nothing behind.
func TestNothingIsWrittenToTheHome(t *testing.T) {
	if os.Getenv("ORT_TEST_HOME") != "" {
		in, out := acceltest.Tensors(1)
		c := bind(t, open(t), in, out)
		if err := errors.Join(c.Run(), c.Close()); err != nil {
			t.Fatal(err)
		}
		return
	}
	path, err := library.Find(library.Config{})
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestNothingIsWrittenToTheHome$")
	cmd.Env = []string{"HOME=" + home, "TMPDIR=" + home, "ORT_TEST_HOME=1", "SLUICE_ORT_LIBRARY=" + path}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_ = filepath.WalkDir(home, func(name string, d fs.DirEntry, err error) error {
		if name != home && !strings.Contains(name, "TestNothingIsWritten") {
			t.Errorf("%s was written", name)
		}
		return err
	})
}

// A library that is missing or none is said to be so, in a process of its own
// since one process loads one library.
func TestAMissingOrWrongLibraryIsAClearError(t *testing.T) {
	if path := os.Getenv("ORT_TEST_WRONG"); path != "" {
		if _, err := NewCPU(Config{Library: path}); !errors.Is(err, accel.ErrUnavailable) || !strings.Contains(err.Error(), "sluice runtime install") {
			t.Fatalf("got %v", err)
		}
		return
	}
	text := filepath.Join(t.TempDir(), "text.so")
	if err := os.WriteFile(text, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/nowhere/libonnxruntime.so", text} {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestAMissingOrWrongLibraryIsAClearError$")
		cmd.Env = append(os.Environ(), "ORT_TEST_WRONG="+path)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", path, err, out)
		}
	}
}

// raw is the raw form of a Bytes tensor.
func raw(texts ...string) (data []byte) {
	for _, s := range texts {
		data = append(binary.LittleEndian.AppendUint32(data, uint32(len(s))), s...)
	}
	return data
}

// Elements may have any bytes, zero among them.
func TestStringsAreWhole(t *testing.T) {
	var g onnx.Graph
	g.Input("x", tensor.Bytes, 4)
	g.Node("Identity", "y", "x")
	g.Output("y", tensor.Bytes, 4)
	path := filepath.Join(t.TempDir(), "same.onnx")
	if err := os.WriteFile(path, g.Model("same"), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := driver(t).Open(accel.Model{Name: "same", Path: path}, accel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	data := raw("a\x00b", "", "\x00", strings.Repeat("long\xff\x00", 1000), "plain", "\x00\x00", "a", "ü")
	c := bind(t, m, []tensor.Tensor{{DType: tensor.Bytes, Shape: []int64{2, 4}, Data: data}}, []tensor.Tensor{{DType: tensor.Bytes, Shape: []int64{2, 4}}})
	defer c.Close()
	for range 2 {
		if err := c.Run(); err != nil {
			t.Fatal(err)
		}
		if got := c.Output(0).Data; string(got) != string(data) {
			t.Errorf("%q came back as %q", data, got)
		}
		copy(data[4:], "x\x00y") // a run reads afresh
	}
	for first, text := range map[uint32]string{1 << 31: "ends within an element", 7: "has 7 elements and 0 bytes more, instead of 8"} {
		binary.LittleEndian.PutUint32(data, first)
		if err := c.Run(); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("with a first element of %d bytes, a run ended with %v", first, err)
		}
	}
}

func BenchmarkRun(b *testing.B) {
	m := open(b)
	for _, rows := range []int64{1, 32} {
		b.Run(map[int64]string{1: "rows=1", 32: "rows=32"}[rows], func(b *testing.B) {
			in, out := acceltest.Tensors(rows)
			c := bind(b, m, in, out)
			defer c.Close()
			b.ReportAllocs()
			for b.Loop() {
				_ = c.Run()
			}
		})
	}
}

func TestALongRunCanBeTerminated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "wide.onnx")
	if err := wide.Write(path); err != nil {
		t.Fatal(err)
	}
	m, err := driver(t).Open(accel.Model{Name: "wide", Path: path}, accel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	const rows = 1024
	c := bind(t, m, []tensor.Tensor{{DType: tensor.Float32, Shape: []int64{rows, wide.Inputs}, Data: make([]byte, rows*wide.Inputs*4)}},
		[]tensor.Tensor{{DType: tensor.Float32, Shape: []int64{rows, wide.Outputs}, Data: make([]byte, rows*wide.Outputs*4)}})
	defer c.Close()
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	began, ended := make(chan struct{}), make(chan error)
	go func() {
		close(began)
		ended <- c.Run()
	}()
	<-began
	c.Terminate()
	if err := <-ended; err == nil {
		t.Error("a run that was terminated gave an answer")
	}
	if err := c.Run(); err == nil {
		t.Error("a call that was terminated ran again")
	}
}

// Where a dimension is free every run has a call of its own.
func TestACallThatNeverRanCanBeTerminatedWhereOthersWereLong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "wide.onnx")
	if err := wide.Write(path); err != nil {
		t.Fatal(err)
	}
	m, err := driver(t).Open(accel.Model{Name: "wide", Path: path}, accel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	const rows = 1024
	in := []tensor.Tensor{{DType: tensor.Float32, Shape: []int64{rows, wide.Inputs}, Data: make([]byte, rows*wide.Inputs*4)}}
	out := []tensor.Tensor{{DType: tensor.Float32, Shape: []int64{rows, wide.Outputs}, Data: make([]byte, rows*wide.Outputs*4)}}
	first := bind(t, m, in, out)
	defer first.Close()
	if err := first.Run(); err != nil {
		t.Fatal(err)
	}
	second := bind(t, m, in, out)
	defer second.Close()
	if options, err := second.(*call).begin(); err != nil || options == nil {
		t.Errorf("the first run of another call has options %v (%v), with which Terminate would reach it", options, err)
	}
}
