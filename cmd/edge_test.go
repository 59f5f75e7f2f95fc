package cmd

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The limits that flags set are kept, and counted where operators look.
func TestLimitsOfTheEdge(t *testing.T) {
	at, admin := free(t), free(t)
	start(t, "sluice", "serve", "--file", digits+"endpoint.yaml", "--http", at, "--metrics", admin, "--state", t.TempDir(),
		"--max-connections", "4", "--max-connections-per-client", "3", "--max-header", "4096", "--read-timeout", "100ms",
		"--write-timeout", "100ms", "--idle-timeout", "1h")
	eventually(t, "ready", ready(admin))
	ask := func(sent string) (status int) {
		t.Helper()
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = c.Write([]byte(sent)) // what is answered tells
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	metric := func(want string) func() bool {
		return func() bool {
			a, err := call("GET", "http://"+admin+"/metrics", nil)
			return err == nil && strings.Contains(string(a.body), "\n"+want+"\n")
		}
	}
	const live = "GET /v2/health/live HTTP/1.1\r\nHost: a\r\n"
	for sent, want := range map[string]int{live + "\r\n": 200, live + "X: " + strings.Repeat("a", 5000) + "\r\n\r\n": 431, live: 408, "GET /../v2 HTTP/1.1\r\nHost: a\r\n\r\n": 400} {
		if got := ask(sent); got != want {
			t.Errorf("%.40q: answered %d; want %d", sent, got, want)
		}
	}
	for _, want := range []string{`sluice_http_refused_total{reason="head_size"} 1`, `sluice_http_refused_total{reason="frame"} 1`, `sluice_http_timeouts_total{state="reading"} 1`, `sluice_http_connections{state="idle"} 0`} {
		eventually(t, want, metric(want))
	}
	deaf, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	_ = deaf.SetDeadline(time.Now().Add(10 * time.Second))
	for many := []byte(strings.Repeat("GET /v2 HTTP/1.1\r\nHost: a\r\n\r\n", 1000)); err == nil; _, err = deaf.Write(many) { // until it is cut off, unread
	}
	eventually(t, "a slow reader", metric(`sluice_http_timeouts_total{state="writing"} 1`))
	for range 3 {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	eventually(t, "parked", metric(`sluice_http_connections{state="parked"} 3`))
	if got := ask(""); got != 503 {
		t.Errorf("a connection too many: answered %d; want 503", got)
	}
	eventually(t, "counted", metric(`sluice_http_refused_total{reason="client_connections"} 1`))
}

// A client that does not go on with its handshake is cut off when the flag says.
func TestAHandshakeHasATimeLimit(t *testing.T) {
	dir, at, admin := t.TempDir(), free(t), free(t)
	_, cert, private := newAuthority(t).sign(2)
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := errors.Join(os.WriteFile(certFile, cert, 0o600), os.WriteFile(keyFile, private, 0o600)); err != nil {
		t.Fatal(err)
	}
	start(t, "sluice", "serve", "--file", digits+"endpoint.yaml", "--http", at, "--metrics", admin, "--state", dir,
		"--tls-cert", certFile, "--tls-key", keyFile, "--handshake-timeout", "50ms")
	eventually(t, "ready", ready(admin))
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(9 * time.Second)) // less than the default
	if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a silent client is kept for longer than the flag says")
	}
}

// A tool may move the access log away; SIGHUP makes a new one.
func TestTheAccessLogCanBeRotated(t *testing.T) {
	at, admin, file := free(t), free(t), filepath.Join(t.TempDir(), "access.log")
	p := start(t, "sluice", "serve", "--file", digits+"endpoint.yaml", "--http", at, "--metrics", admin, "--state", t.TempDir(), "--drain-delay", "10ms", "--access-log", file)
	eventually(t, "ready", ready(admin))
	one := read(t, digits+"requests/one.json")
	score := func(id string) {
		t.Helper()
		if a := must(t, "POST", "http://"+at+"/v2/models/digits/infer", one, append(bearer, "X-Request-Id", id)...); a.status != 200 {
			t.Fatalf("answered %d %s", a.status, a.body)
		}
	}
	has := func(file, id string) func() bool {
		return func() bool {
			text, err := os.ReadFile(file)
			return err == nil && strings.Contains(string(text), fmt.Sprintf(`"request_id":%q`, id))
		}
	}
	score("first")
	eventually(t, "written", has(file, "first"))
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, "opened anew", func() bool { _, err := os.Stat(file); return err == nil })
	score("second")
	p.stop() // writes what is left
	if !has(file, "second")() || has(file+".1", "second")() || has(file, "first")() {
		t.Error("lines are not where they belong")
	}
}
