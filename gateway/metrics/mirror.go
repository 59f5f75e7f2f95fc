package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice.dev/scorer"
)

// mirrors are the metrics of copies that are sent to one more version.
type mirrors struct {
	answered, disagreed, dropped, incomparable, rows, flipped *prometheus.CounterVec
	duration, absolute, relative                              *prometheus.HistogramVec
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

// newMirrors makes and registers them. The version is the one that gets the copies.
func newMirrors(r prometheus.Registerer) mirrors {
	version := []string{"endpoint", "version"}
	counter := func(name, help string, more ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append(version[:2:2], more...))
	}
	difference := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(histogram(name, help, prometheus.ExponentialBuckets(1e-9, 10, 13)), version)
	}
	m := mirrors{
		answered:     counter("sluice_mirrored_total", "Copies that were sent to a mirror, by how they ended.", "status"),
		disagreed:    counter("sluice_mirror_status_disagreements_total", "Copies that ended otherwise than their requests."),
		dropped:      counter("sluice_mirror_dropped_total", "Copies that were not sent, by reason.", "reason"),
		incomparable: counter("sluice_mirror_incomparable_total", "Copies whose answers have other outputs than those of their requests."),
		rows:         counter("sluice_mirror_rows_total", "Rows whose first choices were compared."),
		flipped:      counter("sluice_mirror_top1_disagreements_total", "Rows whose first choices differ."),
		duration:     prometheus.NewHistogramVec(histogram("sluice_mirror_duration_seconds", "From the sending of a copy to its answer.", seconds.classic), version),
		absolute:     difference("sluice_mirror_absolute_difference", "The largest absolute difference of an answer to its copy's."),
		relative:     difference("sluice_mirror_relative_difference", "The largest difference of an answer to its copy's, relative to the larger number."),
	}
	r.MustRegister(m.answered, m.disagreed, m.dropped, m.incomparable, m.rows, m.flipped, m.duration, m.absolute, m.relative)
	return m
}

// Mirror counts the copies of one endpoint. Nil counts nothing. Series are there
// once they have counted: copies may be looked up, they are in nobody's way.
type Mirror struct {
	metrics *mirrors
	labels  []string
}

// Mirror is the place where copies to a version are counted.
func (m *Metrics) Mirror(endpoint, version string) *Mirror {
	return &Mirror{metrics: &m.mirrors, labels: []string{endpoint, version}}
}

// Forget drops the series of a mirror that is no more: nobody counts there.
func (m *Mirror) Forget() {
	if m == nil {
		return
	}
	all, l := m.metrics, m.labels
	for status := range scorer.Statuses {
		all.answered.DeleteLabelValues(l[0], l[1], scorer.Status(status).String())
	}
	for _, reason := range []string{QueueFull, TooLarge} {
		all.dropped.DeleteLabelValues(l[0], l[1], reason)
	}
	for _, c := range []*prometheus.CounterVec{all.disagreed, all.incomparable, all.rows, all.flipped} {
		c.DeleteLabelValues(l...)
	}
	for _, h := range []*prometheus.HistogramVec{all.duration, all.absolute, all.relative} {
		h.DeleteLabelValues(l...)
	}
}

// Reasons for which a copy is not sent.
const (
	QueueFull = "queue_full"
	TooLarge  = "too_large"
)

// Drop counts a copy that was not sent.
func (m *Mirror) Drop(reason string) {
	if m != nil {
		m.metrics.dropped.WithLabelValues(m.labels[0], m.labels[1], reason).Inc()
	}
}

// Answered counts a copy that ended with status after took; agreed says that its
// request ended so, too.
func (m *Mirror) Answered(status scorer.Status, took time.Duration, agreed bool) {
	if m == nil {
		return
	}
	m.metrics.answered.WithLabelValues(m.labels[0], m.labels[1], status.String()).Inc()
	m.metrics.duration.WithLabelValues(m.labels...).Observe(took.Seconds())
	if !agreed {
		m.metrics.disagreed.WithLabelValues(m.labels...).Inc()
	}
}

// Incomparable counts two answers that have not the same outputs.
func (m *Mirror) Incomparable() {
	if m != nil {
		m.metrics.incomparable.WithLabelValues(m.labels...).Inc()
	}
}

// Differ counts how far two answers are from each other.
func (m *Mirror) Differ(absolute, relative float64, rows, flipped int) {
	if m == nil {
		return
	}
	const most = 1e9 // so that sums stay finite
	all := m.metrics
	all.absolute.WithLabelValues(m.labels...).Observe(min(absolute, most))
	all.relative.WithLabelValues(m.labels...).Observe(min(relative, most))
	all.rows.WithLabelValues(m.labels...).Add(float64(rows))
	all.flipped.WithLabelValues(m.labels...).Add(float64(flipped))
}
