package serve

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice.dev/deploy/spec"
	"sluice.dev/scorer/batch"
	"sluice.dev/scorer/model"
)

// batchMetrics count the runs of models.
type batchMetrics struct {
	rows   *prometheus.HistogramVec
	device *prometheus.HistogramVec
}

func newBatchMetrics(r prometheus.Registerer) *batchMetrics {
	version := []string{"endpoint", "version"}
	m := &batchMetrics{
		rows: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sluice_batch_rows", Help: "Rows of a run.", Buckets: prometheus.ExponentialBuckets(1, 2, 11),
		}, version),
		device: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sluice_device_duration_seconds", Help: "Time of a run on its device.",
			Buckets: prometheus.ExponentialBucketsRange(2e-6, 60, 20), NativeHistogramBucketFactor: 1.1,
			NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
		}, version),
	}
	r.MustRegister(m.rows, m.device)
	return m
}

// runs observes the runs of one version.
type runs struct{ rows, device prometheus.Observer }

func (m *batchMetrics) observer(k model.Key) batch.Observer {
	return runs{m.rows.WithLabelValues(k.Endpoint, k.Version), m.device.WithLabelValues(k.Endpoint, k.Version)}
}

// Ran implements batch.Observer.
func (r runs) Ran(run batch.Run) {
	r.rows.Observe(float64(run.Rows))
	r.device.Observe(run.Infer.Seconds())
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
