package proc

import (
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
