package metrics

import (
	"maps"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"sluice.dev/scorer"
)

func written(t *testing.T, m prometheus.Metric) *dto.Histogram {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Histogram
}

// native is the counts of native buckets by their index.
func native(h *dto.Histogram) map[int32]int64 {
	all := map[int32]int64{}
	var index int32
	var count int64
	deltas := h.PositiveDelta
	for _, s := range h.PositiveSpan {
		index += s.GetOffset()
		for range s.GetLength() {
			count += deltas[0]
			if deltas = deltas[1:]; count > 0 {
				all[index] = count
			}
			index++
		}
	}
	return all
}

// Ours has what the library's has, of the same observations.
func TestHistogramsAreAsTheLibrarys(t *testing.T) {
	classic := prometheus.ExponentialBucketsRange(50e-6, 60, 18)
	theirs := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h", Buckets: classic, NativeHistogramBucketFactor: 1.1, NativeHistogramZeroThreshold: math.Exp2(lowest)})
	ours := NewHistogram(Seconds(classic))
	r := rand.New(rand.NewPCG(1, 2))
	observe := func(v float64) {
		theirs.Observe(v)
		ours.Observe(v)
	}
	for range 20_000 {
		observe(math.Exp2(-24 + 33*r.Float64())) // 60 ns to 512 s
	}
	for _, v := range append([]float64{0, math.Exp2(lowest), 1, 2, 4}, classic...) {
		observe(v)
	}
	got, want := written(t, ours.Metric(prometheus.NewDesc("h", "", nil, nil))), written(t, theirs)
	for i, b := range want.Bucket {
		if g := got.Bucket[i]; g.GetUpperBound() != b.GetUpperBound() || g.GetCumulativeCount() != b.GetCumulativeCount() {
			t.Errorf("bucket %v; want %v", g, b)
		}
	}
	if !maps.Equal(native(got), native(want)) || got.GetSchema() != want.GetSchema() || got.GetZeroCount() != want.GetZeroCount() || got.GetZeroThreshold() != want.GetZeroThreshold() {
		t.Errorf("native buckets are not the same:\n%v\n%v", got, want)
	}
	if d := got.GetSampleSum() - want.GetSampleSum(); got.GetSampleCount() != want.GetSampleCount() || math.Abs(d) > 1e-6*want.GetSampleSum() {
		t.Errorf("%d and %v; want %d and %v", got.GetSampleCount(), got.GetSampleSum(), want.GetSampleCount(), want.GetSampleSum())
	}
	ours.Observe(1e6) // is in the last native bucket, and in no classic one
	got = written(t, ours.Metric(prometheus.NewDesc("h", "", nil, nil)))
	if got.GetSampleCount() != want.GetSampleCount()+1 || got.Bucket[len(classic)-1].GetCumulativeCount() != want.Bucket[len(classic)-1].GetCumulativeCount() || native(got)[highest*perPower+1] != 1 {
		t.Errorf("beyond all buckets: %v", got)
	}
}

func TestCountsAreClassicAlone(t *testing.T) {
	h := NewHistogram(Counts([]float64{1, 2, 4}))
	for _, v := range []float64{1, 2, 2, 3, 9} {
		h.Observe(v)
	}
	got := written(t, h.Metric(prometheus.NewDesc("h", "", nil, nil)))
	if got.Schema != nil || got.GetSampleCount() != 5 || got.GetSampleSum() != 17 || got.Bucket[0].GetCumulativeCount() != 1 || got.Bucket[1].GetCumulativeCount() != 3 || got.Bucket[2].GetCumulativeCount() != 4 {
		t.Errorf("got %v", got)
	}
}

// A place of the same labels goes on where another stopped, until it is forgotten;
// who still has one that was forgotten brings nothing back.
func TestSeriesGoOnUntilForgotten(t *testing.T) {
	r := prometheus.NewRegistry()
	m := New(r)
	s := m.Series("e", "v", "control")
	s.Add(scorer.OK, time.Second, 0)
	m.Series("e", "v", "control").Add(scorer.OK, time.Second, 0)
	m.Refused("e").Add(scorer.NotFound)
	want := func(text string) {
		t.Helper()
		if err := testutil.GatherAndCompare(r, strings.NewReader(text), "sluice_requests_total", "sluice_refused_total"); err != nil {
			t.Error(err)
		}
	}
	want(`
# HELP sluice_refused_total Requests that reached no version, by reason; endpoint is empty where it is unknown.
# TYPE sluice_refused_total counter
sluice_refused_total{endpoint="e",status="NotFound"} 1
# HELP sluice_requests_total Requests that were assigned to a version, by how they ended.
# TYPE sluice_requests_total counter
sluice_requests_total{endpoint="e",status="OK",variant="control",version="v"} 2
`)
	m.Forget("e", "v", "control")
	m.ForgetEndpoint("e")
	s.Add(scorer.OK, time.Second, 0)
	want("")
}

func TestAddDoesNotAllocate(t *testing.T) {
	s := New(prometheus.NewRegistry()).Series("e", "v", "default")
	if n := testing.AllocsPerRun(1000, func() { s.Add(scorer.OK, time.Millisecond, 0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAdd(b *testing.B) {
	s := New(prometheus.NewRegistry()).Series("e", "v", "default")
	for b.Loop() {
		s.Add(scorer.OK, time.Millisecond, 10*time.Microsecond)
	}
}

func BenchmarkLibrarysObserve(b *testing.B) {
	h := prometheus.NewHistogram(histogram("h", "", seconds.classic))
	for b.Loop() {
		h.Observe(1e-3)
	}
}
