// Package load sends the same request over many connections, one after another
// on each, and measures what comes back.
package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Request is what is sent. Body may be empty.
type Request struct {
	Path    string
	Headers []string // each "Name: value"
	Body    []byte
}

// Encode is the request on the wire, as HTTP/1.1 with keep-alive.
func (r *Request) Encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n", r.Path, len(r.Body))
	for _, h := range r.Headers {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n")
	b.Write(r.Body)
	return b.Bytes()
}

// Result is what a run measured.
type Result struct {
	Requests int
	Errors   int
	Elapsed  time.Duration
	P50, P99 time.Duration
	Body     []byte // of the first answer
}

// Rate is requests per second.
func (r *Result) Rate() float64 { return float64(r.Requests) / r.Elapsed.Seconds() }

// Run asks address with connections callers for as long as d. An answer of
// another status than 200, or of another length than the first, is an error; so
// is, once in 64 answers, another body where exact is set.
func Run(ctx context.Context, address string, req *Request, connections int, d time.Duration, exact bool) (*Result, error) {
	wire := req.Encode()
	first, err := Once(address, req)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	callers := make([]caller, connections)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range callers {
		callers[i] = caller{wire: wire, want: first, exact: exact, times: make([]time.Duration, 0, 1<<16)}
		wg.Go(func() { callers[i].run(ctx, address) })
	}
	wg.Wait()
	r := &Result{Elapsed: time.Since(began), Body: first}
	var all []time.Duration
	for i := range callers {
		r.Requests += callers[i].done
		r.Errors += callers[i].errors
		all = append(all, callers[i].times...)
	}
	slices.Sort(all)
	if n := len(all); n > 0 {
		r.P50, r.P99 = all[n/2], all[n*99/100]
	}
	return r, nil
}

// Once is the body of the answer to one request.
func Once(address string, req *Request) ([]byte, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer c.Close()
	if _, err := c.Write(req.Encode()); err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	status, body, err := answer(bufio.NewReaderSize(c, 64<<10), nil)
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	if status != 200 {
		return nil, fmt.Errorf("the first answer is %d %s", status, body)
	}
	return body, nil
}

// caller is one connection.
type caller struct {
	wire  []byte
	want  []byte
	exact bool

	done   int
	errors int
	times  []time.Duration // every one of the first, then one in 16
}

func (k *caller) run(ctx context.Context, address string) {
	for ctx.Err() == nil {
		if err := k.converse(ctx, address); err != nil && ctx.Err() == nil {
			k.errors++
		}
	}
}

// converse asks over one connection until ctx or the connection ends.
func (k *caller) converse(ctx context.Context, address string) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })
	defer stop()
	r, body := bufio.NewReaderSize(c, 64<<10), make([]byte, 0, len(k.want))
	for {
		began := time.Now()
		if _, err := c.Write(k.wire); err != nil {
			return err
		}
		var status int
		if status, body, err = answer(r, body); err != nil {
			return err
		}
		k.count(status, body, time.Since(began))
	}
}

func (k *caller) count(status int, body []byte, took time.Duration) {
	if status != 200 || len(body) != len(k.want) || k.exact && k.done%64 == 0 && !bytes.Equal(body, k.want) {
		k.errors++
		return
	}
	if k.done++; len(k.times) < cap(k.times) && (k.done < 1000 || k.done%16 == 0) {
		k.times = append(k.times, took)
	}
}

var errAnswer = errors.New("not an HTTP/1.1 answer with a length")

// answer reads one answer; its body is appended to body[:0].
func answer(r *bufio.Reader, body []byte) (status int, _ []byte, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, body, err
	}
	if len(line) < 12 {
		return 0, body, errAnswer
	}
	status, err = strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, body, errAnswer
	}
	length := -1
	for {
		if line, err = r.ReadSlice('\n'); err != nil {
			return 0, body, err
		}
		if len(line) <= 2 {
			break
		}
		if name := "content-length:"; len(line) > len(name) && bytes.EqualFold(line[:len(name)], []byte(name)) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len(name):]))); err != nil {
				return 0, body, errAnswer
			}
		}
	}
	if length < 0 || length > 1<<30 {
		return 0, body, errAnswer
	}
	body = slices.Grow(body[:0], length)[:length]
	_, err = io.ReadFull(r, body)
	return status, body, err
}
