"""tensorflow-serving-api, the stubs of TensorFlow's own users, and the same calls over REST."""
import importlib.util
import sys
import types
import unittest

import grpc
import numpy as np
import requests

# The stubs are made of TensorFlow's messages. pythie-serving has these in a megabyte, TensorFlow in
# hundreds; its own server, and the stubs that it has, too, are left alone.
folder = importlib.util.find_spec("pythie_serving").submodule_search_locations[0]
sys.modules["pythie_serving"] = types.ModuleType("pythie_serving")
sys.modules["pythie_serving"].__path__ = [folder]
sys.path.append(folder + "/tensorflow_proto")

from tensorflow.core.example import example_pb2
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import classification_pb2, get_model_metadata_pb2, inference_pb2, predict_pb2, prediction_service_pb2_grpc, regression_pb2

from common import AUTH, GRPC, HTTP, KEY, digit

assert "pythie" not in classification_pb2.__file__


def example(**features):
    e = example_pb2.Example()
    for name, values in features.items():
        f = e.features.feature[name]
        if isinstance(values[0], bytes):
            f.bytes_list.value.extend(values)
        elif isinstance(values[0], int):
            f.int64_list.value.extend(values)
        else:
            f.float_list.value.extend(values)
    return e


class Stubs(unittest.TestCase):
    def setUp(self):
        self.channel = grpc.insecure_channel(GRPC)
        self.stub = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)

    def tearDown(self):
        self.channel.close()

    def ask(self, kind, model, *examples, version=0):
        q = kind()
        q.model_spec.name, q.model_spec.signature_name, q.model_spec.version.value = model, "serving_default", version
        q.input.example_list.examples.extend(examples)
        return q

    def fails(self, code, text, call, *args, **kw):
        with self.assertRaises(grpc.RpcError) as e:
            call(*args, timeout=30, **kw)
        self.assertEqual(code, e.exception.code())
        self.assertIn(text, e.exception.details())

    def test_classify(self):
        rows = example(name=[b"a", b"b"], size=[0.5, 0.25]), example(size=[1.0, -1.0], name=[b"c", b""], other=[7])
        r = self.stub.Classify(self.ask(classification_pb2.ClassificationRequest, "people", *rows, version=1), timeout=30)
        got = [[(c.label, c.score) for c in row.classes] for row in r.result.classifications]
        self.assertEqual([[("a", 0.5), ("b", 0.25)], [("c", 1), ("", -1)]], got)
        self.assertEqual(("people", 1), (r.model_spec.name, r.model_spec.version.value))

    def test_classify_with_context(self):
        q = self.ask(classification_pb2.ClassificationRequest, "people")
        q.input.example_list_with_context.context.CopyFrom(example(name=[b"x", b"y"], size=[0.0, 0.0]))
        q.input.example_list_with_context.examples.extend([example(size=[1.0, 2.0]), example()])
        r = self.stub.Classify(q, timeout=30)
        got = [[(c.label, c.score) for c in row.classes] for row in r.result.classifications]
        self.assertEqual([[("x", 1), ("y", 2)], [("x", 0), ("y", 0)]], got)

    def test_regress(self):
        rows = [example(a=[float(i)], b=[2 * i]) for i in range(100)]
        r = self.stub.Regress(self.ask(regression_pb2.RegressionRequest, "sum", *rows), timeout=30)
        self.assertEqual([3.0 * i for i in range(100)], [x.value for x in r.result.regressions])
        r = self.stub.Classify(self.ask(classification_pb2.ClassificationRequest, "sum", rows[5]), timeout=30)  # a single output has scores
        self.assertEqual([("", 15.0)], [(c.label, c.score) for c in r.result.classifications[0].classes])

    def test_what_cannot_be_called(self):
        bad = grpc.StatusCode.INVALID_ARGUMENT
        kinds = {self.stub.Classify: classification_pb2.ClassificationRequest, self.stub.Regress: regression_pb2.RegressionRequest}
        for call, kind in kinds.items():
            self.fails(bad, "it needs an output", call, self.ask(kind, "digits", example(input=[0.0] * 64)), metadata=[("authorization", KEY)])
            self.fails(grpc.StatusCode.UNAUTHENTICATED, "no valid credential", call, self.ask(kind, "digits", example()))
            self.fails(grpc.StatusCode.NOT_FOUND, "Servable not found for request: Specific(sum, 9)", call, self.ask(kind, "sum", example(), version=9))
            self.fails(bad, "Input is empty.", call, self.ask(kind, "sum"))
            self.fails(bad, "Feature: b (data type: int64) is required but could not be found.", call, self.ask(kind, "sum", example(a=[1.0])))
            self.fails(bad, "Key: a. Data types don't match. Expected type: float", call, self.ask(kind, "sum", example(a=[1], b=[1])))
            self.fails(bad, "values size: 2 but output shape: [1]", call, self.ask(kind, "sum", example(a=[1.0, 2.0], b=[1])))
        self.fails(grpc.StatusCode.UNIMPLEMENTED, "MultiInference is not offered", self.stub.MultiInference, inference_pb2.MultiInferenceRequest())

    def test_predict(self):
        q = predict_pb2.PredictRequest()
        q.model_spec.name = "digits"
        t = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_content=digit(2).tobytes())
        for size in 2, 64:
            t.tensor_shape.dim.add().size = size
        q.inputs["input"].CopyFrom(t)
        q.output_filter.append("probabilities")
        r = self.stub.Predict(q, timeout=30, metadata=[("authorization", KEY)])
        self.assertEqual(["probabilities"], list(r.outputs))
        self.assertEqual([2, 10], [d.size for d in r.outputs["probabilities"].tensor_shape.dim])
        p = np.array(r.outputs["probabilities"].float_val).reshape(2, 10)
        self.assertTrue(np.allclose(p.sum(axis=1), 1, atol=1e-4), p)

    def test_metadata(self):
        q = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        q.model_spec.name = "people"
        m = get_model_metadata_pb2.SignatureDefMap()
        self.assertTrue(self.stub.GetModelMetadata(q, timeout=30).metadata["signature_def"].Unpack(m))
        s = m.signature_def["serving_default"]
        self.assertEqual({"name": types_pb2.DT_STRING, "size": types_pb2.DT_FLOAT}, {k: v.dtype for k, v in s.inputs.items()})
        self.assertEqual([-1, 2], [d.size for d in s.outputs["scores"].tensor_shape.dim])


class Rest(unittest.TestCase):
    def post(self, path, body, **kw):
        r = requests.post(f"http://{HTTP}/v1/models/{path}", json=body, timeout=30, **kw)
        return r.status_code, r.json()

    def test_classify(self):
        body = {"context": {"name": ["x", {"b64": "eQ=="}]}, "examples": [{"size": [1, 2]}, {"size": [0.5, 0], "name": ["a", "b"], "other": "z"}]}
        self.assertEqual((200, {"results": [[["x", 1], ["y", 2]], [["a", 0.5], ["b", 0]]]}), self.post("people:classify", body))

    def test_regress(self):
        self.assertEqual((200, {"results": [3, -1.5]}), self.post("sum/versions/1:regress", {"examples": [{"a": 1, "b": 2}, {"b": [-2], "a": [0.5]}]}))

    def test_errors(self):
        for path, body, headers, status, text in (
            ("nope:classify", {}, {}, 404, "Request for unknown model: 'nope' is not found"),
            ("digits:classify", {"examples": [{}]}, {}, 401, "no valid credential"),
            ("digits:regress", {"examples": [{}]}, AUTH, 400, "it needs an output 'outputs', or a single one"),
            ("sum:regress", {}, {}, 400, "key 'examples' is expected and was not found"),
            ("sum:regress", {"examples": [{"a": 1}]}, {}, 400, "Feature: b (data type: int64) is required but could not be found."),
        ):
            got, answer = self.post(path, body, headers=headers)
            self.assertEqual(status, got)
            self.assertIn(text, answer["error"])
