// Package proc reads what processes use, from Linux's /proc. Elsewhere all is 0.
package proc

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// stat is the fields of /proc/PID/stat after the name. Source: proc_pid_stat(5).
func stat(pid int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
}

// Tick is how exactly CPU time is known: USER_HZ is 100 on Linux.
const Tick = 10 * time.Millisecond

// CPU is what processes have used, user and system.
func CPU(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		if f := stat(pid); len(f) > 12 {
			sum += ticks(f[11:13])
		}
	}
	return sum
}

// RSS is the memory that processes hold, in bytes; what they share counts for each.
func RSS(pids []int) (sum int64) {
	for _, pid := range pids {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if f := strings.Fields(string(data)); len(f) > 1 {
			pages, _ := strconv.ParseInt(f[1], 10, 64)
			sum += pages * int64(os.Getpagesize())
		}
	}
	return sum
}

// Exists tells whether there is such a process.
func Exists(pid int) bool { return stat(pid) != nil }

// Usage is what processes, and all that they started, have used at some moment.
type Usage struct{ own, waited map[int]time.Duration } // by process; waited for is what ended

// Use is that of now.
func Use(roots []int) Usage {
	u := Usage{map[int]time.Duration{}, map[int]time.Duration{}}
	if len(roots) == 0 {
		return u
	}
	for _, pid := range Tree(roots...) {
		f := stat(pid)
		if len(f) > 14 {
			u.own[pid], u.waited[pid] = ticks(f[11:13]), ticks(f[13:15])
		}
	}
	return u
}

func ticks(fields []string) (sum time.Duration) {
	for _, f := range fields {
		n, _ := strconv.Atoi(f)
		sum += time.Duration(n) * Tick
	}
	return sum
}

// PIDs are the processes.
func (u Usage) PIDs() []int { return slices.Collect(maps.Keys(u.own)) }

// Since is the CPU time used since before. What began meanwhile counts, and so does
// what ended: who waits for a process inherits its times. Lost says that some of the
// processes ended and nobody of the others waited for them, so that it is not known.
func (u Usage) Since(before Usage) (cpu time.Duration, lost bool) {
	var gone, inherited time.Duration
	for pid, own := range before.own {
		cpu -= own + before.waited[pid]
		if waited, stays := u.waited[pid]; stays {
			inherited += waited - before.waited[pid] + 2*Tick // user's and system's are cut to ticks
		} else {
			gone += own + before.waited[pid]
		}
	}
	for pid, own := range u.own {
		cpu += own + u.waited[pid]
	}
	return max(cpu, 0), gone > inherited
}

// Tree is the roots and all that they, and their children, started, each once.
func Tree(roots ...int) []int {
	parents := map[int]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		child, _ := strconv.Atoi(filepath.Base(d))
		if f := stat(child); len(f) > 1 {
			parents[child], _ = strconv.Atoi(f[1])
		}
	}
	list := slices.Compact(slices.Sorted(slices.Values(roots)))
	for i := 0; i < len(list); i++ {
		for child, parent := range parents {
			if parent == list[i] && !slices.Contains(list, child) {
				list = append(list, child)
			}
		}
	}
	return list
}

// Processor is the name of the machine's processor.
func Processor() string {
	data, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.Trim(name, "\t :\n")
		}
	}
	return runtime.GOARCH
}

// Kernel is the operating system and its release.
func Kernel() string {
	data, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return strings.TrimSpace(runtime.GOOS + " " + strings.TrimSpace(string(data)))
}

// Memory is the machine's memory in bytes.
func Memory() int64 {
	data, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" {
			kib, _ := strconv.ParseInt(f[1], 10, 64)
			return kib << 10
		}
	}
	return 0
}
