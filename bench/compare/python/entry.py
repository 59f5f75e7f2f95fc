"""An entry script of Azure ML."""
import json


def init():
    global score
    from digits import score


def run(raw):
    label, probabilities = score(json.loads(raw)["data"])
    return {"label": label.tolist(), "probabilities": probabilities.tolist()}
