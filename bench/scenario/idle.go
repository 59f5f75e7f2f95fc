package main

import (
	"runtime"
	"sync"
	"time"

	"sluice.dev/bench"
	"sluice.dev/bench/client"
	"sluice.dev/bench/local"
	"sluice.dev/bench/proc"
	"sluice.dev/bench/stats"
)

const (
	busy   = 32   // connections beside the idle ones
	slowly = 1000 // connections per second, in the first round
	settle = 3 * time.Second
)

// idle holds connections that have asked once and are kept alive, and compares a load
// beside them with the load alone.
func idle(s *stage) error {
	model, err := digits()
	if err != nil {
		return err
	}
	file, err := local.WriteEndpoint(s.dir, "null", model, `, accelerator: "null"`)
	if err != nil {
		return err
	}
	server, err := s.Sluice(s.dir, file)
	if err != nil {
		return err
	}
	item, err := s.taught(server.Address, null("null", 0))
	if err != nil {
		return err
	}
	pid := server.Process.PID()
	if _, err := s.closed(server.Address, busy, pid, item); err != nil { // warms up
		return err
	}
	var alone, beside series
	var bytes []float64
	for round := range *rounds {
		if err := alone.add(s.closed(server.Address, busy, pid, item)); err != nil {
			return err
		}
		before := proc.RSS([]int{pid})
		conns, err := s.park(server.Address, item, round == 0)
		if err != nil {
			return err
		}
		if err := s.wait(settle); err != nil {
			return err
		}
		bytes = append(bytes, float64(proc.RSS([]int{pid})-before)/float64(*many))
		err = beside.add(s.closed(server.Address, busy, pid, item))
		for _, c := range conns {
			_ = c.Close()
		}
		if err != nil {
			return err
		}
	}
	// Memory that was taken for connections is used again: only the first round shows
	// what they cost. The second shows what a burst adds to that.
	s.hold("memory of an idle connection", "8192 bytes", bytes[0] > 0 && bytes[0] <= 8<<10, "%.0f bytes (RSS; %d connections, opened at %d per second)", bytes[0], *many, slowly)
	if len(bytes) > 1 {
		s.tell("what opening all at once adds", "%.0f bytes for each (RSS)", bytes[1])
	}
	s.same("CPU per request beside them", beside.cpu, alone.cpu)
	s.same("requests per second alone, against beside them", alone.rate, beside.rate)
	s.hold("errors", "none", alone.errors+beside.errors == 0, "%d", alone.errors+beside.errors)
	return nil
}

// park opens idle connections, each of which has had an answer; paced: slowly.
func (s *stage) park(address string, item bench.Item, paced bool) ([]bench.Conn, error) {
	tick := time.NewTicker(time.Second / slowly)
	defer tick.Stop()
	conns, fails := make([]bench.Conn, *many), make([]error, runtime.NumCPU())
	var wg sync.WaitGroup
	for worker := range fails {
		wg.Go(func() {
			for i := worker; i < *many && fails[worker] == nil; i += len(fails) {
				if paced {
					<-tick.C
				}
				conns[i], fails[worker] = s.parked(address, &item)
			}
		})
	}
	wg.Wait()
	for _, err := range fails {
		if err != nil {
			return nil, err
		}
	}
	return conns, nil
}

func (s *stage) parked(address string, item *bench.Item) (bench.Conn, error) {
	c, err := client.HTTP(address, nil)(s.ctx)
	if err != nil {
		return nil, err
	}
	if err := c.Send(item); err != nil {
		return nil, err
	}
	return c, c.Receive(&bench.Answer{})
}

// series is what repeats of one measurement gave.
type series struct {
	cpu, rate []float64
	errors    int64
}

func (m *series) add(r *bench.Result, err error) error {
	if err != nil {
		return err
	}
	m.cpu, m.rate = append(m.cpu, r.ServerCPU), append(m.rate, r.Rate)
	m.errors += r.Errors()
	return nil
}

// same holds that a is at most 5% larger than b, which is as closely as this is
// measured.
func (s *stage) same(what string, a, b []float64) {
	r := stats.Ratio(a, b)
	s.decide(what, 1.05, r, "%.3f times (95%%: %.3f to %.3f, %d rounds), medians %.4g and %.4g", r.Mid, r.Low, r.High, r.Repeats, stats.Median(a), stats.Median(b))
}
