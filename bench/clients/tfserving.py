"""ovmsclient, a client of TF Serving's gRPC that needs no TensorFlow."""
import unittest

import grpc
import numpy as np
import ovmsclient
from ovmsclient.tfs_compat.base.errors import InvalidInputError, ModelNotFoundError
from ovmsclient.tfs_compat.grpc.serving_client import GrpcClient
from ovmsclient.tfs_compat.protos.tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from common import EVERY, GRPC, KEY, digit


class WithKey(grpc.UnaryUnaryClientInterceptor):
    """Adds the key, for which ovmsclient has no argument."""

    def intercept_unary_unary(self, call, details, request):
        return call(details._replace(metadata=[("authorization", KEY)]), request)


class TFServing(unittest.TestCase):
    def setUp(self):
        self.client = ovmsclient.make_grpc_client(GRPC)
        channel = grpc.intercept_channel(grpc.insecure_channel(GRPC), WithKey())
        self.digits = GrpcClient(channel, prediction_service_pb2_grpc.PredictionServiceStub(channel), model_service_pb2_grpc.ModelServiceStub(channel))

    def tearDown(self):
        del self.client, self.digits

    def test_predict_every_type(self):
        sent = {"in_" + t: np.array(v, dtype=d) for t, (v, d) in EVERY.items() if t != "BYTES"}
        sent["in_BYTES"] = np.array([["text", "more"]])
        got = self.client.predict(sent, "echo")
        for t, (v, d) in EVERY.items():
            want = np.array([[b"text", b"more"]]) if t == "BYTES" else np.array(v, dtype=d)
            self.assertTrue(np.array_equal(want, got["out_" + t]), (t, got["out_" + t]))

    def test_versions(self):
        for version in (0, 1, 2):  # 0 is the latest; a version without a number has its place
            r = self.digits.predict({"input": digit(2)}, "digits", version)
            self.assertEqual((2, 10), r["probabilities"].shape)
        with self.assertRaises(ModelNotFoundError) as e:
            self.digits.predict({"input": digit()}, "digits", 9)
        self.assertIn("Servable not found for request: Specific(digits, 9)", str(e.exception))
        with self.assertRaises(ModelNotFoundError) as e:
            self.client.predict({"input": digit()}, "nope")
        self.assertIn("Servable not found for request: Latest(nope)", str(e.exception))

    def test_bad_input(self):
        for inputs, text in (
            ({"x": digit()}, "input tensor alias not found in signature: x"),
            ({"input": digit().astype(np.float64)}, "Expects arg[0] to be float but double is provided"),
        ):
            with self.assertRaises(InvalidInputError) as e:
                self.digits.predict(inputs, "digits")
            self.assertIn(text, str(e.exception))

    def test_metadata(self):
        m = self.digits.get_model_metadata("digits")
        self.assertEqual({"input": {"shape": [-1, 64], "dtype": "DT_FLOAT"}}, m["inputs"])
        self.assertEqual({"shape": [-1], "dtype": "DT_INT64"}, m["outputs"]["label"])

    def test_status(self):
        s = self.digits.get_model_status("digits")
        self.assertEqual({1: "AVAILABLE", 2: "AVAILABLE"}, {k: v["state"] for k, v in s.items()})
