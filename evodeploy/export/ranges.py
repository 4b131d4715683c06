"""How large the activations of an ONNX model become, measured on images: what FP16 cannot hold, what INT8 must."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from evodeploy.engines.base import Array, batches
from evodeploy.engines.onnxruntime_engine import OnnxRuntimeEngine
from evodeploy.errors import VerificationError
from evodeploy.onnx_files import write_onnx
from evodeploy.specs import EngineOptions

FP16_LARGEST = 65504.0
CHUNK = 8  # images at a time


@dataclass(frozen=True)
class LargestActivation:
    """The value of a graph that becomes largest, its magnitude, and on how many images that was measured."""

    name: str
    magnitude: float
    images: int

    def __str__(self) -> str:
        return f"'{self.name}' reaches {self.magnitude:.3g} on {self.images} images"


def check_fp16_range(model: onnx.ModelProto, images: Array) -> LargestActivation:
    """What becomes largest in the FP32 `model` on `images`; raises VerificationError where FP16 cannot hold it."""
    ranges = activation_ranges(model, images)
    beyond = {name: magnitude for name, magnitude in ranges.items() if not magnitude <= FP16_LARGEST}
    name, magnitude = max((beyond or ranges).items(), key=lambda item: item[1])
    largest = LargestActivation(name, magnitude, len(images))
    if beyond:
        others = f" and {len(beyond) - 1} other activations as far or less" if len(beyond) > 1 else ""
        raise VerificationError(
            f"the activation {largest}{others}, beyond FP16's {FP16_LARGEST:.0f}: take --bf16 or FP32; "
            "nothing was written"
        )
    return largest


def activation_ranges(model: onnx.ModelProto, images: Array, values: Collection[str] | None = None) -> dict[str, float]:
    """The largest magnitude on `images` of the `values` named, or of every float32 value that `model` computes.

    Each value's magnitude is reduced inside the graph, so that memory does not grow with their number.
    """
    floats = sorted(values) if values is not None else _floats(model)
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    for name in floats:
        probe.graph.node.append(helper.make_node("Abs", [name], [f"{name}_magnitude"]))
        probe.graph.node.append(helper.make_node("ReduceMax", [f"{name}_magnitude"], [f"{name}_range"], keepdims=0))
        probe.graph.output.append(helper.make_tensor_value_info(f"{name}_range", TensorProto.FLOAT, ()))
    with tempfile.TemporaryDirectory(prefix="evodeploy-") as folder:
        path = Path(folder, "ranges.onnx")
        write_onnx(probe, path)
        with OnnxRuntimeEngine(path, EngineOptions(device="cpu")) as engine:
            found = [engine.run(batch) for batch, _ in batches(engine.batch, images, CHUNK)]
    return {name.removesuffix("_range"): float(np.max([part[name] for part in found])) for name in found[0]}


def _floats(model: onnx.ModelProto) -> list[str]:
    inferred = onnx.shape_inference.infer_shapes(model)
    return [
        value.name
        for value in (*inferred.graph.value_info, *inferred.graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    ]
