package logfile

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var silent = slog.New(slog.DiscardHandler)

func write(t *testing.T, f *File, line string) {
	t.Helper()
	if n, err := f.Write([]byte(line)); n != len(line) || err != nil {
		t.Errorf("wrote %d bytes, %v", n, err)
	}
}

func end(t *testing.T, f *File) {
	t.Helper()
	if err := f.Close(10 * time.Second); err != nil {
		t.Error(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestLinesAreAppendedAndAMovedFileIsOpenedAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	hangup := make(chan os.Signal)
	f, err := Open(path, hangup, silent)
	if err != nil {
		t.Fatal(err)
	}
	write(t, f, "one\n")
	for f.written.Load() < 1 {
		time.Sleep(time.Millisecond) // polls the writer
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	hangup <- syscall.SIGHUP
	write(t, f, "two\nthree\n")
	end(t, f)
	if old, fresh := read(t, path+".1"), read(t, path); old != "before\none\n" || fresh != "two\nthree\n" {
		t.Errorf("the files have %q and %q", old, fresh)
	}
	if f.written.Load() != 3 || f.dropped.Load() != 0 {
		t.Errorf("%d written, %d dropped", f.written.Load(), f.dropped.Load())
	}
	write(t, f, "after the end\n")
	if f.dropped.Load() != 1 {
		t.Errorf("%d dropped", f.dropped.Load())
	}
}

func TestAFileThatCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir, nil, silent); err == nil {
		t.Error("a folder was opened")
	}
	path := filepath.Join(dir, "a", "log")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	hangup := make(chan os.Signal)
	f, err := Open(path, hangup, silent)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Dir(path), filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	hangup <- syscall.SIGHUP
	write(t, f, "one\n")
	end(t, f)
	if got := read(t, filepath.Join(dir, "b", "log")); got != "one\n" {
		t.Errorf("the file before has %q", got)
	}
}

// disk takes nothing until it is let go, and then what it is told to.
type disk struct {
	busy chan struct{}

	mu    sync.Mutex
	full  bool
	lines bytes.Buffer
}

func (d *disk) Write(b []byte) (int, error) {
	<-d.busy
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		return 0, errors.New("no space left")
	}
	return d.lines.Write(b)
}

// A disk that does not take anything holds nobody up, and takes bounded memory.
func TestASlowDiskHoldsUpNobody(t *testing.T) {
	d := &disk{busy: make(chan struct{})}
	f := To(d, silent)
	line := strings.Repeat("x", 1023) + "\n"
	const sent = 4 * most / 1024
	for range sent {
		write(t, f, line)
	}
	if n := f.dropped.Load(); n < sent/2 || n >= sent {
		t.Errorf("%d of %d lines were dropped", n, sent)
	}
	if err := f.Close(time.Millisecond); err == nil {
		t.Error("closed with lines that were not written")
	}
	close(d.busy)
	<-f.done
	if n := f.written.Load() + f.dropped.Load(); n != sent || d.lines.Len() != 1024*int(f.written.Load()) {
		t.Errorf("%d of %d lines are accounted for, %d bytes written", n, sent, d.lines.Len())
	}
}

func TestAFullDiskIsToldOnce(t *testing.T) {
	var log bytes.Buffer
	d := &disk{busy: make(chan struct{}), full: true}
	f := To(d, slog.New(slog.NewTextHandler(&log, nil)))
	for range 3 {
		write(t, f, "lost\n")
		d.busy <- struct{}{}
	}
	for f.dropped.Load() < 3 {
		time.Sleep(time.Millisecond) // polls the writer
	}
	d.mu.Lock()
	d.full = false
	d.mu.Unlock()
	close(d.busy)
	write(t, f, "kept\n")
	end(t, f)
	if f.dropped.Load() != 3 || d.lines.String() != "kept\n" {
		t.Errorf("%d dropped, and %q kept", f.dropped.Load(), d.lines.String())
	}
	if text := log.String(); strings.Count(text, "not written") != 1 || strings.Count(text, "written again") != 1 {
		t.Errorf("logged %s", text)
	}
}

func BenchmarkWrite(b *testing.B) {
	f, err := Open(filepath.Join(b.TempDir(), "log"), nil, silent)
	if err != nil {
		b.Fatal(err)
	}
	line := []byte(strings.Repeat("x", 399) + "\n")
	for b.Loop() {
		_, _ = f.Write(line)
	}
	_ = f.Close(10 * time.Second)
	b.ReportMetric(float64(f.dropped.Load())/float64(b.N), "dropped/op")
}
