package gateway

import "github.com/prometheus/client_golang/prometheus"

var (
	version = []string{"endpoint", "version"}

	descSlots = prometheus.NewDesc("sluice_slots", "Requests that may be in flight at the version's replicas.", version, nil)
	descBusy  = prometheus.NewDesc("sluice_in_flight", "Requests that are in flight at the version's replicas.", version, nil)
	descQueue = prometheus.NewDesc("sluice_queued", "Requests that wait for a slot of the version.", version, nil)
	descGen   = prometheus.NewDesc("sluice_config_generation", "Number of the configuration that requests see.", nil, nil)
)

// Describe implements prometheus.Collector.
func (p *Path) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(p, ch) }

// Collect implements prometheus.Collector: the state of every queue, read when
// it is asked for.
func (p *Path) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	s := p.Snapshot()
	gauge(descGen, int(s.Generation))
	for name, e := range s.endpoints {
		for _, v := range e.Versions {
			slots, busy, waiting := v.Pool.Load()
			gauge(descSlots, slots, name, v.Name)
			gauge(descBusy, busy, name, v.Name)
			gauge(descQueue, waiting, name, v.Name)
		}
	}
}
