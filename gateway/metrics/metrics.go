// Package metrics counts requests for Prometheus without a look-up per request.
package metrics

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice.dev/scorer"
)

// Metrics are the request metrics of a process. Label sets are bounded by the
// configuration: endpoint, version, variant and status. What was never counted has
// no series. Safe for concurrent use.
type Metrics struct {
	mirrors mirrors

	mu      sync.Mutex
	served  map[labels]*served
	refused map[string]*statuses
}

// labels name the series of one version.
type labels struct{ endpoint, version, variant string }

var (
	version = []string{"endpoint", "version", "variant"}

	descRequests = prometheus.NewDesc("sluice_requests_total", "Requests that were assigned to a version, by how they ended.", append(version[:3:3], "status"), nil)
	descRefused  = prometheus.NewDesc("sluice_refused_total", "Requests that reached no version, by reason; endpoint is empty where it is unknown.", []string{"endpoint", "status"}, nil)
	descDuration = prometheus.NewDesc("sluice_request_duration_seconds", "From a request's arrival to its answer.", version, nil)
	descQueue    = prometheus.NewDesc("sluice_queue_duration_seconds", "Waiting of a request: for a slot at the gateway, and for a device at the scorer.", version, nil)

	// seconds are from 50 µs to a minute.
	seconds = Seconds(prometheus.ExponentialBucketsRange(50e-6, 60, 18))
)

// New makes the metrics and registers them.
func New(r prometheus.Registerer) *Metrics {
	m := &Metrics{mirrors: newMirrors(r), served: map[labels]*served{}, refused: map[string]*statuses{}}
	r.MustRegister(m)
	return m
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descRequests, descRefused, descDuration, descQueue} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	served, refused := maps.Clone(m.served), maps.Clone(m.refused) // requests do not wait for who reads
	m.mu.Unlock()
	for l, s := range served {
		names := []string{l.endpoint, l.version, l.variant}
		s.ended.collect(ch, descRequests, names)
		ch <- s.duration.Metric(descDuration, names...)
		ch <- s.queue.Metric(descQueue, names...)
	}
	for endpoint, r := range refused {
		r.collect(ch, descRefused, []string{endpoint})
	}
}

// statuses counts by status.
type statuses [scorer.Statuses]atomic.Uint64

func (s *statuses) collect(ch chan<- prometheus.Metric, d *prometheus.Desc, names []string) {
	for status := range s {
		if n := s[status].Load(); n > 0 {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), append(slices.Clip(names), scorer.Status(status).String())...)
		}
	}
}

// served is what was counted of one version.
type served struct {
	ended           statuses
	duration, queue Histogram
}

// Series are the metrics of one version. The zero of it, nil, counts nothing.
type Series struct {
	metrics *Metrics
	labels  labels
	counts  atomic.Pointer[served] // bound when first needed
}

// Series is the place where one version is counted; it goes on counting where
// another of the same labels stopped.
func (m *Metrics) Series(endpoint, version, variant string) *Series {
	return &Series{metrics: m, labels: labels{endpoint, version, variant}}
}

// Add counts a request that ended with status after total, of which it waited
// for queue.
func (s *Series) Add(status scorer.Status, total, queue time.Duration) {
	if s == nil {
		return
	}
	c := s.counts.Load()
	if c == nil {
		c = s.bind()
	}
	c.ended[status].Add(1)
	c.duration.Observe(total.Seconds())
	c.queue.Observe(queue.Seconds())
}

func (s *Series) bind() *served {
	m := s.metrics
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.served[s.labels]
	if c == nil {
		c = &served{duration: Histogram{buckets: seconds}, queue: Histogram{buckets: seconds}}
		m.served[s.labels] = c
	}
	s.counts.Store(c)
	return c
}

// Forget drops the series of a version that is no more: no request has it.
func (m *Metrics) Forget(endpoint, version, variant string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.served, labels{endpoint, version, variant})
}

// Refused counts an endpoint's requests that reached no version. Nil counts nothing.
type Refused struct {
	metrics  *Metrics
	endpoint string
	counts   atomic.Pointer[statuses] // bound when first needed
}

// Refused is the place where such requests are counted, going on as Series does.
// The endpoint is empty where it is unknown.
func (m *Metrics) Refused(endpoint string) *Refused {
	return &Refused{metrics: m, endpoint: endpoint}
}

// Add counts one.
func (r *Refused) Add(status scorer.Status) {
	if r == nil {
		return
	}
	c := r.counts.Load()
	if c == nil {
		c = r.bind()
	}
	c[status].Add(1)
}

func (r *Refused) bind() *statuses {
	m := r.metrics
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.refused[r.endpoint]
	if c == nil {
		c = &statuses{}
		m.refused[r.endpoint] = c
	}
	r.counts.Store(c)
	return c
}

// ForgetEndpoint drops what was refused by an endpoint that is no more.
func (m *Metrics) ForgetEndpoint(endpoint string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.refused, endpoint)
}
