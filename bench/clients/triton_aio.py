"""tritonclient's asynchronous gRPC client."""
import asyncio
import unittest

import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from common import AUTH, GRPC, SLOW, digit


def one(name, array):
    i = triton.InferInput(name, list(array.shape), "FP32")
    i.set_data_from_numpy(array)
    return [i]


class Aio(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.client = triton.InferenceServerClient(GRPC)

    async def asyncTearDown(self):
        await self.client.close()

    async def test_health(self):
        self.assertTrue(await self.client.is_server_live())
        self.assertTrue(await self.client.is_server_ready())
        self.assertTrue(await self.client.is_model_ready("digits"))
        self.assertFalse(await self.client.is_model_ready("nope"))

    async def test_many_at_a_time(self):
        results = await asyncio.gather(*[self.client.infer("digits", one("input", digit()), headers=AUTH, request_id=str(i)) for i in range(100)])
        self.assertEqual([str(i) for i in range(100)], [r.get_response().id for r in results])

    async def test_a_stream(self):
        async def requests():
            for i in range(20):
                yield {"model_name": "digits" if i != 7 else "nope", "inputs": one("input", digit()), "request_id": str(i)}

        good, bad = set(), []
        async for result, error in self.client.stream_infer(requests(), headers=AUTH):
            if error is None:
                good.add(result.get_response().id)
            else:
                bad.append(error.message())
        self.assertEqual({str(i) for i in range(20) if i != 7}, good)
        self.assertEqual(1, len(bad))
        self.assertIn("Request for unknown model: 'nope' is not found", bad[0])

    async def test_a_request_that_is_cancelled(self):
        task = asyncio.create_task(self.client.infer("slow", one("x", SLOW)))
        await asyncio.sleep(0.1)  # the server has it by now; it works on it for seconds
        task.cancel()
        with self.assertRaises((asyncio.CancelledError, InferenceServerException)):
            await task
        r = await self.client.infer("digits", one("input", digit()), headers=AUTH)
        self.assertEqual((1, 10), r.as_numpy("probabilities").shape)
