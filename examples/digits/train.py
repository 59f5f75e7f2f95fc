"""Trains the digits models on scikit-learn's handwritten digits and writes what this folder holds.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python train.py

Input of both models: "input" FP32 [N,64], 8x8 pixels of 0 to 16, row by row. Outputs: "label" INT64 [N] and
"probabilities" FP32 [N,10]. The seeds are fixed: the same versions give the same models.
"""
import json
import pathlib

import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
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
    onx = to_onnx(model, initial_types=[("input", FloatTensorType([None, 64]))], target_opset=17,
                  options={id(model.steps[-1][1]): {"zipmap": False, "output_class_labels": False}})
    graph = onx.graph
    graph.name = name
    for old, new in zip([o.name for o in graph.output], ["label", "probabilities"]):
        for node in graph.node:
            node.input[:] = [new if i == old else i for i in node.input]
            node.output[:] = [new if o == old else o for o in node.output]
        for out in graph.output:
            out.name = new if out.name == old else out.name
    for out, width in zip(graph.output, [None, 10]):  # exact shapes: [N] and [N,10]
        dims = out.type.tensor_type.shape.dim
        del dims[:]
        dims.add().dim_param = "N"
        if width:
            dims.add().dim_value = width
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
    right = np.mean(np.array(answers(name, x_test)[0]) == y_test)
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
