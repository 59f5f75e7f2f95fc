"""KServe's client: both of its protocols over REST, and gRPC."""
import unittest

import grpc
import httpx
import numpy as np
from kserve import InferInput, InferRequest, InferenceGRPCClient, InferenceRESTClient, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

from common import AUTH, GRPC, HTTP, digit, every

URL = "http://" + HTTP


# The client reads no BYTES but text.
TEXTS = [(n, t, np.array([["text", ""]], np.object_) if t == "BYTES" else a) for n, t, a in every()]
# Nor does it send infinity as JSON.
FINITE = [(n, t, np.nan_to_num(a) if t == "FP32" else a) for n, t, a in TEXTS]


def request(model, arrays, binary, **kw):
    inputs = []
    for name, datatype, array in arrays:
        i = InferInput(name, list(array.shape), datatype)
        i.set_data_from_numpy(array, binary_data=binary)
        inputs.append(i)
    return InferRequest(model, inputs, **kw)


class Client(unittest.IsolatedAsyncioTestCase):
    def same(self, name, array, out):
        self.assertEqual(name.replace("in_", "out_"), out.name)
        got = out.as_numpy()
        if out.datatype == "BYTES" and isinstance(got[0, 0], bytes):
            got = np.array([[v.decode() for v in row] for row in got], np.object_)
        self.assertTrue(np.array_equal(array, got), (name, got))


class Rest(Client):
    async def asyncSetUp(self):
        self.v1, self.v2 = (InferenceRESTClient(RESTConfig(protocol=p)) for p in ("v1", "v2"))

    async def asyncTearDown(self):
        await self.v1.close()
        await self.v2.close()

    async def fails(self, status, text, call):
        with self.assertRaises(httpx.HTTPStatusError) as e:
            await call
        self.assertEqual(status, e.exception.response.status_code)
        self.assertIn(text, str(e.exception))

    async def test_health(self):
        self.assertTrue(await self.v1.is_server_live(URL))
        self.assertTrue(await self.v2.is_server_live(URL))
        self.assertTrue(await self.v2.is_server_ready(URL))
        for client in self.v1, self.v2:
            self.assertTrue(await client.is_model_ready(URL, "echo"))
        self.assertFalse(await self.v2.is_model_ready(URL, "nope"))
        await self.fails(404, "Request for unknown model: 'nope' is not found", self.v1.is_model_ready(URL, "nope"))

    async def test_v1(self):
        rows = digit(2).tolist()
        for body, key in (({"instances": rows}, "predictions"), ({"inputs": rows}, "outputs"), ({"instances": [{"input": r} for r in rows]}, "predictions")):
            r = await self.v1.infer(URL, body, model_name="digits", headers=AUTH)
            self.assertEqual([key], list(r))
            self.assertEqual(2, len(r[key] if key == "predictions" else r[key]["label"]))
        await self.fails(400, "Missing 'inputs' or 'instances' key", self.v1.infer(URL, {}, model_name="digits", headers=AUTH))
        await self.fails(401, "no valid credential", self.v1.infer(URL, {"instances": rows}, model_name="digits"))
        await self.fails(501, "not offered", self.v1.explain(URL, "digits", {"instances": rows}, headers=AUTH))

    async def test_v2_every_type(self):
        for binary, sent in (True, TEXTS), (False, FINITE):
            headers = {}
            r = await self.v2.infer(URL, request("echo", sent, binary, request_id="7", parameters={"binary_data_output": binary}), model_name="echo", response_headers=headers)
            self.assertEqual(("echo", "7"), (r.model_name, r.id))
            self.assertEqual("inference-header-content-length" in headers, binary)
            for (name, _, array), out in zip(sent, r.outputs):
                self.same(name, array, out)

    async def test_v2_outputs(self):
        wanted = [RequestedOutput("probabilities", {"binary_data": True})]
        r = await self.v2.infer(URL, request("digits", [("input", "FP32", digit(3))], True, request_outputs=wanted), model_name="digits", headers=dict(AUTH))
        (out,) = r.outputs
        self.assertEqual(("probabilities", (3, 10)), (out.name, out.as_numpy().shape))

    async def test_v2_errors(self):
        good = [("input", "FP32", digit())]
        for status, text, name, arrays, headers in (
            (404, "Request for unknown model: 'nope' is not found", "nope", good, {}),
            (401, "no valid credential", "digits", good, {}),
            (400, "unexpected shape for input 'input'", "digits", [("input", "FP32", np.zeros((1, 65), np.float32))], AUTH),
            (400, "data-type is 'FP64', but model 'digits' expects 'FP32'", "digits", [("input", "FP64", np.zeros((1, 64)))], AUTH),
        ):
            for binary in True, False:
                await self.fails(status, text, self.v2.infer(URL, request(name, arrays, binary), model_name=name, headers=dict(headers)))


class Grpc(Client):
    async def asyncSetUp(self):
        self.client = InferenceGRPCClient(GRPC)

    async def asyncTearDown(self):
        await self.client.close()

    async def test_health(self):
        self.assertTrue(await self.client.is_server_live())
        self.assertTrue(await self.client.is_server_ready())
        self.assertTrue(await self.client.is_model_ready("echo"))
        self.assertFalse(await self.client.is_model_ready("nope"))

    async def test_every_type(self):
        for binary in True, False:
            r = await self.client.infer(request("echo", TEXTS, binary, request_id="7"))
            self.assertEqual(("echo", "1", "7"), (r.model_name, r.model_version, r.id))
            for (name, _, array), out in zip(TEXTS, r.outputs):
                self.same(name, array, out)

    async def test_errors(self):
        for code, text, name, headers in (
            (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'nope' is not found", "nope", None),
            (grpc.StatusCode.UNAUTHENTICATED, "no valid credential", "digits", None),
            (grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape", "digits", [("authorization", AUTH["authorization"])]),
        ):
            with self.assertRaises(grpc.RpcError) as e:
                await self.client.infer(request(name, [("input", "FP32", np.zeros((1, 65), np.float32))], True), headers=headers)
            self.assertEqual(code, e.exception.code())
            self.assertIn(text, e.exception.details())
