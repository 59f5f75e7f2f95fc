// Package local starts servers on this machine, on the loopback alone, and ends them.
package local

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Key is the key of every endpoint that WriteEndpoint makes.
const Key = "a-key-for-benchmarks-0123456789"

// Processes are those that were started. For one goroutine at a time.
type Processes struct {
	Bin  string // folder of sluice, gateway and scorer
	list []*Process
}

// Process is one that was started.
type Process struct {
	cmd  *exec.Cmd
	out  bytes.Buffer  // readable once it is gone
	gone chan struct{} // closed when it has ended
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// Kill ends the process at once (SIGKILL), and waits until it is gone.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.gone
}

// Start starts a program, which dies with this one.
func (ps *Processes) Start(name string, args ...string) (*Process, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "BENCH_KEY="+Key)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second // a child may outlive its parent, and hold its output
	p := &Process{cmd: cmd, gone: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	ps.list = append(ps.list, p)
	go func() { // ends with the process, for which Stop waits
		_ = cmd.Wait()
		close(p.gone)
	}()
	return p, nil
}

// Stop ends all, gently at first: a peer ends its own children.
func (p *Processes) Stop() {
	for _, one := range p.list {
		one.Signal(syscall.SIGTERM)
		one.Signal(syscall.SIGCONT)
	}
	for _, one := range p.list {
		end := time.AfterFunc(2*time.Second, func() { one.Signal(syscall.SIGKILL) })
		<-one.gone
		end.Stop()
	}
}

// Server is a target that runs.
type Server struct {
	Address    string // of scoring over HTTP
	Management string // likewise, of the management API
	Process    *Process
}

// Sluice starts sluice serve of a specification, with its state in dir, and waits
// until it is ready.
func (p *Processes) Sluice(dir, file string, flags ...string) (*Server, error) {
	return p.front("sluice", append([]string{"serve", "--file", file, "--state", dir}, flags...))
}

// Gateway likewise starts a gateway.
func (p *Processes) Gateway(dir, file string, flags ...string) (*Server, error) {
	return p.front("gateway", append([]string{"--file", file, "--state", dir}, flags...))
}

func (p *Processes) front(name string, args []string) (*Server, error) {
	s, admin := &Server{Address: Free(), Management: Free()}, Free()
	args = append(args, "--http", s.Address, "--metrics", admin, "--management", s.Management, "--grpc", "")
	var err error
	if s.Process, err = p.Start(filepath.Join(p.Bin, name), args...); err != nil {
		return nil, err
	}
	return s, s.Process.Ready("http://" + admin + "/readyz")
}

// Scorer starts a scorer that listens on a lane's address.
func (p *Processes) Scorer(file, lane string, flags ...string) (*Process, error) {
	return p.Start(filepath.Join(p.Bin, "scorer"), append([]string{"--file", file, "--listen", lane, "--metrics", ""}, flags...)...)
}

// Free is an address that nobody listens on.
func Free() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err) // the loopback has ports
	}
	defer l.Close()
	return l.Addr().String()
}

const patience = 60 * time.Second

// Answers waits until ask, which asks the process something, says yes, unless the
// process ends first.
func (p *Process) Answers(ask func() bool) error {
	late := time.After(patience)
	for !ask() {
		select {
		case <-p.gone:
			return fmt.Errorf("%s ended: %s", p.cmd.Path, bytes.TrimSpace(p.out.Bytes()))
		case <-late:
			return fmt.Errorf("%s is not ready after %v", p.cmd.Path, patience)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// attempt is how long one question may take: a process may accept and never answer.
const attempt = time.Second

// Listening waits until address accepts.
func (p *Process) Listening(address string) error {
	return p.Answers(func() bool {
		c, err := net.DialTimeout("tcp", address, attempt)
		return err == nil && c.Close() == nil
	})
}

// Ready waits until url answers 200.
func (p *Process) Ready(url string) error {
	client := &http.Client{Timeout: attempt, Transport: &http.Transport{DisableKeepAlives: true}}
	return p.Answers(func() bool {
		r, err := client.Get(url)
		return err == nil && r.Body.Close() == nil && r.StatusCode == http.StatusOK
	})
}

// HAProxy is how every configuration of HAProxy begins: one thread, and connections
// to its server that are kept.
const HAProxy = `global
  nbthread 1
  maxconn 1000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
`

// WriteEndpoint writes a specification of one version, and returns its path. The
// version's further settings are more, such as ", maxQueueWaitMs: 500".
func WriteEndpoint(dir, name, model, more string) (string, error) {
	path := filepath.Join(dir, name+".yaml")
	text := fmt.Sprintf(`apiVersion: sluice.dev/v1alpha1
kind: Endpoint
metadata: {name: %q}
spec:
  auth: {mode: key, keys: {primary: {env: BENCH_KEY}}}
  versions:
    - {name: only, model: %s%s}
`, name, model, more)
	return path, os.WriteFile(path, []byte(text), 0o600)
}
