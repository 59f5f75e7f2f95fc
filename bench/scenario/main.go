// Command scenario measures Sluice in situations of which a table of rates says
// nothing: overload, idle connections, many endpoints, scorers that die, tokens. Each
// ends with a table of what was measured, the goal, and whether it is reached.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sluice.dev/bench"
	"sluice.dev/bench/ask"
	"sluice.dev/bench/client"
	"sluice.dev/bench/load"
	"sluice.dev/bench/local"
	"sluice.dev/bench/pace"
	"sluice.dev/bench/proc"
	"sluice.dev/bench/stats"
)

var scenarios = map[string]func(*stage) error{
	"overload":  overload,
	"idle":      idle,
	"endpoints": endpoints,
	"kill":      kill,
	"jwt":       jwt,
	"generator": generator,
}

var (
	binaries = flag.String("bin", "bin", "folder of sluice, gateway and scorer")
	seconds  = flag.Float64("seconds", 2, "length of one measurement; an overload lasts four times as long")
	rounds   = flag.Int("rounds", 5, "how often each measurement is made")
	over     = flag.Float64("over", 2, "rate of an overload, in capacities")
	echo     = flag.String("echo", "", "internal: serve an echo at this address")
	many     = flag.Int("many", 10_000, "idle connections, or endpoints")
)

func main() {
	names := slices.Sorted(maps.Keys(scenarios))
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: scenario [flags] %s\n", strings.Join(names, "|"))
		flag.PrintDefaults()
	}
	flag.Parse()
	if *echo != "" {
		log.Fatal(serveEcho(*echo))
	}
	scenario := scenarios[flag.Arg(0)]
	if flag.NArg() != 1 || scenario == nil {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := run(ctx, scenario); err != nil {
		log.Fatal(err)
	}
}

var errMissed = errors.New("a goal was missed")

func run(ctx context.Context, scenario func(*stage) error) error {
	dir, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &stage{ctx: ctx, dir: dir, Processes: &local.Processes{Bin: *binaries}}
	defer s.Stop()
	if err := scenario(s); err != nil {
		return err
	}
	fmt.Printf("%s, %s\n\n| what | measured | goal | verdict |\n|---|---|---|---|\n%s", proc.Processor(), proc.Kernel(), s.rows.String())
	if s.missed {
		return errMissed
	}
	return nil
}

// stage is where a scenario plays: its processes, and the table that it fills.
type stage struct {
	ctx context.Context // of the whole command
	dir string
	*local.Processes
	rows   strings.Builder
	missed bool
}

// tell adds a row without a goal.
func (s *stage) tell(what, format string, args ...any) {
	fmt.Fprintf(&s.rows, "| %s | %s | – | – |\n", what, fmt.Sprintf(format, args...))
}

// hold adds a row with a goal.
func (s *stage) hold(what, goal string, reached bool, format string, args ...any) {
	verdict := "reached"
	if !reached {
		verdict, s.missed = "missed", true
	}
	fmt.Fprintf(&s.rows, "| %s | %s | %s | %s |\n", what, fmt.Sprintf(format, args...), goal, verdict)
}

// decide adds a row whose goal is a ratio of at most so much. Where the machine is too
// restless to tell, it says that.
func (s *stage) decide(what string, goal float64, r stats.Interval, format string, args ...any) {
	verdict := "reached"
	switch {
	case r.Low > goal:
		verdict, s.missed = "missed", true
	case !(r.Mid <= goal):
		verdict = "open: its interval has the goal in it"
	}
	fmt.Fprintf(&s.rows, "| %s | %s | %.2f times | %s |\n", what, fmt.Sprintf(format, args...), goal, verdict)
}

func (s *stage) note(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func length() time.Duration { return time.Duration(*seconds * float64(time.Second)) }

// closed asks address over connections that are always busy.
func (s *stage) closed(address string, connections int, pid int, items ...bench.Item) (*bench.Result, error) {
	plan := bench.Plan{Connections: connections, InFlight: connections, WarmUp: 300 * time.Millisecond, Duration: length(), Timeout: 10 * time.Second}
	return load.Run(s.ctx, plan, &load.Work{Dial: client.HTTP(address, nil), Items: items, PIDs: []int{pid}})
}

// open asks address at a rate, whatever it answers.
func (s *stage) open(address string, rate float64, inFlight int, d time.Duration, pid int, items ...bench.Item) (*bench.Result, error) {
	const warmUp = time.Second
	plan := bench.Plan{
		Connections: min(64, inFlight), InFlight: inFlight, WarmUp: warmUp, Duration: d, Timeout: 10 * time.Second,
		Arrivals: func() bench.Schedule { return pace.Poisson(pace.Flat(rate, d+warmUp), 1) },
	}
	return load.Run(s.ctx, plan, &load.Work{Dial: client.HTTP(address, nil), Items: items, PIDs: []int{pid}})
}

// null is an item for an endpoint of the null accelerator, or one of the digits.
func null(endpoint string, nth int) bench.Item {
	r := ask.Row{Endpoint: endpoint, Input: "input", Width: 64, Key: local.Key, Nth: nth}
	return r.Raw()
}

// taught is an item with what address answers now as the only right answer.
func (s *stage) taught(address string, item bench.Item) (bench.Item, error) {
	a, err := load.Right(s.ctx, client.HTTP(address, nil), &item)
	if err != nil {
		return item, err
	}
	item.Check = ask.Same(a.Body)
	return item, nil
}

// digits is the path of the example's model.
func digits() (string, error) { return filepath.Abs("examples/digits/mlp.onnx") }

// failures are what a run's failed requests were.
func failures(r *bench.Result) string { return cmp.Or(r.Failures(), "none") }
