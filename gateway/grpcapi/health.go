package grpcapi

import (
	"context"
	"time"

	"google.golang.org/grpc"
	pb "google.golang.org/grpc/health/grpc_health_v1"
)

// health is gRPC's health service. Like Triton's it answers for the server, whatever
// the service that is asked for.
type health struct {
	pb.UnimplementedHealthServer
	s *Server
}

// noticed is how late a watcher may hear that the server is, or is no longer, ready;
// that it drains it hears at once.
const noticed = time.Second

func (h health) status() pb.HealthCheckResponse_ServingStatus {
	if h.s.draining() || !h.s.path.Snapshot().Ready() {
		return pb.HealthCheckResponse_NOT_SERVING
	}
	return pb.HealthCheckResponse_SERVING
}

// Check implements grpc.health.v1.
func (h health) Check(context.Context, *pb.HealthCheckRequest) (*pb.HealthCheckResponse, error) {
	return &pb.HealthCheckResponse{Status: h.status()}, nil
}

// Watch implements grpc.health.v1.
func (h health) Watch(_ *pb.HealthCheckRequest, stream grpc.ServerStreamingServer[pb.HealthCheckResponse]) error {
	tick := time.NewTicker(noticed)
	defer tick.Stop()
	drain, told := h.s.drain, pb.HealthCheckResponse_UNKNOWN
	for {
		if now := h.status(); now != told {
			if err := stream.Send(&pb.HealthCheckResponse{Status: now}); err != nil {
				return err
			}
			told = now
		}
		select {
		case <-tick.C:
		case <-drain:
			drain = nil // is heard once
		case <-h.s.stop:
			return errStopping
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
