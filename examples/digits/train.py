"""Trains the digits models on scikit-learn's handwritten digits and writes what this folder holds.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python train.py

Input of both models: "input" FP32 [N,64], 8x8 pixels of 0 to 16, row by row. Outputs: "label" INT64 [N] and
"probabilities" FP32 [N,10]. The seeds are fixed: the same versions give the same models.
"""
import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler

HERE = pathlib.Path(__file__).parent
pixels, labels = load_digits(return_X_y=True)
pixels = pixels.astype(np.float32)
x_train, x_test, y_train, y_test = train_test_split(pixels, labels, test_size=0.25, random_state=0, stratify=labels)

MODELS = {
    "linear": make_pipeline(MaxAbsScaler(), LogisticRegression(max_iter=1000, random_state=0)),
    "mlp": make_pipeline(MaxAbsScaler(), MLPClassifier(hidden_layer_sizes=(128,), max_iter=300, random_state=0)),
}


def export(name, model):
    """Writes the model as few operations: the scaler goes into the first layer's weights."""
    scaler, last = model.steps[0][1], model.steps[-1][1]
    if isinstance(last, LogisticRegression):
        layers = [(last.coef_.T, last.intercept_)]
    else:
        layers = list(zip(last.coefs_, last.intercepts_))
    layers[0] = (layers[0][0] / scaler.scale_[:, None], layers[0][1])
    nodes, weights, at = [], [], "input"
    for i, (w, b) in enumerate(layers):
        weights += [numpy_helper.from_array(w.astype(np.float32), f"w{i}"), numpy_helper.from_array(b.astype(np.float32), f"b{i}")]
        nodes.append(helper.make_node("Gemm", [at, f"w{i}", f"b{i}"], [f"y{i}"]))
        at = f"y{i}"
        if i < len(layers) - 1:
            nodes.append(helper.make_node("Relu", [at], [f"h{i}"]))
            at = f"h{i}"
    nodes.append(helper.make_node("ArgMax", [at], ["label"], axis=1, keepdims=0))
    nodes.append(helper.make_node("Softmax", [at], ["probabilities"], axis=1))
    graph = helper.make_graph(
        nodes, name, [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
         helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10])], weights)
    onx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="sluice-examples")
    onnx.checker.check_model(onx, full_check=True)
    (HERE / f"{name}.onnx").write_bytes(onx.SerializeToString())


def answers(name, rows):
    session = onnxruntime.InferenceSession(HERE / f"{name}.onnx")
    label, probabilities = session.run(["label", "probabilities"], {"input": rows})
    return label.tolist(), [[float(np.float32(p)) for p in row] for row in probabilities]


def write(path, value):
    (HERE / path).write_text(json.dumps(value, separators=(",", ":")) + "\n")


def request(rows):
    return {"inputs": [{"name": "input", "shape": list(rows.shape), "datatype": "FP32", "data": [int(v) for v in rows.flatten()]}]}


for name, model in MODELS.items():
    model.fit(x_train, y_train)
    export(name, model)
    found = np.array(answers(name, x_test)[0])
    assert np.array_equal(found, model.predict(x_test)), "the exported model is not the trained one"
    right = np.mean(found == y_test)
    print(f"{name}: {100 * right:.1f}% of {len(y_test)} held-out digits right")

ten = x_test[:10]
write("requests/one.json", request(ten[:1]))
write("requests/ten.json", request(ten))
write("requests/aml.json", {"data": [[int(v) for v in row] for row in ten[:1]]})
head = json.dumps({"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP32", "parameters": {"binary_data_size": 256}}],
                   "parameters": {"binary_data_output": True}}, separators=(",", ":")).encode()
(HERE / "requests/one.bin").write_bytes(head + ten[:1].astype("<f4").tobytes())
(HERE / "requests/one.bin.head-length").write_text(f"{len(head)}\n")
for name in MODELS:
    label, probabilities = answers(name, ten)
    write(f"expected/{name}.json", {"truth": y_test[:10].tolist(), "label": label, "probabilities": probabilities})
