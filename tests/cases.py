"""The golden files, and a network small enough to export in seconds."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from evodeploy.models.loaded import LoadedModel
from evodeploy.models.zoo import EvoDeiTConfig

GOLDEN = Path(__file__).parent / "golden"
INDEX = json.loads((GOLDEN / "index.json").read_text())

_spec = importlib.util.spec_from_file_location("recipe", GOLDEN / "recipe.py")
recipe = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(recipe)

SMALL = EvoDeiTConfig(
    "evo_deit_test", width=64, heads=2, depth=6, image_size=64, patch_size=8, mlp_ratio=2.0, num_classes=10,
    stages=(2, 4),
)  # fmt: skip


def published(model: str) -> dict[str, torch.Tensor]:
    """The whole published state dict of `model` with the recipe's weights."""
    keys = json.loads((GOLDEN / "keys" / f"{model}.json").read_text())
    return {name: torch.from_numpy(np.array(value)) for name, value in recipe.checkpoint(keys).items()}


def golden_tags(prefix: str) -> list[str]:
    return [tag for tag in INDEX if tag.startswith(prefix)]


def golden_images(tag: str) -> torch.Tensor:
    entry = INDEX[tag]
    return torch.from_numpy(recipe.images(entry["batch"], entry["image_size"], entry["seed"]))


def golden_outputs(tag: str) -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / "outputs" / f"{tag}.npz"))


def sharpened(small: LoadedModel, proto: onnx.ModelProto, gain: int) -> tuple[LoadedModel, onnx.ModelProto]:
    """The model and its graph with sharper attention: at a `gain` of 2 float32 loses a hundred times the usual."""
    module, graph = copy.deepcopy(small.module), onnx.ModelProto()
    graph.CopyFrom(proto)
    for name, parameter in module.named_parameters():
        if ".norm1." in name:
            parameter.data *= gain
    for tensor in graph.graph.initializer:
        if ".norm1." in tensor.name:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * gain, tensor.name))
    return dataclasses.replace(small, module=module), graph
