// Package logfile appends lines to a file without making anybody wait for it.
package logfile

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// most bytes wait to be written. More are dropped, and counted.
const most = 4 << 20

// File is a file that is appended to. Writers hand lines over in memory; one
// goroutine writes them. Where the disk is slow or full, lines are lost, and requests
// are not held up.
type File struct {
	path    string // empty cannot be opened anew
	log     *slog.Logger
	wake    chan struct{} // capacity 1
	reopen  <-chan os.Signal
	done    chan struct{}
	written atomic.Uint64 // lines
	dropped atomic.Uint64

	mu     sync.Mutex
	buffer []byte // whole lines that wait
	closed bool
}

// Open opens path for appending. Each signal of reopen makes it open path anew, after
// a tool has moved the file away. Close ends it.
func Open(path string, reopen <-chan os.Signal, log *slog.Logger) (*File, error) {
	out, err := open(path)
	if err != nil {
		return nil, err
	}
	return start(path, out, reopen, log), nil
}

// To is Open for what is open already, and is not closed.
func To(out io.Writer, log *slog.Logger) *File {
	return start("", struct {
		io.Writer
		io.Closer
	}{out, io.NopCloser(nil)}, nil, log)
}

func start(path string, out io.WriteCloser, reopen <-chan os.Signal, log *slog.Logger) *File {
	f := &File{path: path, log: log, wake: make(chan struct{}, 1), reopen: reopen, done: make(chan struct{})}
	go f.run(out)
	return f
}

func open(path string) (io.WriteCloser, error) {
	return os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
}

// Write implements io.Writer: it takes whole lines, or drops them, and never waits
// for the file.
func (f *File) Write(lines []byte) (int, error) {
	f.mu.Lock()
	full := f.closed || len(f.buffer)+len(lines) > most
	if !full {
		f.buffer = append(f.buffer, lines...)
	}
	f.mu.Unlock()
	if full {
		f.dropped.Add(count(lines))
		return len(lines), nil
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
	return len(lines), nil
}

func count(lines []byte) uint64 { return uint64(bytes.Count(lines, []byte{'\n'})) }

// Close writes what waits, for at most a time.
func (f *File) Close(atMost time.Duration) error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
	select {
	case <-f.done:
		return nil
	case <-time.After(atMost):
		return fmt.Errorf("the log's last lines were not written in %v", atMost)
	}
}

func (f *File) run(out io.WriteCloser) {
	defer close(f.done)
	failed := false
	var spare []byte
	for {
		select {
		case <-f.wake:
		case <-f.reopen:
			out = f.again(out)
			continue
		}
		f.mu.Lock()
		lines, closed := f.buffer, f.closed
		f.buffer = spare[:0]
		f.mu.Unlock()
		failed = f.put(out, lines, failed)
		spare = lines
		if closed {
			_ = out.Close() // nothing is left to lose
			return
		}
	}
}

// put writes lines, and reports whether that failed. It logs when that has changed.
func (f *File) put(out io.Writer, lines []byte, failed bool) bool {
	if len(lines) == 0 {
		return failed
	}
	n, err := out.Write(lines)
	f.written.Add(count(lines[:n]))
	f.dropped.Add(count(lines[n:]))
	switch {
	case err != nil && !failed:
		f.log.Error("access log not written; lines are dropped until it can be", "file", f.path, "error", err)
	case err == nil && failed:
		f.log.Info("access log written again", "file", f.path)
	}
	return err != nil
}

// again opens the path anew. Where that cannot be done, the file before goes on.
func (f *File) again(out io.WriteCloser) io.WriteCloser {
	fresh, err := open(f.path)
	if err != nil {
		f.log.Error("access log not opened anew; the file before is written", "file", f.path, "error", err)
		return out
	}
	if err := out.Close(); err != nil {
		f.log.Error("access log not closed", "file", f.path, "error", err)
	}
	return fresh
}

var (
	descWritten = prometheus.NewDesc("sluice_access_log_lines_total", "Lines of the access log that were written.", nil, nil)
	descDropped = prometheus.NewDesc("sluice_access_log_dropped_total", "Lines of the access log that were dropped, since its file is too slow, or full.", nil, nil)
)

// Describe implements prometheus.Collector.
func (f *File) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(f, ch) }

// Collect implements prometheus.Collector.
func (f *File) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(descWritten, prometheus.CounterValue, float64(f.written.Load()))
	ch <- prometheus.MustNewConstMetric(descDropped, prometheus.CounterValue, float64(f.dropped.Load()))
}
