"""Small networks, each with one fault that FP16 makes large, and a sound one."""

from __future__ import annotations

import numpy as np
import onnx
from graphs import model_of, value
from onnx import helper, numpy_helper

WIDTH = 16


def network(fault: str = "") -> onnx.ModelProto:
    """Two blocks of attention and layers on (batch, 8, 16) floats; `fault` is outliers, epsilon, softmax or nothing."""
    random = np.random.default_rng(7)
    weights: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []

    def weight(name: str, *shape: int, scale: float = 1.0) -> str:
        weights[name] = (random.standard_normal(shape) * scale / np.sqrt(shape[0])).astype(np.float32)
        return name

    def node(name: str, *inputs: str, **attributes) -> str:
        nodes.append(helper.make_node(name.rpartition("/")[2].split("_")[0], inputs, [f"{name}:0"], name, **attributes))
        return f"{name}:0"

    def block(index: int, x: str) -> str:
        at, faulty = f"blocks.{index}", fault if index == 1 else ""
        residual = x
        if faulty == "epsilon":  # rows that are nearly constant: what differs is small against 300
            weights["small"], weights["offset"] = np.float32([1e-2]), np.float32([300])
            x = node(f"{at}/Add", node(f"{at}/Mul", x, "small"), "offset")
        weights[f"{at}.scale"], weights[f"{at}.bias"] = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
        epsilon = 1e-12 if faulty == "epsilon" else 1e-6
        x = node(f"{at}.norm/LayerNormalization", x, f"{at}.scale", f"{at}.bias", axis=-1, epsilon=epsilon)
        query, key, value = (
            node(f"{at}.attn.{name}/MatMul", x, weight(f"{at}.{name}", WIDTH, WIDTH)) for name in ("q", "k", "v")
        )
        logits = node(f"{at}.attn/MatMul", query, node(f"{at}.attn/Transpose", key, perm=[0, 2, 1]))
        if faulty == "softmax":  # which takes out what all logits have in common
            weights["common"] = np.float32([3000])
            logits = node(f"{at}.attn/Add", logits, "common")
        mixed = node(f"{at}.attn/MatMul_2", node(f"{at}.attn/Softmax", logits, axis=-1), value)
        wide = weight(f"{at}.fc1", WIDTH, 2 * WIDTH)
        narrow = weight(f"{at}.fc2", 2 * WIDTH, WIDTH)
        if faulty == "outliers":  # one channel of 1e5, which the next layer takes back
            weights[wide][:, 3] *= 8e4
            weights[narrow][3] /= 8e4
        hidden = node(f"{at}.mlp/Relu", node(f"{at}.mlp.fc1/MatMul", mixed, wide))
        return node(f"{at}/Add_2", residual, node(f"{at}.mlp.fc2/MatMul", hidden, narrow))

    last = node("head/MatMul", block(1, block(0, "x")), weight("head", WIDTH, 4))
    nodes[-1].output[0] = "logits"
    assert last == "head/MatMul:0"
    model = model_of(nodes, [value("x", ("batch", 8, WIDTH))], [value("logits", ("batch", 8, 4))], weights)
    onnx.checker.check_model(model, full_check=True)
    return model


def with_weight(model: onnx.ModelProto, name: str, factor: float) -> onnx.ModelProto:
    """A copy whose weight `name`, of any precision, has one number multiplied by `factor`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensor = next(each for each in copy.graph.initializer if each.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values[2, 1] = values[2, 1] * values.dtype.type(factor)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return copy
