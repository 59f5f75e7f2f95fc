package grpcapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	pb "sluice.dev/gateway/grpcapi/inferencepb"
	"sluice.dev/scorer"
)

// The benchmarks measure a server's CPU time per request, in a process of its own:
// this test binary, called again with the name of what it is to serve.
const benchServer = "GRPCAPI_BENCH_SERVER"

// canned answers with what the generated code made before.
type canned struct{ body []byte }

func (c canned) Score(_ *scorer.Request, resp *scorer.Response) {
	resp.Body = append(resp.Body[:0], c.body...)
}

// echoServer is a server of the generated code that does nothing.
type echoServer struct {
	pb.UnimplementedGRPCInferenceServiceServer
	answer *pb.ModelInferResponse
}

func (e echoServer) ModelInfer(context.Context, *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
	return e.answer, nil
}

func benchAnswer() *pb.ModelInferResponse {
	return &pb.ModelInferResponse{
		ModelName: "e", ModelVersion: "v", Id: "1", RawOutputContents: [][]byte{make([]byte, 8), make([]byte, 40)},
		Outputs: []*pb.ModelInferResponse_InferOutputTensor{
			{Name: "label", Datatype: "INT64", Shape: []int64{1}}, {Name: "probabilities", Datatype: "FP32", Shape: []int64{1, 10}},
		},
	}
}

// TestBenchServer is no test: it is the process that benchmarks measure. It serves
// until its input ends, and tells its CPU time for every line that it reads.
func TestBenchServer(t *testing.T) {
	what := os.Getenv(benchServer)
	if what == "" {
		t.Skip("not a test: benchmarks start it in a process of its own, with " + benchServer + " set")
	}
	address := ""
	if what == "sluice" {
		body, err := proto.Marshal(benchAnswer())
		if err != nil {
			t.Fatal(err)
		}
		address = open(t, Config{}, canned{body}).address
	} else {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer()
		pb.RegisterGRPCInferenceServiceServer(s, echoServer{answer: benchAnswer()})
		go s.Serve(l)
		defer s.Stop()
		address = l.Addr().String()
	}
	fmt.Println(address)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		fmt.Println(u.Utime.Nano() + u.Stime.Nano())
	}
}

// measured is a server in a process of its own.
type measured struct {
	call pb.GRPCInferenceServiceClient
	in   io.Writer
	out  *bufio.Reader
}

func measure(b *testing.B, what string) *measured {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestBenchServer$")
	cmd.Env = append(os.Environ(), benchServer+"="+what)
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	m := &measured{in: in, out: bufio.NewReader(out)}
	address, err := m.out.ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	conn, err := grpc.NewClient(strings.TrimSpace(address), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	m.call = pb.NewGRPCInferenceServiceClient(conn)
	b.Cleanup(func() {
		_ = conn.Close()
		_ = in.Close()
		_, _ = io.Copy(io.Discard, m.out)
		_ = cmd.Wait()
	})
	return m
}

// cpu is the server's CPU time until now.
func (m *measured) cpu(b *testing.B) time.Duration {
	if _, err := fmt.Fprintln(m.in); err != nil {
		b.Fatal(err)
	}
	line, err := m.out.ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return time.Duration(n)
}

func benchRequest() *pb.ModelInferRequest {
	return &pb.ModelInferRequest{
		ModelName: "e", Id: "1", RawInputContents: [][]byte{make([]byte, 256)},
		Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "input", Datatype: "FP32", Shape: []int64{1, 64}}},
	}
}

const atATime = 32 // requests in flight

// BenchmarkUnary compares the front with an empty server of the generated code. The
// two take turns in one run; the metric is the server's CPU time per request.
func BenchmarkUnary(b *testing.B) {
	for _, what := range []string{"echo", "sluice", "echo again", "sluice again"} {
		b.Run(what, func(b *testing.B) {
			m := measure(b, strings.Fields(what)[0])
			unaries(b, m, 2000) // warm
			before := m.cpu(b)
			b.ResetTimer()
			unaries(b, m, b.N)
			b.StopTimer()
			b.ReportMetric(float64(m.cpu(b)-before)/float64(b.N), "server-ns/op")
		})
	}
}

// unaries makes n calls.
func unaries(b *testing.B, m *measured, n int) {
	var wg sync.WaitGroup
	for i := range atATime {
		wg.Go(func() {
			q := benchRequest()
			for range (n + i) / atATime {
				if _, err := m.call.ModelInfer(context.Background(), q); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkStream is as many requests in flight on one stream.
func BenchmarkStream(b *testing.B) {
	m := measure(b, "sluice")
	streams(b, m, 2000)
	before := m.cpu(b)
	b.ResetTimer()
	streams(b, m, b.N)
	b.StopTimer()
	b.ReportMetric(float64(m.cpu(b)-before)/float64(b.N), "server-ns/op")
}

func streams(b *testing.B, m *measured, n int) {
	s, err := m.call.ModelStreamInfer(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	places := make(chan struct{}, atATime)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range n {
			r, err := s.Recv()
			if err != nil || r.ErrorMessage != "" {
				b.Error(r, err)
				return
			}
			<-places
		}
	})
	q := benchRequest()
	for range n {
		places <- struct{}{}
		if err := s.Send(q); err != nil {
			b.Fatal(err)
		}
	}
	wg.Wait()
	_ = s.CloseSend()
	if _, err := s.Recv(); err != io.EOF {
		b.Error(err)
	}
}
