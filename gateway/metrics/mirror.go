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
		duration:     prometheus.NewHistogramVec(seconds("sluice_mirror_duration_seconds", "From the sending of a copy to its answer."), version),
		absolute:     difference("sluice_mirror_absolute_difference", "The largest absolute difference of an answer to its copy's."),
		relative:     difference("sluice_mirror_relative_difference", "The largest difference of an answer to its copy's, relative to the larger number."),
	}
	r.MustRegister(m.answered, m.disagreed, m.dropped, m.incomparable, m.rows, m.flipped, m.duration, m.absolute, m.relative)
	return m
}

// Mirror counts the copies of one endpoint. Nil counts nothing.
type Mirror struct {
	metrics                                *mirrors
	labels                                 []string
	disagreed, incomparable, rows, flipped prometheus.Counter
	duration, absolute, relative           prometheus.Observer
}

// Mirror is the place where copies to a version are counted.
func (m *Metrics) Mirror(endpoint, version string) *Mirror {
	l := []string{endpoint, version}
	all := &m.mirrors
	return &Mirror{
		metrics: all, labels: l,
		disagreed: all.disagreed.WithLabelValues(l...), incomparable: all.incomparable.WithLabelValues(l...),
		rows: all.rows.WithLabelValues(l...), flipped: all.flipped.WithLabelValues(l...),
		duration: all.duration.WithLabelValues(l...), absolute: all.absolute.WithLabelValues(l...), relative: all.relative.WithLabelValues(l...),
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
	m.duration.Observe(took.Seconds())
	if !agreed {
		m.disagreed.Inc()
	}
}

// Incomparable counts two answers that have not the same outputs.
func (m *Mirror) Incomparable() {
	if m != nil {
		m.incomparable.Inc()
	}
}

// Differ counts how far two answers are from each other.
func (m *Mirror) Differ(absolute, relative float64, rows, flipped int) {
	if m == nil {
		return
	}
	const most = 1e9 // so that sums stay finite
	m.absolute.Observe(min(absolute, most))
	m.relative.Observe(min(relative, most))
	m.rows.Add(float64(rows))
	m.flipped.Add(float64(flipped))
}
