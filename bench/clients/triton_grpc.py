"""tritonclient over gRPC, as its users call it."""
import queue
import time
import unittest

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from common import AUTH, GRPC, SLOW, digit, every


def inputs(arrays):
    made = []
    for name, datatype, array in arrays:
        i = triton.InferInput(name, list(array.shape), datatype)
        i.set_data_from_numpy(array)
        made.append(i)
    return made


DIGIT = lambda rows=1: inputs([("input", "FP32", digit(rows))])


class Unary(unittest.TestCase):
    def setUp(self):
        self.client = triton.InferenceServerClient(GRPC)

    def tearDown(self):
        self.client.close()

    def fails(self, status, text, call, *args, **kw):
        with self.assertRaises(InferenceServerException) as e:
            call(*args, **kw)
        self.assertIn(text, e.exception.message())
        self.assertEqual("StatusCode." + status, e.exception.status())

    def test_health_and_metadata(self):
        self.assertTrue(self.client.is_server_live())
        self.assertTrue(self.client.is_server_ready())
        self.assertTrue(self.client.is_model_ready("digits"))
        self.assertTrue(self.client.is_model_ready("digits", "mlp"))
        self.assertFalse(self.client.is_model_ready("nope"))
        self.assertEqual("sluice", self.client.get_server_metadata(as_json=True)["name"])
        m = self.client.get_model_metadata("digits", headers=AUTH, as_json=True)
        self.assertEqual(["linear", "mlp"], m["versions"])
        self.assertEqual({"name": "input", "datatype": "FP32", "shape": ["-1", "64"]}, m["inputs"][0])

    def test_every_type(self):
        result = self.client.infer("echo", inputs(every()), request_id="ä1")
        self.assertEqual("ä1", result.get_response().id)
        for name, datatype, array in every():
            got = result.as_numpy(name.replace("in_", "out_"))
            self.assertEqual(array.shape, got.shape)
            self.assertTrue(np.array_equal(array, got), name)

    def test_wanted_outputs_and_versions(self):
        wanted = [triton.InferRequestedOutput("label")]
        r = self.client.infer("digits", DIGIT(3), model_version="mlp", outputs=wanted, headers=AUTH)
        self.assertEqual("mlp", r.get_response().model_version)
        self.assertEqual((3,), r.as_numpy("label").shape)
        self.assertIsNone(r.as_numpy("probabilities"))

    def test_errors(self):
        infer = self.client.infer
        self.fails("NOT_FOUND", "Request for unknown model: 'nope' is not found", infer, "nope", DIGIT())
        self.fails("NOT_FOUND", "Request for unknown model: 'digits' version 9 is not found", infer, "digits", DIGIT(), model_version="9", headers=AUTH)
        self.fails("UNAUTHENTICATED", "no valid credential", infer, "digits", DIGIT())
        self.fails("UNAUTHENTICATED", "no valid credential", self.client.get_model_metadata, "digits")
        wrong = inputs([("input", "INT32", np.zeros((1, 64), np.int32))])
        self.fails("INVALID_ARGUMENT", "inference input 'input' data-type is 'INT32', but model 'digits' expects 'FP32'", infer, "digits", wrong, headers=AUTH)
        wide = inputs([("input", "FP32", np.zeros((1, 65), np.float32))])
        self.fails("INVALID_ARGUMENT", "unexpected shape for input 'input' for model 'digits'. Expected [-1,64], got [1,65]", infer, "digits", wide, headers=AUTH)
        none = [triton.InferRequestedOutput("x")]
        self.fails("INVALID_ARGUMENT", "unexpected inference output 'x' for model 'digits'", infer, "digits", DIGIT(), outputs=none, headers=AUTH)

    def test_compression(self):
        for algorithm in ("gzip", "deflate"):
            r = self.client.infer("echo", inputs(every()), compression_algorithm=algorithm)
            self.assertEqual((1, 2), r.as_numpy("out_FP32").shape)

    def test_a_message_of_thirty_megabytes(self):
        r = self.client.infer("digits", DIGIT(120_000), headers=AUTH)
        self.assertEqual((120_000, 10), r.as_numpy("probabilities").shape)

    def test_timeout(self):
        begin = time.monotonic()
        slow = inputs([("x", "FP32", SLOW)])
        self.fails("DEADLINE_EXCEEDED", "", self.client.infer, "slow", slow, client_timeout=0.1)
        self.assertLess(time.monotonic() - begin, 2)

    def test_cancellation(self):
        done = queue.Queue()
        call = self.client.async_infer("slow", inputs([("x", "FP32", SLOW)]), callback=lambda result, error: done.put(error))
        call.cancel()
        self.assertIn("CANCELLED", done.get(timeout=10).status())

    def test_many_at_a_time(self):
        done = queue.Queue()
        for _ in range(200):
            self.client.async_infer("digits", DIGIT(), callback=lambda result, error: done.put((result, error)), headers=AUTH)
        for _ in range(200):
            result, error = done.get(timeout=10)
            self.assertIsNone(error)
            self.assertEqual((1, 10), result.as_numpy("probabilities").shape)

    def test_keep_alive(self):
        # Whether pings are let be is tested in gateway/grpcapi: this client holds them back.
        options = triton.KeepAliveOptions(keepalive_time_ms=200, keepalive_timeout_ms=1000, keepalive_permit_without_calls=True, http2_max_pings_without_data=0)
        with triton.InferenceServerClient(GRPC, keepalive_options=options) as client:
            client.infer("digits", DIGIT(), headers=AUTH)

    def test_what_is_not_offered_is_said_clearly(self):
        self.fails("PERMISSION_DENIED", "This API is restricted: start the server with --management", self.client.get_cuda_shared_memory_status)


class Stream(unittest.TestCase):
    def setUp(self):
        self.client = triton.InferenceServerClient(GRPC)
        self.answers = queue.Queue()

    def tearDown(self):
        self.client.close()

    def start(self, **kw):
        self.client.start_stream(callback=lambda result, error: self.answers.put((result, error)), **kw)

    def test_answers_carry_their_ids(self):
        self.start(headers=AUTH)
        for i in range(100):
            self.client.async_stream_infer("digits", DIGIT(), request_id=str(i), enable_empty_final_response=True)
        self.client.stop_stream()  # sends that no more will come, and waits
        seen = set()
        while not self.answers.empty():
            result, error = self.answers.get()
            self.assertIsNone(error)
            response = result.get_response()
            self.assertTrue(response.parameters["triton_final_response"].bool_param)
            seen.add(response.id)
        self.assertEqual({str(i) for i in range(100)}, seen)

    def test_an_error_leaves_the_stream_open(self):
        self.start(headers=AUTH)
        self.client.async_stream_infer("nope", DIGIT(), request_id="bad")
        result, error = self.answers.get(timeout=10)
        self.assertIsNone(result)
        self.assertIn("Request for unknown model: 'nope' is not found", error.message())
        self.client.async_stream_infer("digits", DIGIT(), request_id="good")
        result, error = self.answers.get(timeout=10)
        self.assertEqual("good", result.get_response().id)

    def test_a_stream_that_is_cancelled(self):
        self.start()
        self.client.async_stream_infer("slow", inputs([("x", "FP32", SLOW)]))
        self.client.stop_stream(cancel_requests=True)
        _, error = self.answers.get(timeout=10)
        self.assertIn("CANCELLED", str(error))
