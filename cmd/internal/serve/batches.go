package serve

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

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
