package serve

import (
	"encoding/json"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice.dev/deploy/spec"
	"sluice.dev/gateway/metrics"
	"sluice.dev/scorer/batch"
	"sluice.dev/scorer/model"
)

// batchMetrics count the runs of models. Safe for concurrent use.
type batchMetrics struct {
	served func() map[model.Key]*model.Version // others are forgotten when next read

	mu   sync.Mutex
	runs map[model.Key]*runs // of versions that ran
}

var (
	descBatchRows = prometheus.NewDesc("sluice_batch_rows", "Rows of a run.", []string{"endpoint", "version"}, nil)
	descDevice    = prometheus.NewDesc("sluice_device_duration_seconds", "Time of a run on its device.", []string{"endpoint", "version"}, nil)

	rowBuckets    = metrics.Counts(prometheus.ExponentialBuckets(1, 2, 11))
	deviceBuckets = metrics.Seconds(prometheus.ExponentialBucketsRange(2e-6, 60, 20))
)

// Describe implements prometheus.Collector.
func (m *batchMetrics) Describe(ch chan<- *prometheus.Desc) { ch <- descBatchRows; ch <- descDevice }

// Collect implements prometheus.Collector.
func (m *batchMetrics) Collect(ch chan<- prometheus.Metric) {
	served := m.served()
	m.mu.Lock()
	maps.DeleteFunc(m.runs, func(k model.Key, _ *runs) bool { return served[k] == nil })
	all := maps.Clone(m.runs)
	m.mu.Unlock()
	for k, r := range all {
		ch <- r.rows.Metric(descBatchRows, k.Endpoint, k.Version)
		ch <- r.device.Metric(descDevice, k.Endpoint, k.Version)
	}
}

func (m *batchMetrics) observer(k model.Key) batch.Observer {
	return &observer{metrics: m, key: k}
}

// observer observes the runs of one version.
type observer struct {
	metrics *batchMetrics
	key     model.Key
	runs    atomic.Pointer[runs] // bound when first needed: most of many versions seldom run
}

type runs struct{ rows, device *metrics.Histogram }

// Ran implements batch.Observer.
func (o *observer) Ran(run batch.Run) {
	r := o.runs.Load()
	if r == nil {
		r = o.bind()
	}
	r.rows.Observe(float64(run.Rows))
	r.device.Observe(run.Infer.Seconds())
}

// bind finds where the version is counted; another of its name may have been there.
func (o *observer) bind() *runs {
	m := o.metrics
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.runs[o.key]
	if r == nil {
		r = &runs{metrics.NewHistogram(rowBuckets), metrics.NewHistogram(deviceBuckets)}
		m.runs[o.key] = r
	}
	o.runs.Store(r)
	return r
}

// policy is what a version sets of its batching; nil if nothing.
func policy(b *spec.Batching) *batch.Policy {
	if b == nil {
		return nil
	}
	p := &batch.Policy{
		Delay:     time.Duration(b.MaxQueueDelayMicroseconds) * time.Microsecond,
		Preferred: b.PreferredBatchSizes,
		Levels:    b.PriorityLevels, DefaultLevel: b.DefaultPriorityLevel,
		Timeout: time.Duration(b.DefaultTimeoutMicroseconds) * time.Microsecond, Override: b.AllowTimeoutOverride,
		Demote: b.TimeoutAction == spec.TimeoutDelay, MaxWaiting: b.MaxQueueSize, Weight: b.Share,
	}
	for _, r := range b.Resources {
		p.Resources = append(p.Resources, batch.Resource(r))
	}
	if len(b.Pad) > 0 {
		p.Pad = map[string]float64{}
	}
	for _, pad := range b.Pad {
		p.Pad[pad.Input] = pad.Value
	}
	return p
}

// keepCosts saves what set learns now and then, until stop is called; the rest is
// saved when set is closed.
func keepCosts(set *model.Set) (stop func()) {
	tick := time.NewTicker(time.Minute)
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-tick.C:
				set.Save()
			case <-end:
				return
			}
		}
	}()
	return func() {
		tick.Stop()
		close(end)
		<-ended
	}
}

// withBatching adds GET /batching to the operators' routes: what is known of what
// runs cost, and why the last batches are as they are.
func withBatching(routes http.Handler, explain func() []model.Explained) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", routes)
	mux.HandleFunc("GET /batching", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(explain()) // whoever asked has gone
	})
	return mux
}
