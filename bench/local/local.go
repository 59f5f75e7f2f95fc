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
	"sync"
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
	once sync.Once
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// Kill ends the process at once (SIGKILL), and waits until it is gone.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	p.wait()
}

func (p *Process) wait() { p.once.Do(func() { _ = p.cmd.Wait() }) }

// Start starts a program, which dies with this one.
func (p *Processes) Start(name string, args ...string) (*Process, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "BENCH_KEY="+Key)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second // a child may outlive its parent, and hold its output
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if os.Getenv("BENCH_VERBOSE") != "" {
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	one := &Process{cmd: cmd}
	p.list = append(p.list, one)
	return one, nil
}

// Stop ends all, gently at first: a peer ends its own children.
func (p *Processes) Stop() {
	for _, one := range p.list {
		one.Signal(syscall.SIGTERM)
		one.Signal(syscall.SIGCONT)
	}
	for _, one := range p.list {
		end := time.AfterFunc(2*time.Second, func() { one.Signal(syscall.SIGKILL) })
		one.wait()
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
	return s, Ready("http://" + admin + "/readyz")
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

// poll asks until it hears yes.
func poll(ask func() bool) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ask() {
			return true
		}
	}
	return false
}

// Listening waits until address accepts.
func Listening(address string) error {
	if !poll(func() bool {
		c, err := net.Dial("tcp", address)
		return err == nil && c.Close() == nil
	}) {
		return fmt.Errorf("nobody listens on %s", address)
	}
	return nil
}

// Ready waits until url answers 200.
func Ready(url string) error {
	if !poll(func() bool {
		r, err := http.Get(url)
		return err == nil && r.Body.Close() == nil && r.StatusCode == http.StatusOK
	}) {
		return fmt.Errorf("%s does not get ready", url)
	}
	return nil
}

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
