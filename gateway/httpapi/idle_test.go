package httpapi

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkIdle is what a request costs on 32 busy connections, alone and beside
// 10,000 idle ones, and what each of those keeps of this process's memory. The
// idle clients are another process, since one may not have enough descriptors.
func BenchmarkIdle(b *testing.B) {
	const busy, idle = 32, 10_000
	pair, _ := certificate(b)
	for _, t := range []*tls.Config{nil, {Certificates: []tls.Certificate{pair}}} {
		name := "plain"
		if t != nil {
			name = "TLS"
		}
		b.Run(name, func(b *testing.B) {
			address := listen(b, Config{TLS: t})
			b.Run("alone", func(b *testing.B) { load(b, address, busy, t != nil) })
			before := resident(b)
			idleClients(b, address, idle, t != nil)
			time.Sleep(5 * time.Second) // is what an idle connection does
			each := float64(resident(b)-before) / idle
			b.Run(fmt.Sprintf("beside-%d", idle), func(b *testing.B) {
				load(b, address, busy, t != nil)
				b.ReportMetric(each, "B/idle-conn")
			})
		})
	}
}

// idleClients starts a process of n clients that have sent one request each and
// stay connected until the test ends.
func idleClients(b *testing.B, address string, n int, secure bool) {
	b.Helper()
	c := exec.Command(os.Args[0], "-test.run", "^TestIdleClients$")
	c.Env = append(os.Environ(), fmt.Sprintf("IDLE_CLIENTS=%d", n), "IDLE_ADDRESS="+address, fmt.Sprintf("IDLE_SECURE=%v", secure))
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = c.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "connected\n" {
		b.Fatalf("the idle clients said %q, %v", line, err)
	}
}

// The process of idleClients.
func TestIdleClients(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("IDLE_CLIENTS"))
	if err != nil {
		t.Skip("is run by BenchmarkIdle")
	}
	for range n {
		c := client(t, os.Getenv("IDLE_ADDRESS"), os.Getenv("IDLE_SECURE") == "true")
		if _, err := io.WriteString(c, score+"Content-Length: 3\r\n\r\nabc"); err != nil {
			t.Fatal(err)
		}
		if err := skipAnswer(bufio.NewReader(c), 3); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Println("connected")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the benchmark ends
}

// resident is this process's memory in bytes, without what it would give back
// when asked.
func resident(b *testing.B) int {
	b.Helper()
	for range 3 { // pools are emptied by the second collection
		debug.FreeOSMemory()
	}
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Skip(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		b.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// load sends b.N requests over some connections and reports the processor time of
// each, server and client together.
func load(b *testing.B, address string, busy int, secure bool) {
	request := []byte(score + "Content-Length: 3\r\n\r\nabc")
	conns := make([]net.Conn, busy)
	for i := range conns {
		conns[i] = client(b, address, secure)
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	var wait sync.WaitGroup
	b.ResetTimer()
	began := cpu()
	for _, c := range conns {
		wait.Go(func() {
			r := bufio.NewReader(c)
			for left.Add(-1) >= 0 {
				if _, err := c.Write(request); err != nil {
					b.Error(err)
					return
				}
				if err := skipAnswer(r, 3); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpu()-began).Microseconds())/float64(b.N), "cpu-us/op")
}

// client connects, in plain or encrypted, without a time limit, until the test ends.
func client(t testing.TB, address string, secure bool) net.Conn {
	t.Helper()
	c := connect(t, address)
	_ = c.SetDeadline(never)
	if secure {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true}) // it is this machine's
	}
	return c
}

// skipAnswer reads an answer with a body of n bytes.
func skipAnswer(r *bufio.Reader, n int) error {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) == 2 {
			_, err = r.Discard(n)
			return err
		}
	}
}
