"""Requests of any content to the Open Inference Protocol: what the engine takes, or a refusal."""

from __future__ import annotations

import json

import numpy as np
from fuzz.hunt import CHARACTERS, JSON, effort, hunt, nearly, nearly_bytes
from hypothesis import strategies as st

from evodeploy.errors import InputError
from evodeploy.serving.protocol import make_response, parse_request
from evodeploy.specs import TensorSpec

SPECS = {
    "FP32": TensorSpec("images", "float32", (None, 1, 2, 2)),
    "UINT8": TensorSpec("images", "uint8", (None, 1, 2, 2)),
}
OUTPUTS = ("logits", "selected_0")


def request(kind):
    tensor = {"name": "images", "datatype": kind, "shape": [2, 1, 2, 2], "data": list(range(8))}
    wanted = [{"name": "logits", "parameters": {"binary_data": True}}]
    parameters = {"binary_data_output": False, "keep_ratio": 0.5, "least_keep_ratio": 1}
    return {"inputs": [tensor], "outputs": wanted, "id": "seven", "parameters": parameters}


def in_binary(kind):
    document = request(kind)
    document["inputs"][0]["parameters"] = {"binary_data_size": 8 * np.dtype(SPECS[kind].dtype).itemsize}
    del document["inputs"][0]["data"]
    return document


@effort
def test_requests(seconds):
    def check(case):
        kind, head, tail, length = case
        spec = SPECS[kind]
        try:
            found = parse_request(head + tail, str(len(head)) if length is None else length, spec, OUTPUTS)
        except InputError as error:
            assert len(str(error)) < 2000
        else:
            assert found.images.dtype == spec.dtype and found.images.shape[1:] == spec.shape[1:]
            assert np.isfinite(found.images).all()
            outputs = {name: np.zeros((len(found.images), 3), np.float32) for name in OUTPUTS}
            make_response("m", found, outputs, "1")

    kinds = st.sampled_from(sorted(SPECS))
    documents = kinds.flatmap(
        lambda kind: st.tuples(
            st.just(kind),
            (nearly(request(kind)) | nearly(in_binary(kind)) | JSON).map(lambda value: json.dumps(value).encode())
            | nearly_bytes(json.dumps(request(kind)).encode()),
            st.binary(max_size=40) | st.just(bytes(8)) | st.just(bytes(32)),
            st.none() | st.text(CHARACTERS, max_size=6) | st.integers(-2, 2**70).map(str),
        )
    )
    hunt(documents, check, seconds)
