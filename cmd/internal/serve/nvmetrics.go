package serve

import (
	"github.com/prometheus/client_golang/prometheus"

	"sluice.dev/gateway"
	"sluice.dev/scorer"
	"sluice.dev/scorer/model"
)

// nvMetrics are what models do under the names that Triton has for it, read when
// they are asked for.
type nvMetrics struct {
	set  *model.Set
	path *gateway.Path // of which the queues count, too; nil where that is another process's
}

func nvDesc(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc("nv_"+name, help, append([]string{"model", "version"}, more...), nil)
}

var (
	nvSuccess  = nvDesc("inference_request_success", "Requests that got an answer of the model.")
	nvFailure  = nvDesc("inference_request_failure", "Requests that got none, by reason.", "reason")
	nvCount    = nvDesc("inference_count", "Rows that were scored.")
	nvRuns     = nvDesc("inference_exec_count", "Runs of the model.")
	nvRequest  = nvDesc("inference_request_duration_us", "Time of requests, in sum, in microseconds.")
	nvQueue    = nvDesc("inference_queue_duration_us", "Time that requests waited for a device, in sum, in microseconds.")
	nvInput    = nvDesc("inference_compute_input_duration_us", "Time for gathering inputs, in sum over requests, in microseconds.")
	nvInfer    = nvDesc("inference_compute_infer_duration_us", "Time of runs, in sum over requests, in microseconds.")
	nvOutput   = nvDesc("inference_compute_output_duration_us", "Time for handing out outputs, in sum over requests, in microseconds.")
	nvPending  = nvDesc("inference_pending_request_count", "Requests that wait.")
	nvLoadTime = nvDesc("model_load_duration_secs", "Time that loading took, in seconds.")
)

// Describe implements prometheus.Collector.
func (m nvMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{nvSuccess, nvFailure, nvCount, nvRuns, nvRequest, nvQueue, nvInput, nvInfer, nvOutput, nvPending, nvLoadTime} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m nvMetrics) Collect(ch chan<- prometheus.Metric) {
	for k, v := range m.set.Serving() {
		put := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, more ...string) {
			ch <- prometheus.MustNewConstMetric(d, kind, value, append([]string{k.Endpoint, k.Version}, more...)...)
		}
		s := v.Statistics()
		r := &s.Requests
		put(nvSuccess, prometheus.CounterValue, float64(r.Success.Count))
		for reason := range scorer.FailureReasons {
			put(nvFailure, prometheus.CounterValue, float64(s.Failures[reason]), reason.String())
		}
		put(nvCount, prometheus.CounterValue, float64(s.Inferences))
		put(nvRuns, prometheus.CounterValue, float64(s.Executions))
		for d, total := range map[*prometheus.Desc]scorer.Total{nvRequest: r.Success, nvQueue: r.Queue, nvInput: r.Input, nvInfer: r.Infer, nvOutput: r.Output} {
			put(d, prometheus.CounterValue, float64(total.Nanos/1000))
		}
		put(nvPending, prometheus.GaugeValue, float64(v.Waiting()+m.queued(k)))
		put(nvLoadTime, prometheus.GaugeValue, v.Loading().Seconds())
	}
}

// queued is how many requests wait for a slot of a version.
func (m nvMetrics) queued(k model.Key) int {
	if m.path == nil {
		return 0
	}
	e := m.path.Snapshot().Endpoint([]byte(k.Endpoint))
	if e == nil {
		return 0
	}
	v := e.Find([]byte(k.Version))
	if v == nil {
		return 0
	}
	_, _, waiting := v.Pool.Load()
	return waiting
}
