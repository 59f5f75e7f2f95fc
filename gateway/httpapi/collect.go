package httpapi

import "github.com/prometheus/client_golang/prometheus"

var (
	descConnections = prometheus.NewDesc("sluice_http_connections", "Connections by what they wait for; those that are parked are idle, and keep no buffers.", []string{"state"}, nil)
	descMost        = prometheus.NewDesc("sluice_http_connections_limit", "Connections that there may be at a time.", nil, nil)
	descLate        = prometheus.NewDesc("sluice_http_timeouts_total", "Connections that were ended because they waited for too long, by what for.", []string{"state"}, nil)
	descRefused     = prometheus.NewDesc("sluice_http_refused_total", "Connections that were turned away, and requests that were refused before they reached the request path, by reason.", []string{"reason"}, nil)
	descLarge       = prometheus.NewDesc("sluice_http_large_body_bytes", "Bytes of the large bodies that are being read or served.", nil, nil)
	descMostLarge   = prometheus.NewDesc("sluice_http_large_body_bytes_limit", "Bytes of large bodies that there may be at a time.", nil, nil)
)

// phaseNames are what metrics call a phase. What the watch is about to end is
// still called what it was.
var phaseNames = [phases]string{
	shaking: "handshake", idling: "idle", reading: "reading", serving: "serving", writing: "writing", lingering: "lingering", parked: "parked",
	parking: "idle", ending: "idle", late: "late",
}

var whyNames = [whys]string{
	whyConnections: "connections", whyClient: "client_connections", whyHandshake: "handshake", whyFrame: "frame",
	whyHead: "head_size", whyBody: "body_size", whyLarge: "large_bodies",
}

// Describe implements prometheus.Collector.
func (s *Server) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(s, ch) }

// Collect implements prometheus.Collector: what the connections do just then, and
// what was counted of them.
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, t prometheus.ValueType, n float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, n, labels...)
	}
	for name, n := range s.watch.count() {
		send(descConnections, prometheus.GaugeValue, float64(n), name)
	}
	send(descMost, prometheus.GaugeValue, float64(s.config.MaxConnections))
	for p, limit := range s.watch.limits {
		if limit > 0 && phase(p) != parked { // which is idle
			n := s.watch.late[p].Load()
			if phase(p) == idling {
				n += s.watch.late[parked].Load()
			}
			send(descLate, prometheus.CounterValue, float64(n), phaseNames[p])
		}
	}
	for w := range s.watch.refused {
		send(descRefused, prometheus.CounterValue, float64(s.watch.refused[w].Load()), whyNames[w])
	}
	send(descLarge, prometheus.GaugeValue, float64(s.large.sum.Load()))
	send(descMostLarge, prometheus.GaugeValue, float64(s.large.most))
}

// count is how many connections do what.
func (w *watch) count() map[string]int {
	list := map[string]int{}
	for _, name := range phaseNames {
		list[name] = 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		list[phaseNames[c.phase()]]++
	}
	return list
}
