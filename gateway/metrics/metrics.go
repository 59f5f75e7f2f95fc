// Package metrics counts requests for Prometheus without a look-up per request.
package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice.dev/scorer"
)

// Metrics are the request metrics of a process. Label sets are bounded by the
// configuration: endpoint, version, variant and status.
type Metrics struct {
	requests *prometheus.CounterVec
	refused  *prometheus.CounterVec
	duration *prometheus.HistogramVec
	queue    *prometheus.HistogramVec
	mirrors  mirrors
}

// New makes the metrics and registers them.
func New(r prometheus.Registerer) *Metrics {
	version := []string{"endpoint", "version", "variant"}
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_requests_total", Help: "Requests that were assigned to a version, by how they ended.",
		}, append(version[:3:3], "status")),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_refused_total", Help: "Requests that reached no version, by reason; endpoint is empty where it is unknown.",
		}, []string{"endpoint", "status"}),
		duration: prometheus.NewHistogramVec(seconds("sluice_request_duration_seconds",
			"From a request's arrival to its answer."), version),
		queue: prometheus.NewHistogramVec(seconds("sluice_queue_duration_seconds",
			"Waiting of a request: for a slot at the gateway, and for a device at the scorer."), version),
	}
	r.MustRegister(m.requests, m.refused, m.duration, m.queue)
	m.mirrors = newMirrors(r)
	return m
}

// seconds describes a histogram of durations, classic from 50 µs to a minute.
func seconds(name, help string) prometheus.HistogramOpts {
	return histogram(name, help, prometheus.ExponentialBucketsRange(50e-6, 60, 18))
}

// histogram describes one with classic buckets, and native ones of 10% each.
func histogram(name, help string, classic []float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: classic,
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  160,
		NativeHistogramMinResetDuration: time.Hour,
	}
}

// Series are the metrics of one version. The zero of it, nil, counts nothing.
type Series struct {
	metrics  *Metrics
	labels   []string
	counters [scorer.Statuses]atomic.Pointer[prometheus.Counter] // bound when first needed
	times    atomic.Pointer[times]
}

type times struct{ duration, queue prometheus.Observer }

// Series is the place where one version is counted; it goes on counting where
// another of the same labels stopped.
func (m *Metrics) Series(endpoint, version, variant string) *Series {
	return &Series{metrics: m, labels: []string{endpoint, version, variant}}
}

// Add counts a request that ended with status after total, of which it waited
// for queue.
func (s *Series) Add(status scorer.Status, total, queue time.Duration) {
	if s == nil {
		return
	}
	c := s.counters[status].Load()
	if c == nil {
		c = s.bind(status)
	}
	(*c).Inc()
	t := s.times.Load()
	t.duration.Observe(total.Seconds())
	t.queue.Observe(queue.Seconds())
}

func (s *Series) bind(status scorer.Status) *prometheus.Counter {
	if s.times.Load() == nil {
		s.times.Store(&times{s.metrics.duration.WithLabelValues(s.labels...), s.metrics.queue.WithLabelValues(s.labels...)})
	}
	c := s.metrics.requests.WithLabelValues(append(s.labels[:3:3], status.String())...)
	s.counters[status].Store(&c)
	return &c
}

// Forget drops the series of a version that is no more.
func (m *Metrics) Forget(endpoint, version, variant string) {
	labels := prometheus.Labels{"endpoint": endpoint, "version": version, "variant": variant}
	m.requests.DeletePartialMatch(labels)
	m.duration.DeletePartialMatch(labels)
	m.queue.DeletePartialMatch(labels)
}

// Refused counts requests that reached no version.
func (m *Metrics) Refused() *Refused { return (*Refused)(m) }

// Refused is the part of Metrics that a path needs for those. Nil counts nothing.
type Refused Metrics

// Add counts one; endpoint is empty where it is unknown.
func (r *Refused) Add(endpoint string, status scorer.Status) {
	if r != nil {
		r.refused.WithLabelValues(endpoint, status.String()).Inc()
	}
}
