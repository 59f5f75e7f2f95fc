"""What the tests of all clients share."""
import os

import numpy as np

HTTP, GRPC, KEY = os.environ["SLUICE_HTTP"], os.environ["SLUICE_GRPC"], os.environ["SLUICE_KEY"]
AUTH = {"authorization": "Bearer " + KEY}

# Every type that the echo model has: its values, and numpy's type.
EVERY = {
    "BOOL": ([[True, False]], np.bool_),
    "UINT8": ([[0, 255]], np.uint8),
    "UINT16": ([[0, 65535]], np.uint16),
    "UINT32": ([[0, 2**32 - 1]], np.uint32),
    "UINT64": ([[0, 2**64 - 1]], np.uint64),
    "INT8": ([[-128, 127]], np.int8),
    "INT16": ([[-32768, 32767]], np.int16),
    "INT32": ([[-(2**31), 2**31 - 1]], np.int32),
    "INT64": ([[-(2**63), 2**63 - 1]], np.int64),
    "FP32": ([[1.5, -np.inf]], np.float32),
    "FP64": ([[np.pi, 1e300]], np.float64),
    "BYTES": ([[b"a\xff", b""]], np.object_),
}


def every():
    """Name, type and array of each of the echo model's inputs."""
    return [("in_" + t, t, np.array(v, dtype=d)) for t, (v, d) in EVERY.items()]


def digit(rows=1):
    """An image without a stroke, rows times."""
    return np.zeros((rows, 64), np.float32)


# Rows on which the slow model works for seconds.
SLOW = np.ones((4000, 1), np.float32)
