package gateway

import (
	"github.com/prometheus/client_golang/prometheus"

	"sluice.dev/gateway/balance"
)

var (
	version = []string{"endpoint", "version"}

	descSlots    = prometheus.NewDesc("sluice_slots", "Requests that may be in flight at the version's replicas.", version, nil)
	descBusy     = prometheus.NewDesc("sluice_in_flight", "Requests that are in flight at the version's replicas.", version, nil)
	descQueue    = prometheus.NewDesc("sluice_queued", "Requests that wait for a slot of the version.", version, nil)
	descReplicas = prometheus.NewDesc("sluice_replicas", "Replicas of the version: in service, left out because they failed, or recovering from that.", append(version[:2:2], "state"), nil)
	descEjected  = prometheus.NewDesc("sluice_ejections_total", "Replicas that were left out because they failed while others did not.", version, nil)
	descRetries  = prometheus.NewDesc("sluice_retries_total", "Requests that were sent again, since their work had not begun.", version, nil)
	descShed     = prometheus.NewDesc("sluice_shed_total", "Requests that got no slot, by reason.", append(version[:2:2], "reason"), nil)
	descGen      = prometheus.NewDesc("sluice_config_generation", "Number of the configuration that requests see.", nil, nil)
)

// Describe implements prometheus.Collector.
func (p *Path) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(p, ch) }

// Collect implements prometheus.Collector: the state of every queue, read when
// it is asked for.
func (p *Path) Collect(ch chan<- prometheus.Metric) {
	s := p.Snapshot()
	ch <- prometheus.MustNewConstMetric(descGen, prometheus.GaugeValue, float64(s.Generation))
	for name, e := range s.endpoints {
		for _, v := range e.Versions {
			v.Pool.collect(ch, name, v.Name)
		}
	}
}

func (p *Pool) collect(ch chan<- prometheus.Metric, labels ...string) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, n float64, more ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, n, append(labels[:2:2], more...)...)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	send(descSlots, prometheus.GaugeValue, float64(p.gate.Slots()))
	send(descBusy, prometheus.GaugeValue, float64(p.gate.Busy()))
	send(descQueue, prometheus.GaugeValue, float64(p.gate.Waiting()))
	var states [3]int
	for _, r := range p.replicas {
		if p.offered(r) > 0 {
			states[r.health.Phase()]++
		}
	}
	for i, n := range states {
		send(descReplicas, prometheus.GaugeValue, float64(n), balance.Phase(i).String())
	}
	send(descEjected, prometheus.CounterValue, float64(p.ejections))
	send(descRetries, prometheus.CounterValue, float64(p.retries))
	for i := range sheds {
		if i != shedNot {
			send(descShed, prometheus.CounterValue, float64(p.sheds[i]), i.String())
		}
	}
}
