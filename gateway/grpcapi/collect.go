package grpcapi

import "github.com/prometheus/client_golang/prometheus"

var (
	descReceiving     = prometheus.NewDesc("sluice_grpc_receiving_bytes", "Bytes of messages over gRPC that have not come to their end.", nil, nil)
	descMostReceiving = prometheus.NewDesc("sluice_grpc_receiving_bytes_limit", "Bytes of unfinished messages over gRPC that there may be at a time.", nil, nil)
	descEnded         = prometheus.NewDesc("sluice_grpc_connections_ended_total", "Connections over gRPC that were closed because unfinished messages had too many bytes.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *Server) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(s, ch) }

// Collect implements prometheus.Collector.
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(descReceiving, prometheus.GaugeValue, float64(s.receipts.sum.Load()))
	ch <- prometheus.MustNewConstMetric(descMostReceiving, prometheus.GaugeValue, float64(s.receipts.most))
	ch <- prometheus.MustNewConstMetric(descEnded, prometheus.CounterValue, float64(s.receipts.ended.Load()))
}
