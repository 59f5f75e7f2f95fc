"""tritonclient's calls beside scoring, over gRPC and HTTP: each test runs over both."""
import os
import time
import unittest

import numpy as np
import tritonclient.grpc
import tritonclient.http
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

from common import GRPC, HTTP


class Manage:
    """The tests. A subclass has the client's module, the address and whether answers are messages."""

    def setUp(self):
        self.client = self.module.InferenceServerClient(self.address)
        self.client.load_model("digits")

    def tearDown(self):
        self.client.unload_model("digits")
        self.client.close()

    def inputs(self, rows):
        i = self.module.InferInput("input", [rows, 64], "FP32")
        image = (np.arange(64 * rows, dtype=np.float32) * 7 % 17).reshape(rows, 64)
        i.set_data_from_numpy(image)
        return [i], image

    def fails(self, text, call, *args, **kw):
        with self.assertRaises(InferenceServerException) as e:
            call(*args, **kw)
        self.assertIn(text, e.exception.message())

    def state(self):
        index = self.plain(self.client.get_model_repository_index)
        (one,) = index["models"] if self.messages else index
        return one

    def plain(self, call, *args):
        return call(*args, as_json=True) if self.messages else call(*args)

    def test_a_model_comes_and_goes(self):
        self.assertEqual(("digits", "1", "READY"), tuple(self.state()[k] for k in ("name", "version", "state")))
        self.assertTrue(self.client.is_model_ready("digits"))
        self.client.unload_model("digits")
        self.assertEqual(("UNAVAILABLE", "unloaded"), tuple(self.state()[k] for k in ("state", "reason")))
        self.assertFalse(self.client.is_model_ready("digits"))
        self.fails("Request for unknown model: 'digits' is not found", self.client.infer, "digits", self.inputs(1)[0])
        self.client.unload_model("digits")
        self.fails("failed to load 'nope', failed to poll from model repository", self.client.load_model, "nope")
        self.client.load_model("digits", config='{"max_batch_size": 2}')
        self.assertEqual(2, self.config()["max_batch_size"])
        self.fails("a model's files are not taken from a request", self.client.load_model, "digits", config="{}", files={"file:1/model.onnx": b"x"})

    def config(self):
        c = self.plain(self.client.get_model_config, "digits")
        return c["config"] if self.messages else c

    def test_config(self):
        c = self.config()
        self.assertEqual(("digits", "onnxruntime", 8), (c["name"], c["backend"], c["max_batch_size"]))
        self.assertEqual(("input", "TYPE_FP32", [64]), (c["input"][0]["name"], c["input"][0]["data_type"], [int(d) for d in c["input"][0]["dims"]]))
        self.fails("Request for unknown model: 'nope' is not found", self.client.get_model_config, "nope")

    def statistics(self):
        (one,) = self.plain(self.client.get_inference_statistics, "digits")["model_stats"]
        number = lambda d, k: int(d.get(k, 0))
        total = one["inference_stats"]
        return {
            "inferences": number(one, "inference_count"), "executions": number(one, "execution_count"), "last": number(one, "last_inference"),
            "batches": {number(b, "batch_size"): number(b["compute_infer"], "count") for b in one.get("batch_stats", [])},
            "counts": {k: number(total[k], "count") for k in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")},
            "parts": sum(number(total[k], "ns") for k in ("queue", "compute_input", "compute_infer", "compute_output")), "all": number(total["success"], "ns"),
        }

    def test_statistics_are_exact(self):
        begin, n, sizes = time.time(), 5, (1, 3)
        for rows in sizes:
            for _ in range(n):
                self.client.infer("digits", self.inputs(rows)[0])
        wrong = self.module.InferInput("input", [1, 65], "FP32")
        wrong.set_data_from_numpy(np.zeros((1, 65), np.float32))
        self.fails("unexpected shape", self.client.infer, "digits", [wrong])
        done = n * len(sizes)
        for _ in range(100):  # they may lag the answers
            s = self.statistics()
            if s["counts"]["success"] == done:
                break
            time.sleep(0.05)
        self.assertEqual((n * sum(sizes), done, {b: n for b in sizes}), (s["inferences"], s["executions"], s["batches"]))
        self.assertEqual({k: done for k in ("success", "queue", "compute_input", "compute_infer", "compute_output")}, {k: v for k, v in s["counts"].items() if k != "fail"})
        self.assertLessEqual(s["parts"], s["all"])
        self.assertGreater(s["parts"], 0)
        self.assertTrue(1000 * begin - 1 <= s["last"] <= 1000 * time.time() + 1, s["last"])
        self.fails("requested model 'nope' is not available", self.client.get_inference_statistics, "nope")

    def test_shared_memory(self):
        rows, both = 2, f"sluice-{os.getpid()}-{self.messages}"
        (i,), image = self.inputs(rows)
        want = self.client.infer("digits", [i]).as_numpy("probabilities")
        self.client.unregister_system_shared_memory()  # as clients begin
        self.client.unregister_cuda_shared_memory()
        size = image.nbytes + want.nbytes
        region = shm.create_shared_memory_region("both", both, size)
        try:
            shm.set_shared_memory_region(region, [image])
            self.client.register_system_shared_memory("both", both, size)
            self.fails("already in manager", self.client.register_system_shared_memory, "both", both, size)
            i = self.module.InferInput("input", [rows, 64], "FP32")
            i.set_shared_memory("both", image.nbytes)
            o = self.module.InferRequestedOutput("probabilities")
            o.set_shared_memory("both", want.nbytes, offset=image.nbytes)
            self.client.infer("digits", [i], outputs=[o])
            got = shm.get_contents_as_numpy(region, np.float32, [rows, 10], offset=image.nbytes)
            self.assertTrue(np.array_equal(want, got), got)
            status = self.plain(self.client.get_system_shared_memory_status)
            one = status["regions"]["both"] if self.messages else status[0]
            self.assertEqual(("both", both, size), (one["name"], one["key"].lstrip("/"), int(one["byte_size"])))
            self.client.unregister_system_shared_memory("both")
            self.fails("Unable to find shared memory region: 'both'", self.client.infer, "digits", [i], outputs=[o])
            self.fails("Unable to find system shared memory region: 'both'", self.client.get_system_shared_memory_status, "both")
            self.fails("CUDA shared memory is not supported", self.client.register_cuda_shared_memory, "c", b"AAAA", 0, 64)
        finally:
            shm.destroy_shared_memory_region(region)

    def test_classes(self):
        (i,), _ = self.inputs(2)
        p = self.client.infer("digits", [i]).as_numpy("probabilities")
        got = self.client.infer("digits", [i], outputs=[self.module.InferRequestedOutput("probabilities", class_count=3)]).as_numpy("probabilities")
        names = "zero one two three four five six seven eight nine".split()
        for row, classes in zip(p, got):
            for k, text in zip(np.argsort(-row, kind="stable"), classes):
                value, index, label = text.decode().split(":")
                self.assertEqual((k, names[k]), (int(index), label))
                self.assertAlmostEqual(float(row[k]), float(value), places=5)

    def test_settings(self):
        unwrap = (lambda s: s["settings"]) if self.messages else (lambda s: s)
        value = (lambda v: next(iter(v.values()))) if self.messages else (lambda v: v)
        self.assertEqual(1, value(unwrap(self.plain(self.client.update_log_settings, {"log_verbose_level": 1}))["log_verbose_level"]))
        self.assertEqual(0, value(unwrap(self.plain(self.client.update_log_settings, {"log_verbose_level": 0}))["log_verbose_level"]))
        self.fails("log file location can not be updated", self.client.update_log_settings, {"log_file": "/x"})
        rate = unwrap(self.plain(self.client.get_trace_settings))["trace_rate"]
        self.assertEqual("1000", rate["value"][0] if self.messages else rate)
        self.fails("this server does not trace requests", self.client.update_trace_settings, settings={"trace_level": ["TIMESTAMPS"]})


class Grpc(Manage, unittest.TestCase):
    module, address, messages = tritonclient.grpc, GRPC, True


class Http(Manage, unittest.TestCase):
    module, address, messages = tritonclient.http, HTTP, False
