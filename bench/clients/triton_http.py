"""tritonclient over HTTP, beside gRPC: the answers are the same.

The client adds to the headers that it is given.
"""
import unittest

import numpy as np
import tritonclient.grpc
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from common import AUTH, EVERY, GRPC, HTTP, digit, every


def inputs(module, arrays, **kw):
    made = []
    for name, datatype, array in arrays:
        i = module.InferInput(name, list(array.shape), datatype)
        i.set_data_from_numpy(array, **kw)
        made.append(i)
    return made


class Http(unittest.TestCase):
    def setUp(self):
        self.client = triton.InferenceServerClient(HTTP, concurrency=4)

    def tearDown(self):
        self.client.close()

    def test_health_and_metadata(self):
        self.assertTrue(self.client.is_server_live())
        self.assertTrue(self.client.is_server_ready())
        self.assertTrue(self.client.is_model_ready("digits"))
        self.assertFalse(self.client.is_model_ready("nope"))
        self.assertEqual("sluice", self.client.get_server_metadata()["name"])
        self.assertEqual(["linear", "mlp"], self.client.get_model_metadata("digits", headers=dict(AUTH))["versions"])

    def test_every_type_in_both_forms(self):
        # JSON has no bytes that are not text.
        text = [(n, t, np.array([[b"a", b""]], np.object_) if t == "BYTES" else a) for n, t, a in every()]
        for binary, arrays in ((True, every()), (False, text)):
            wanted = [triton.InferRequestedOutput("out_" + t, binary_data=binary) for t in EVERY]
            r = self.client.infer("echo", inputs(triton, arrays, binary_data=binary), outputs=wanted)
            for name, datatype, array in arrays:
                got = r.as_numpy(name.replace("in_", "out_"))
                if datatype == "BYTES" and not binary:
                    got = np.array([[v.encode() if isinstance(v, str) else v for v in row] for row in got], np.object_)
                self.assertTrue(np.array_equal(array, got), (name, got))

    def test_the_same_answer_as_over_grpc(self):
        image = np.arange(640, dtype=np.float32).reshape(10, 64) % 17
        rows = [("input", "FP32", image)]
        a = self.client.infer("digits", inputs(triton, rows), model_version="mlp", headers=dict(AUTH))
        with tritonclient.grpc.InferenceServerClient(GRPC) as g:
            b = g.infer("digits", inputs(tritonclient.grpc, rows), model_version="mlp", headers=dict(AUTH))
        for name in ("label", "probabilities"):
            self.assertTrue(np.array_equal(a.as_numpy(name), b.as_numpy(name)))

    def test_errors(self):
        for name, kw, text in (
            ("nope", {}, "Request for unknown model: 'nope' is not found"),
            ("digits", {}, "no valid credential"),
            ("digits", {"headers": dict(AUTH), "model_version": "9"}, "version 9 is not found"),
        ):
            with self.assertRaises(InferenceServerException) as e:
                self.client.infer(name, inputs(triton, [("input", "FP32", digit())]), **kw)
            self.assertIn(text, e.exception.message())
