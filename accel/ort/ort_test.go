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
	"sync"
	"testing"

	"sluice.dev/accel"
	"sluice.dev/accel/ort/library"
	"sluice.dev/accel/tensor"
)

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
	m, err := driver(t).Open(accel.Model{Name: "mlp", Path: "../../examples/digits/mlp.onnx"}, accel.Options{})
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

// tensors are memory for rows digits.
func tensors(rows int64) (in, out []tensor.Tensor) {
	return []tensor.Tensor{{DType: tensor.Float32, Shape: []int64{rows, 64}, Data: make([]byte, rows*256)}},
		[]tensor.Tensor{
			{DType: tensor.Int64, Shape: []int64{rows}, Data: make([]byte, rows*8)},
			{DType: tensor.Float32, Shape: []int64{rows, 10}, Data: make([]byte, rows*40)},
		}
}

// paint fills row r with pixels of one brightness.
func paint(t tensor.Tensor, r int, v float32) {
	for i := range 64 {
		binary.LittleEndian.PutUint32(t.Data[256*r+4*i:], math.Float32bits(v))
	}
}

func bind(t testing.TB, m accel.Instance, in, out []tensor.Tensor) accel.Call {
	t.Helper()
	c, err := m.Bind(in, out)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestGivenAndProvidedOutputsAgree(t *testing.T) {
	m := open(t)
	in, out := tensors(3)
	given, provided := bind(t, m, in, out), bind(t, m, in, make([]tensor.Tensor, 2))
	defer given.Close()
	defer provided.Close()
	for _, v := range []float32{0, 3, 16} { // memory is read afresh
		paint(in[0], 1, v)
		if err := errors.Join(given.Run(), provided.Run()); err != nil {
			t.Fatal(err)
		}
		for i := range out {
			a, b := given.Output(i), provided.Output(i)
			if string(a.Data) != string(b.Data) || string(a.Data) != string(out[i].Data) || len(a.Shape) != len(b.Shape) || b.Shape[0] != 3 {
				t.Errorf("output %d is %v %x given, %v %x provided", i, a.Shape, a.Data, b.Shape, b.Data)
			}
		}
		var sum float32
		for k := range 10 {
			sum += math.Float32frombits(binary.LittleEndian.Uint32(out[1].Data[40+4*k:]))
		}
		if sum < 0.999 || sum > 1.001 {
			t.Errorf("the probabilities of row 1 sum to %v", sum)
		}
	}
}

func TestCallsOfOneInstanceRunSideBySide(t *testing.T) {
	m := open(t)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			in, out := tensors(1)
			c, err := m.Bind(in, out)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			paint(in[0], 0, float32(g))
			want := ""
			for range 500 {
				if err := c.Run(); err != nil {
					t.Error(err)
					return
				}
				if got := string(out[1].Data); want == "" {
					want = got
				} else if got != want {
					t.Errorf("caller %d got another answer", g)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestWrongMemoryIsRefused(t *testing.T) {
	m := open(t)
	f := func(want string, change func(in, out []tensor.Tensor)) {
		t.Helper()
		in, out := tensors(1)
		change(in, out)
		if c, err := m.Bind(in, out); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("bound %v, %v; want an error with %q", c, err, want)
		}
	}
	f("FP32 [-1 64]; bound FP64", func(in, _ []tensor.Tensor) { in[0].DType = tensor.Float64 })
	f("bound FP32 [1 63]", func(in, _ []tensor.Tensor) { in[0].Shape = []int64{1, 63} })
	f("has 255 bytes", func(in, _ []tensor.Tensor) { in[0].Data = in[0].Data[:255] })
	f("has 0 bytes", func(in, _ []tensor.Tensor) { in[0].Shape, in[0].Data = []int64{0, 64}, nil })
	f("not aligned", func(in, _ []tensor.Tensor) { in[0].Data = make([]byte, 257)[1:] })
	f("has 39 bytes", func(_, out []tensor.Tensor) { out[1].Data = out[1].Data[:39] })
	if _, err := m.Bind(nil, nil); err == nil {
		t.Error("bound nothing")
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

func TestRunDoesNotAllocate(t *testing.T) {
	m := open(t)
	in, out := tensors(8)
	c := bind(t, m, in, out)
	defer c.Close()
	if n := testing.AllocsPerRun(100, func() { _ = c.Run() }); n != 0 {
		t.Errorf("%v allocations per run", n)
	}
}

// The official library collects telemetry unless it is told not to before it
// starts. In a process with a fresh home, a run leaves nothing behind.
func TestNothingIsWrittenToTheHome(t *testing.T) {
	if os.Getenv("ORT_TEST_HOME") != "" {
		in, out := tensors(1)
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

func BenchmarkRun(b *testing.B) {
	m := open(b)
	for _, rows := range []int64{1, 32} {
		b.Run(map[int64]string{1: "rows=1", 32: "rows=32"}[rows], func(b *testing.B) {
			in, out := tensors(rows)
			c := bind(b, m, in, out)
			defer c.Close()
			b.ReportAllocs()
			for b.Loop() {
				_ = c.Run()
			}
		})
	}
}
