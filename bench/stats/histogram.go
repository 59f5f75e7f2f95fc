// Package stats keeps what was measured: histograms of times, and confidence
// intervals of means and ratios over repeats.
package stats

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const longest = time.Hour // longer times are kept as this

// Histogram counts times with a relative error of at most 0.1% (fine) or 1%
// (coarse). It is for one goroutine at a time. The zero value and nil are empty.
type Histogram struct{ h *hdrhistogram.Histogram }

// Fine makes a histogram of three significant digits, which takes 250 KB.
func Fine() *Histogram { return &Histogram{hdrhistogram.New(1, int64(longest), 3)} }

// Coarse makes one of two digits above 1 µs, which takes 25 KB.
func Coarse() *Histogram { return &Histogram{hdrhistogram.New(1000, int64(longest), 2)} }

// Record counts one time.
func (h *Histogram) Record(d time.Duration) {
	_ = h.h.RecordValue(int64(max(0, min(d, longest)))) // in range: cannot fail
}

// Add counts what other has counted.
func (h *Histogram) Add(other *Histogram) {
	if other != nil && other.h != nil {
		h.h.Merge(other.h)
	}
}

// Count is how many times there are.
func (h *Histogram) Count() int64 {
	if h == nil || h.h == nil {
		return 0
	}
	return h.h.TotalCount()
}

// At is the time that percent of all do not exceed, 0 where there are none.
func (h *Histogram) At(percent float64) time.Duration {
	if h.Count() == 0 {
		return 0
	}
	return time.Duration(h.h.ValueAtPercentile(percent))
}

// Max is the longest time.
func (h *Histogram) Max() time.Duration { return h.At(100) }

// Mean is the mean time, 0 where there are none.
func (h *Histogram) Mean() time.Duration {
	if h.Count() == 0 {
		return 0
	}
	return time.Duration(h.h.Mean())
}

// Summary is a histogram in a few numbers, in ms.
type Summary struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean_ms"`
	P50   float64 `json:"p50_ms"`
	P90   float64 `json:"p90_ms"`
	P99   float64 `json:"p99_ms"`
	P999  float64 `json:"p999_ms"`
	Max   float64 `json:"max_ms"`
}

// Summary is h in a few numbers.
func (h *Histogram) Summary() Summary {
	return Summary{h.Count(), Millis(h.Mean()), Millis(h.At(50)), Millis(h.At(90)), Millis(h.At(99)), Millis(h.At(99.9)), Millis(h.Max())}
}

// MarshalJSON writes the summary, and all counts of times in ns as HdrHistogram's tools
// read them, version 2 of its format, compressed and in base 64.
func (h *Histogram) MarshalJSON() ([]byte, error) {
	full := struct {
		Summary
		HDR string `json:"hdr,omitempty"`
	}{Summary: h.Summary()}
	if h.Count() > 0 {
		text, err := h.h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
		if err != nil {
			return nil, fmt.Errorf("encode a histogram: %w", err)
		}
		full.HDR = string(text)
	}
	return json.Marshal(full)
}

// Millis is d in ms.
func Millis(d time.Duration) float64 { return float64(d) / 1e6 }
