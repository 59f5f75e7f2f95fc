package httpapi

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/valyala/fasthttp"

	"sluice.dev/accel/tensor"
	"sluice.dev/gateway"
	"sluice.dev/scorer"
)

// parseV1 reads what follows /v1/models:
//
//	[/], /NAME[/versions/VERSION][:predict | :classify | :regress | :explain | /metadata]
func parseV1(rest []byte) target {
	if len(rest) == 0 || string(rest) == "/" {
		return target{op: opModels}
	}
	if rest[0] != '/' {
		return target{}
	}
	path, verb, called := bytes.Cut(rest[1:], []byte(":"))
	var t target
	t.name, rest, _ = bytes.Cut(path, []byte("/"))
	versioned := false
	if rest, versioned = bytes.CutPrefix(rest, []byte("versions/")); versioned {
		t.version, rest, _ = bytes.Cut(rest, []byte("/"))
	}
	switch {
	case len(t.name) == 0 || versioned && len(t.version) == 0:
		return target{}
	case called && len(rest) == 0:
		t.op = v1Verbs[string(verb)]
	case called:
	case len(rest) == 0:
		t.op = opV1Model
	case string(rest) == "metadata":
		t.op = opV1Metadata
	}
	return t
}

var v1Verbs = map[string]op{"predict": opPredict, "classify": opClassify, "regress": opRegress, "explain": opExplain}

// v1Model is KServe's readiness and TensorFlow Serving's status of a model, which go
// together.
func v1Model(ctx *fasthttp.RequestCtx, e *gateway.Endpoint, versions []*gateway.Version) {
	ready := e.Ready()
	status := make([]object, len(versions))
	for i, v := range versions {
		state, code, message := "AVAILABLE", "OK", ""
		if !v.Pool.Ready() {
			state, code, message = "END", "UNAVAILABLE", "no replica is ready"
		}
		status[i] = object{"version": v.Name, "state": state, "status": object{"error_code": code, "error_message": message}}
	}
	reply(ctx, readyCode(ready), object{"name": e.Name, "ready": ready, "model_version_status": status})
}

// v1Types are TensorFlow's names of the element types.
var v1Types = map[tensor.DType]string{
	tensor.Bool: "DT_BOOL", tensor.Uint8: "DT_UINT8", tensor.Uint16: "DT_UINT16", tensor.Uint32: "DT_UINT32", tensor.Uint64: "DT_UINT64",
	tensor.Int8: "DT_INT8", tensor.Int16: "DT_INT16", tensor.Int32: "DT_INT32", tensor.Int64: "DT_INT64",
	tensor.Float16: "DT_HALF", tensor.BFloat16: "DT_BFLOAT16", tensor.Float32: "DT_FLOAT", tensor.Float64: "DT_DOUBLE", tensor.Bytes: "DT_STRING",
}

// v1Metadata is TensorFlow Serving's description of a model.
func v1Metadata(e *gateway.Endpoint, versions []string, o scorer.Offer) []byte {
	body, _ := json.Marshal(object{ // of plain values: cannot fail
		"model_spec": object{"name": e.Name, "signature_name": "", "version": o.Version},
		"metadata": object{"signature_def": object{"signature_def": object{"serving_default": object{
			"inputs": v1Tensors(o.Signature.Inputs), "outputs": v1Tensors(o.Signature.Outputs), "method_name": "tensorflow/serving/predict",
		}}}},
	})
	return body
}

func v1Tensors(infos []tensor.Info) object {
	all := object{}
	for _, info := range infos {
		dims := make([]object, len(info.Shape))
		for i, d := range info.Shape {
			dims[i] = object{"size": strconv.FormatInt(d, 10), "name": ""}
		}
		all[info.Name] = object{"name": info.Name, "dtype": v1Types[info.DType], "tensor_shape": object{"dim": dims, "unknown_rank": false}}
	}
	return all
}
