package cmd

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	pb "sluice.dev/gateway/grpcapi/inferencepb"
	tfpb "sluice.dev/gateway/grpcapi/tfservingpb"
)

const rows, pixels = 10, 64

// images are ten digits whose numbers are no short decimals.
func images(t *testing.T) []float32 {
	t.Helper()
	var body struct{ Inputs []struct{ Data []float32 } }
	if err := json.Unmarshal(read(t, digits+"requests/ten.json"), &body); err != nil {
		t.Fatal(err)
	}
	data := body.Inputs[0].Data
	for i := range data {
		data[i] = data[i]/1.1 + float32(i)/997
	}
	return data
}

// packed are numbers as bytes, and unpacked bytes as numbers.
func packed(data []float32) (b []byte) {
	for _, v := range data {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

func unpacked(b []byte) (data []float32) {
	for ; len(b) >= 4; b = b[4:] {
		data = append(data, math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	return data
}

// text are rows of numbers as JSON, each with as few digits as tell it from all others.
func text(data []float32) string {
	lines := make([]string, 0, rows)
	for row := range slices.Chunk(data, pixels) {
		texts := make([]string, 0, pixels)
		for _, v := range row {
			texts = append(texts, strconv.FormatFloat(float64(v), 'g', -1, 32))
		}
		lines = append(lines, "["+strings.Join(texts, ",")+"]")
	}
	return "[" + strings.Join(lines, ",") + "]"
}

// numbers are those beneath the key "probabilities", wherever it is in a JSON document.
func numbers(t *testing.T, document []byte) (list []float32) {
	t.Helper()
	var v any
	d := json.NewDecoder(bytes.NewReader(document))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, document)
	}
	var walk func(v any, inside bool)
	walk = func(v any, inside bool) {
		switch v := v.(type) {
		case map[string]any:
			for key, member := range v {
				walk(member, inside || key == "probabilities" || key == "data" && v["name"] == "probabilities")
			}
		case []any:
			for _, element := range v {
				walk(element, inside)
			}
		case json.Number:
			if !inside {
				return
			}
			n, err := strconv.ParseFloat(v.String(), 32)
			if err != nil {
				t.Error(err)
			}
			list = append(list, float32(n))
		}
	}
	walk(v, false)
	return list
}

// asks sends the same images in one way, and gives the probabilities that came back.
type asks func(t *testing.T, data []float32) []float32

// overHTTP are the ways over HTTP.
func overHTTP(base string) map[string]asks {
	post := func(path, body string, header ...string) func(t *testing.T, data []float32) []byte {
		return func(t *testing.T, data []float32) []byte {
			a := must(t, "POST", base+path, []byte(fmt.Sprintf(body, text(data))), append(bearer, header...)...)
			if a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			return a.body
		}
	}
	document := func(path, body string, header ...string) asks {
		ask := post(path, body, header...)
		return func(t *testing.T, data []float32) []float32 { return numbers(t, ask(t, data)) }
	}
	const infer = "/v2/models/digits/versions/mlp/infer"
	return map[string]asks{
		"HTTP JSON": document(infer, `{"inputs":[{"name":"input","shape":[10,64],"datatype":"FP32","data":%s}]}`),
		"KServe v1": document("/v1/models/digits/versions/mlp:predict", `{"instances":%s}`),
		"Azure ML":  document("/api/v1/service/digits/score", `{"data":%s}`, "azureml-model-deployment", "mlp"),
		"HTTP binary": func(t *testing.T, data []float32) []float32 {
			head := `{"inputs":[{"name":"input","shape":[10,64],"datatype":"FP32","parameters":{"binary_data_size":2560}}],"outputs":[{"name":"probabilities","parameters":{"binary_data":true}}]}`
			a := must(t, "POST", base+infer, append([]byte(head), packed(data)...), append(bearer, "Inference-Header-Content-Length", strconv.Itoa(len(head)))...)
			n, err := strconv.Atoi(a.header.Get("Inference-Header-Content-Length"))
			if err != nil || a.status != 200 {
				t.Fatalf("%d %s %v", a.status, a.body, err)
			}
			return unpacked(a.body[n:])
		},
	}
}

// overGRPC are the ways over gRPC.
func overGRPC(ctx context.Context, conn *grpc.ClientConn) map[string]asks {
	call := pb.NewGRPCInferenceServiceClient(conn)
	request := func(data []float32, raw bool) *pb.ModelInferRequest {
		in := &pb.ModelInferRequest_InferInputTensor{Name: "input", Datatype: "FP32", Shape: []int64{rows, pixels}}
		q := &pb.ModelInferRequest{ModelName: "digits", ModelVersion: "mlp", Inputs: []*pb.ModelInferRequest_InferInputTensor{in},
			Outputs: []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "probabilities"}}}
		if raw {
			q.RawInputContents = [][]byte{packed(data)}
		} else {
			in.Contents = &pb.InferTensorContents{Fp32Contents: data}
		}
		return q
	}
	answered := func(t *testing.T, r *pb.ModelInferResponse, err error) []float32 {
		if err != nil {
			t.Fatal(err)
		}
		if len(r.RawOutputContents) > 0 {
			return unpacked(r.RawOutputContents[0])
		}
		return r.Outputs[0].GetContents().GetFp32Contents()
	}
	unary := func(raw bool) asks {
		return func(t *testing.T, data []float32) []float32 {
			r, err := call.ModelInfer(ctx, request(data, raw))
			return answered(t, r, err)
		}
	}
	return map[string]asks{
		"gRPC raw": unary(true), "gRPC contents": unary(false),
		"gRPC stream": func(t *testing.T, data []float32) []float32 {
			s, err := call.ModelStreamInfer(ctx)
			if err == nil {
				err = s.Send(request(data, true))
			}
			if err != nil {
				t.Fatal(err)
			}
			r, err := s.Recv()
			if r.GetErrorMessage() != "" {
				t.Fatal(r.ErrorMessage)
			}
			return answered(t, r.GetInferResponse(), err)
		},
		"TF Serving": func(t *testing.T, data []float32) []float32 {
			shape := &tfpb.TensorShapeProto{Dim: []*tfpb.TensorShapeProto_Dim{{Size: rows}, {Size: pixels}}}
			r, err := tfpb.NewPredictionServiceClient(conn).Predict(ctx, &tfpb.PredictRequest{
				ModelSpec: &tfpb.ModelSpec{Name: "digits", VersionChoice: &tfpb.ModelSpec_VersionLabel{VersionLabel: "mlp"}},
				Inputs:    map[string]*tfpb.TensorProto{"input": {Dtype: tfpb.DataType_DT_FLOAT, TensorShape: shape, FloatVal: data}},
			})
			if err != nil {
				t.Fatal(err)
			}
			return r.Outputs["probabilities"].GetFloatVal()
		},
	}
}

// Whichever way a request comes, the model gets the same numbers and so does the
// client, to the last bit.
func TestEveryProtocolGivesTheSameNumbers(t *testing.T) {
	http, rpc, admin := free(t), free(t), free(t)
	start(t, "sluice", "serve", "--file", digits+"endpoint.yaml", "--http", http, "--grpc", rpc, "--metrics", admin, "--state", t.TempDir(), "--drain-delay", "10ms")
	eventually(t, "ready", ready(admin))
	conn, err := grpc.NewClient(rpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), "authorization", key), time.Minute)
	defer cancel()
	data, ways := images(t), overHTTP("http://"+http)
	want := ways["HTTP binary"](t, data)
	if len(want) != rows*10 {
		t.Fatalf("%d probabilities", len(want))
	}
	for name, ask := range overGRPC(ctx, conn) {
		ways[name] = ask
	}
	for name, ask := range ways {
		t.Run(name, func(t *testing.T) {
			if got := ask(t, data); !bytes.Equal(packed(got), packed(want)) {
				t.Errorf("answered\n%v\nwant\n%v", got, want)
			}
		})
	}
}
