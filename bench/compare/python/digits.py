"""The digits model, for servers written in Python: one thread per run, as Sluice gives it."""
import os

import numpy
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["DIGITS_MODEL"], options, providers=["CPUExecutionProvider"])


def score(rows):
    return session.run(["label", "probabilities"], {"input": numpy.asarray(rows, dtype=numpy.float32)})
