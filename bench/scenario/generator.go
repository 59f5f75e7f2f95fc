package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"sluice.dev/bench/local"
	"sluice.dev/bench/stats"
)

// serveEcho answers everything with the same few bytes.
func serveEcho(address string) error {
	s := &fasthttp.Server{Name: "echo", Handler: func(c *fasthttp.RequestCtx) { c.SetBodyString("fine") }}
	return s.ListenAndServe(address)
}

// echo starts that server in a process of its own, and returns where it listens.
func (s *stage) echo() (address string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	address = local.Free()
	p, err := s.Start(self, "-echo", address)
	if err != nil {
		return "", err
	}
	return address, p.Listening(address)
}

// generator compares what a request costs sluice bench with what it costs wrk, which
// checks no answer; both in a closed loop, in turn, against a server that does nothing.
func generator(s *stage) error {
	wrk, err := exec.LookPath("wrk")
	if err != nil {
		s.tell("wrk", "not measured: it is not installed (apt-get install wrk)")
		return nil
	}
	address, err := s.echo()
	if err != nil {
		return err
	}
	var ours, theirs series
	for range *rounds {
		if err := s.generate(&ours, benchRequests, filepath.Join(*binaries, "sluice"), "bench", "http://"+address+"/", "--warm-up", "0s", "--duration", length().String(), "-o", "json"); err != nil {
			return err
		}
		if err := s.generate(&theirs, wrkRequests, wrk, "-t", "2", "-c", fmt.Sprint(busy), "-d", fmt.Sprintf("%.0fs", length().Seconds()), "http://"+address+"/"); err != nil {
			return err
		}
	}
	r := stats.Ratio(ours.cpu, theirs.cpu)
	s.decide(fmt.Sprintf("CPU per request of sluice bench, against wrk -t 2 -c %d", busy), 1.3, r, "%.2f times (95%%: %.2f to %.2f, %d rounds), medians %.2f and %.2f µs; %.0f and %.0f requests per second",
		r.Mid, r.Low, r.High, r.Repeats, stats.Median(ours.cpu), stats.Median(theirs.cpu), stats.Median(ours.rate), stats.Median(theirs.rate))
	return nil
}

// generate runs a generator to its end. Its whole CPU time counts, its start included.
func (s *stage) generate(m *series, requests func([]byte) (float64, error), name string, args ...string) error {
	cmd := exec.CommandContext(s.ctx, name, args...)
	var out bytes.Buffer
	cmd.Stdout = &out
	began := time.Now()
	_ = cmd.Run() // sluice bench fails where it was late; a crash has no requests
	n, err := requests(out.Bytes())
	if err != nil || n == 0 {
		return fmt.Errorf("%s: no requests in %.300q", name, out.String())
	}
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	m.cpu, m.rate = append(m.cpu, float64(used.Microseconds())/n), append(m.rate, n/time.Since(began).Seconds())
	return nil
}

// benchRequests is how many requests a report in JSON tells of.
func benchRequests(out []byte) (float64, error) {
	var r struct {
		Targets []struct {
			Rounds []struct{ Requests float64 }
		}
	}
	if err := json.Unmarshal(out, &r); err != nil || len(r.Targets) != 1 || len(r.Targets[0].Rounds) != 1 {
		return 0, fmt.Errorf("not one round: %w", err)
	}
	return r.Targets[0].Rounds[0].Requests, nil
}

var wrkLine = regexp.MustCompile(`(\d+) requests in`)

func wrkRequests(out []byte) (float64, error) {
	m := wrkLine.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("no count of requests")
	}
	return strconv.ParseFloat(string(m[1]), 64)
}
