"""A runtime of MLServer."""
from digits import score
from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput


class Digits(MLModel):
    async def load(self):
        return True

    async def predict(self, request):
        tensor = request.inputs[0]
        label, probabilities = score([tensor.data[i : i + 64] for i in range(0, len(tensor.data), 64)])
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[
            ResponseOutput(name="label", shape=list(label.shape), datatype="INT64", data=label.tolist()),
            ResponseOutput(name="probabilities", shape=list(probabilities.shape), datatype="FP32", data=probabilities.flatten().tolist())])
