"""Messages of any content to the Open Inference Protocol over gRPC: what the engine takes, or a refusal."""

from __future__ import annotations

import numpy as np
from fuzz.hunt import effort, hunt, nearly_bytes
from hypothesis import strategies as st
from tritonclient.grpc.service_pb2 import ModelInferRequest

from evodeploy.errors import InputError
from evodeploy.serving.messages import read, request_of, response_of
from evodeploy.specs import TensorSpec

SPEC = TensorSpec("images", "float32", (None, 1, 2, 2))
OUTPUTS = ("logits", "selected_0")


def request(typed):
    message = ModelInferRequest(model_name="m", id="seven", outputs=[{"name": "logits"}])
    message.parameters["keep_ratio"].double_param = 0.5
    tensor = message.inputs.add(name="images", datatype="FP32", shape=[1, 1, 2, 2])
    if typed:
        tensor.contents.fp32_contents.extend(range(4))
    else:
        message.raw_input_contents.append(np.arange(4, dtype=np.float32).tobytes())
    return message.SerializeToString()


@effort
def test_messages(seconds):
    def check(body):
        try:
            found = request_of(read("ModelInferRequest", body), SPEC, OUTPUTS)
        except InputError as error:
            assert len(str(error)) < 2000
        else:
            assert found.images.dtype == np.float32 and found.images.shape[1:] == SPEC.shape[1:]
            assert np.isfinite(found.images).all()
            response_of("m", "1", found, {name: np.zeros((len(found.images), 3), np.float32) for name in OUTPUTS}, "1")

    hunt(st.booleans().flatmap(lambda typed: nearly_bytes(request(typed))) | st.binary(max_size=99), check, seconds)
