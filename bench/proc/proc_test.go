package proc

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

func TestThisProcess(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("no /proc here")
	}
	me := []int{os.Getpid()}
	before := CPU(me)
	for CPU(me) < before+3*Tick { // burns until it is seen
	}
	if rss := RSS(me); rss < 1<<20 || rss > 1<<32 {
		t.Errorf("RSS %d", rss)
	}
	if CPU([]int{1 << 30}) != 0 || RSS([]int{1 << 30}) != 0 || Exists(1<<30) || !Exists(me[0]) {
		t.Error("a process that is not there uses something")
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if tree := Tree(me[0]); tree[0] != me[0] || !slices.Contains(tree, cmd.Process.Pid) {
		t.Errorf("tree %v has not the child %d", tree, cmd.Process.Pid)
	}
	if Processor() == "" || Kernel() == "" || Memory() < 1<<20 || Tick != 10*time.Millisecond {
		t.Error("the machine has no name")
	}
}

// burner is a shell that runs a script: line gives it a line, said is what it says.
func burner(t *testing.T, script string) (pid int, line func(), said *bufio.Reader) {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	return cmd.Process.Pid, func() { _, _ = io.WriteString(in, "go\n") }, bufio.NewReader(out)
}

const work = `i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done; `

// A worker that ends leaves its times to who waits for it, and one that begins counts.
func TestWorkersThatComeAndGoAreCounted(t *testing.T) {
	if !Exists(os.Getpid()) {
		t.Skip("no /proc here")
	}
	pid, step, said := burner(t, `sh -c '`+work+`echo worked; read x; exit 0'; sh -c '`+work+`echo worked; read x; exit 0'; read x`)
	next := func() { _, _ = said.ReadString('\n') }
	next()
	one := Use([]int{pid, pid})
	if len(one.PIDs()) != 2 {
		t.Fatalf("%+v", one)
	}
	step() // the first worker ends, the second begins
	next()
	two := Use([]int{pid})
	cpu, lost := two.Since(one)
	var burnt time.Duration
	for p, own := range two.own {
		if p != pid {
			burnt = own
		}
	}
	if lost || burnt < 5*Tick || cpu < burnt-2*Tick || cpu > 2*burnt+10*Tick {
		t.Errorf("%v since, of a worker's %v, lost: %v", cpu, burnt, lost)
	}
	step() // the second one ends too
}

// What ends where nobody of the target waits for it is known to be missing.
func TestLostTimesAreSaidToBe(t *testing.T) {
	before := Usage{own: map[int]time.Duration{1: 0, 2: time.Second}, waited: map[int]time.Duration{1: 0, 2: 0}}
	f := func(waited time.Duration, cpu time.Duration, lost bool) {
		t.Helper()
		now := Usage{own: map[int]time.Duration{1: 100 * time.Millisecond}, waited: map[int]time.Duration{1: waited}}
		if c, l := now.Since(before); c != cpu || l != lost {
			t.Errorf("%v, %v", c, l)
		}
	}
	f(0, 0, true)
	f(time.Second, 100*time.Millisecond, false)
	f(1500*time.Millisecond, 600*time.Millisecond, false)
}
