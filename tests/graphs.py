"""ONNX files of a few nodes."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from evodeploy.onnx_files import info_of, read_onnx, set_info, write_onnx


def value(name, shape=(None, 3), kind=TensorProto.FLOAT):
    """The description of an input or output."""
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(nodes, inputs, outputs, weights=None, opset=20):
    """A network of `nodes` between described inputs and outputs; `weights` are arrays by name."""
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def write_graph(path, *parts):
    """Write the `model_of` these parts to `path`."""
    onnx.save(model_of(*parts, opset=18), path)
    return path


def restated(source, path, /, **facts):
    """Write a copy of the ONNX file `source` whose metadata say something else to `path`."""
    model = read_onnx(source)
    set_info(model, dataclasses.replace(info_of(model), **facts))
    write_onnx(model, path)
    return path


def sharded(source, folder):
    """The ONNX file `source` in `folder` as a graph and, in a file of their own, its weights: both paths."""
    path = folder / "model.onnx"
    onnx.save(onnx.load(source), path, save_as_external_data=True, location="weights.bin")
    return path, folder / "weights.bin"


def retrained(weights):
    """Change one bit of the file `weights`."""
    data = weights.read_bytes()
    weights.write_bytes(bytes([data[0] ^ 1]) + data[1:])
