package cmd

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	pb "sluice.dev/gateway/grpcapi/inferencepb"
)

// over calls a process over gRPC with the key.
func over(t *testing.T, address string) (pb.GRPCInferenceServiceClient, context.Context) {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), "authorization", key), time.Minute)
	t.Cleanup(func() {
		cancel()
		_ = conn.Close()
	})
	return pb.NewGRPCInferenceServiceClient(conn), ctx
}

// digit asks the mlp for the image of the example.
func digit(t *testing.T, id string) *pb.ModelInferRequest {
	t.Helper()
	var body struct{ Inputs []struct{ Data []float32 } }
	if err := json.Unmarshal(read(t, digits+"requests/one.json"), &body); err != nil {
		t.Fatal(err)
	}
	var data []byte
	for _, v := range body.Inputs[0].Data {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return &pb.ModelInferRequest{
		ModelName: "digits", ModelVersion: "mlp", Id: id, RawInputContents: [][]byte{data},
		Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "input", Datatype: "FP32", Shape: []int64{1, 64}}},
	}
}

// In one process and in two, an answer over gRPC is that over HTTP, and a process that
// ends answers what it has.
func TestGRPC(t *testing.T) {
	shapes := map[string]func(t *testing.T, flags ...string) *process{
		"one process": func(t *testing.T, flags ...string) *process {
			return start(t, "sluice", append([]string{"serve", "--file", digits + "endpoint.yaml"}, flags...)...)
		},
		"two processes": func(t *testing.T, flags ...string) *process {
			lane := "unix://" + filepath.Join(t.TempDir(), "lane")
			start(t, "scorer", "--file", digits+"endpoint.yaml", "--listen", lane, "--metrics", "")
			return start(t, "gateway", append([]string{"--file", digits + "endpoint.yaml", "--scorer", lane}, flags...)...)
		},
	}
	for name, run := range shapes {
		t.Run(name, func(t *testing.T) {
			http, rpc, admin := free(t), free(t), free(t)
			p := run(t, "--http", http, "--grpc", rpc, "--metrics", admin, "--state", t.TempDir(), "--drain-delay", "10ms")
			eventually(t, "ready", ready(admin))
			client, ctx := over(t, rpc)
			resp, err := client.ModelInfer(ctx, digit(t, "7"))
			if err != nil {
				t.Fatal(err)
			}
			a, err := call("POST", "http://"+http+"/v2/models/digits/versions/mlp/infer", read(t, digits+"requests/one.json"), bearer...)
			if err != nil {
				t.Fatal(err)
			}
			var want oip
			if err := json.Unmarshal(a.body, &want); err != nil {
				t.Fatalf("%v: %s", err, a.body)
			}
			label := binary.LittleEndian.Uint64(resp.RawOutputContents[0])
			if resp.Id != "7" || resp.ModelVersion != "mlp" || fmt.Sprint(label) != want.Outputs[0].Data[0].String() {
				t.Errorf("answered %v; HTTP answered %s", resp, a.body)
			}
			drains(t, p, client, ctx)
		})
	}
}

// drains stops p while a stream is open: the stream is told.
func drains(t *testing.T, p *process, client pb.GRPCInferenceServiceClient, ctx context.Context) {
	t.Helper()
	s, err := client.ModelStreamInfer(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(digit(t, "8")); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Recv(); err != nil || r.InferResponse.GetId() != "8" {
		t.Fatal(r, err)
	}
	p.stop()
	if _, err := s.Recv(); err == nil || err == io.EOF {
		t.Errorf("the stream ended with %v", err)
	}
}
