package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/scorer/batch"
	"sluice.dev/scorer/model"
)

// said is what a command writes.
func said(c *cobra.Command, args ...string) (string, error) {
	c.SilenceErrors, c.SilenceUsage = true, true
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(args)
	err := c.ExecuteContext(context.Background())
	return out.String(), err
}

func TestPlans(t *testing.T) {
	out, err := said(planCommand(), "--rate", "110000", "--p99", "50ms", "--times", "1=20us,64=640us")
	if err != nil || !strings.Contains(out, "\n2 replicas answer 110000 requests per second") {
		t.Errorf("%v\n%s", err, out)
	}
	var p planned
	out, err = said(planCommand(), "--rate", "110000", "--p99", "50ms", "--times", "1=20us,64=640us", "-o", "json")
	if e := json.Unmarshal([]byte(out), &p); err != nil || e != nil || p.Replicas != 2 || len(p.Tried) != 1 || p.Tried[0].P99 <= 0 || p.Limit != 64 {
		t.Errorf("%v, %v\n%s", err, e, out)
	}
	for want, args := range map[string][]string{
		"longer than --p99": {"--rate", "10", "--p99", "1ms", "--times", "1=2ms"},
		"--max-replicas is": {"--rate", "1e9", "--p99", "1s", "--times", "1=2ms"},
		"do not answer":     {"--rate", "100", "--p99", "2200us", "--times", "1=2ms", "--max-replicas", "3"},
		"--output yaml":     {"--rate", "10", "--p99", "1s", "--times", "1=2ms", "-o", "yaml"},
		"--rate 0":          {"--p99", "1ms", "--times", "1=2ms"},
	} {
		if out, err := said(planCommand(), args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, not %q\n%s", args, err, want, out)
		}
	}
}

// learnt is a server over TLS that knows two shapes of a model.
func learnt(t *testing.T) (address, ca string) {
	t.Helper()
	curve := func(ms int) []batch.Point {
		took := time.Duration(ms) * time.Millisecond
		return []batch.Point{{Rows: 1, Time: took, Spread: took / 10, Runs: 32}, {Rows: 4, Time: 2 * took, Spread: took / 5, Runs: 32}}
	}
	e := model.Explained{Endpoint: "e", Version: "v", Device: "cpu", Slots: 2}
	e.Limit, e.Now = 4, 3_000_000_000
	e.Shapes = []batch.ShapeCosts{{Dims: []int64{7}, Runs: 100, Curve: curve(10)}, {Dims: []int64{8}, Runs: 9000, Curve: curve(1)}}
	e.Last = []batch.Decision{{At: 1_500_000_000, Waiting: 5, Rows: 4, Reason: batch.Untried}, {At: 2_000_000_000, Waiting: 3, Late: 3, Reason: batch.Deadline}}
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/batching" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_ = json.NewEncoder(w).Encode([]model.Explained{e})
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "https://"), write(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
}

func TestServersAreAskedOverTLS(t *testing.T) {
	address, ca := learnt(t)
	out, err := said(planCommand(), "--rate", "100", "--p99", "50ms", "--model", "e/v", "--metrics", "tls://"+address, "--metrics-ca", ca)
	// Four rows in 2 ms on two slots, of the shape that ran most.
	if err != nil || !strings.Contains(out, "does 4000 rows per second") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = said(explainCommand(), "batching", "--metrics", "tls://"+address, "--metrics-ca", ca)
	for _, want := range []string{"1.5s", "not tried yet", "1s", "deadline"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%v, no %q in\n%s", err, want, out)
		}
	}
	for want, args := range map[string][]string{
		"ask tls://" + address:       {"--metrics", address},
		"with --metrics-ca":          {"--metrics", "tls://" + address},
		"are for --metrics tls://":   {"--metrics", address, "--metrics-ca", ca},
		"authority of certificates":  {"--metrics", "tls://" + address, "--metrics-ca", ca + "x"},
		"a certificate and its key":  {"--metrics", "tls://" + address, "--metrics-cert", ca},
		"serves no other":            {"--metrics", "tls://" + address, "--metrics-ca", ca, "other"},
		"missing port in address":    {"--metrics", "tls://localhost"},
		"is this the address of its": {"--metrics", "127.0.0.1:1"},
	} {
		if out, err := said(explainCommand(), append([]string{"batching"}, args...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, not %q\n%s", args, err, want, out)
		}
	}
}

func TestAServerThatAsksForCertificatesIsTold(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	s.StartTLS()
	defer s.Close()
	ca := write(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	_, err := said(explainCommand(), "batching", "--metrics", "tls://"+strings.TrimPrefix(s.URL, "https://"), "--metrics-ca", ca)
	if err == nil || !strings.Contains(err.Error(), "--metrics-cert") {
		t.Errorf("%v; want that it names --metrics-cert", err)
	}
}

func TestWhatCannotBeLearntIsRefused(t *testing.T) {
	for want, answer := range map[string]string{
		"has not run yet": `[{"endpoint":"e","version":"v","slots":1,"limit":4}]`,
		"cannot be":       `[{"endpoint":"e","version":"v","slots":1,"limit":4,"shapes":[{"curve":[{"rows":2,"nanoseconds":5},{"rows":1,"nanoseconds":5}]}]}]`,
		"0 slots":         `[{"endpoint":"e","version":"v","limit":4,"shapes":[{"curve":[{"rows":1,"nanoseconds":5}]}]}]`,
		"names 2":         `[{"endpoint":"e","version":"v"},{"endpoint":"e","version":"w"}]`,
		"read the answer": `{`,
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) }))
		out, err := said(planCommand(), "--rate", "5", "--p99", "1s", "--model", "e", "--metrics", strings.TrimPrefix(s.URL, "http://"))
		s.Close()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, not %q\n%s", answer, err, want, out)
		}
	}
}

func FuzzTimes(f *testing.F) {
	for _, s := range []string{"1=4ms,8=17ms", "8=1ns", "1=1s,1=2s", "=,", "16384=1h", "-1=1s", "1=1us,2=1us,x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if points, err := parseTimes(text); err == nil && !usable(points) {
			t.Errorf("%q is taken: %v", text, points)
		}
	})
}
