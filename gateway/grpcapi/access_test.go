package grpcapi

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"

	"sluice.dev/gateway"
)

// A line is written before its answer is sent, so that a client may look for it.
func TestRequestsAreWrittenDown(t *testing.T) {
	var out bytes.Buffer
	call, h := client(t, Config{Access: gateway.AccessLog{Log: slog.New(slog.NewJSONHandler(&out, nil)), Share: 1}}, identity{})
	ctx := metadata.AppendToOutgoingContext(soon(t), "authorization", "Bearer secret", "x-request-id", "17",
		"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	wants := func(want map[string]any) {
		t.Helper()
		var got map[string]any
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatal(err, out.String())
		}
		for key, want := range want {
			if got[key] != want {
				t.Errorf("%s is %v; want %v", key, got[key], want)
			}
		}
		if ms, _ := got["ms"].(float64); ms <= 0 || got["bytes_in"].(float64) <= 0 && want["bytes_in"] == nil || got["remote"] == "" || strings.Contains(out.String(), "secret") {
			t.Errorf("written: %s", out.String())
		}
		out.Reset()
	}
	if _, err := call.ModelInfer(ctx, ask("mine", 1, 2)); err != nil {
		t.Fatal(err)
	}
	served := map[string]any{
		"msg": "request", "request_id": "17", "client_request_id": "mine", "trace_id": "0af7651916cd43dd8448eb211c80319c", "grpc_status": "OK", "reason": "OK",
		"path": "/inference.GRPCInferenceService/ModelInfer", "endpoint": "e", "version": "v",
	}
	wants(served)
	s, err := call.ModelStreamInfer(ctx)
	if err == nil {
		err = s.Send(ask("more", 1))
	}
	if err == nil {
		_, err = s.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	served["path"], served["client_request_id"] = "/inference.GRPCInferenceService/ModelStreamInfer", "more"
	wants(served)
	bad := ask("bad", 1)
	bad.ModelName = "nope"
	if _, err := call.ModelInfer(ctx, bad); err == nil {
		t.Error("served")
	}
	wants(map[string]any{"grpc_status": "NotFound", "client_request_id": "bad", "endpoint": nil})

	if _, err := call.ModelInfer(metadata.AppendToOutgoingContext(ctx, "authorization", "another"), ask("twice", 1)); err == nil {
		t.Error("served")
	}
	wants(map[string]any{"grpc_status": "InvalidArgument", "path": "/inference.GRPCInferenceService/ModelInfer", "bytes_in": 0.0, "bytes_out": 0.0, "version": nil}) // unread

	h.server.config.Access.Share = 0
	if _, err := call.ModelInfer(ctx, ask("", 1)); err != nil || out.Len() > 0 {
		t.Errorf("with a share of 0: %v, %s", err, out.String())
	}
}
