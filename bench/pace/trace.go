package pace

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Trace is a list of recorded arrivals, in order. One goroutine uses it.
type Trace struct{ times []time.Duration }

// Next is when the next request is due, from the first one's time.
func (t *Trace) Next() (at time.Duration, ok bool) {
	if len(t.times) == 0 {
		return 0, false
	}
	at, t.times = t.times[0], t.times[1:]
	return at, true
}

// Again is the same schedule from its start.
func (t *Trace) Again() *Trace { return &Trace{t.times} }

// Span is the time from the first to the last arrival, and how many there are.
func (t *Trace) Span() (time.Duration, int) {
	if len(t.times) == 0 {
		return 0, 0
	}
	return t.times[len(t.times)-1], len(t.times)
}

const maxArrivals = 50_000_000 // 400 MB

// ReadTrace reads a recording: one request per line, whose time is the line's first
// number (seconds; further columns after a comma, semicolon, space or tab are
// passed over, and so is one heading), or the member "time" of a line of JSON, such
// as sluice's access log (RFC 3339, or seconds). Times are sorted, and count from
// the earliest.
func ReadTrace(r io.Reader) (*Trace, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	var times []time.Duration
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		at, err := lineTime(text)
		if err != nil && n == 1 && text[0] != '{' {
			continue // a heading
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if len(times) == maxArrivals {
			return nil, fmt.Errorf("line %d: a trace has at most %d requests", n, maxArrivals)
		}
		times = append(times, at)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read trace: %w", err)
	}
	if len(times) == 0 {
		return nil, fmt.Errorf("the trace has no times; each line must start with a number of seconds, or be a JSON object with a time")
	}
	slices.Sort(times)
	first := times[0]
	for i := range times {
		times[i] -= first
	}
	return &Trace{times}, nil
}

func lineTime(text string) (time.Duration, error) {
	if text[0] != '{' {
		if end := strings.IndexAny(text, ",; \t"); end >= 0 {
			text = text[:end]
		}
		return seconds(text)
	}
	var line struct {
		Time json.RawMessage `json:"time"`
	}
	if err := json.Unmarshal([]byte(text), &line); err != nil {
		return 0, fmt.Errorf("not JSON: %w", err)
	}
	s := strings.Trim(string(line.Time), `"`)
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil && t.Year() >= 1970 && t.Year() < 2200 {
		return time.Duration(t.UnixNano()), nil
	}
	return seconds(s)
}

func seconds(text string) (time.Duration, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || v < 0 || v > 9e9 || math.IsNaN(v) {
		return 0, fmt.Errorf("%.40q is not a time in seconds", text)
	}
	return time.Duration(v * 1e9), nil
}
