"""Exporting a network to ONNX with torch.onnx's dynamo exporter."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import warnings
from collections.abc import Iterator

import onnx
import torch

from evodeploy import __version__
from evodeploy.errors import RuntimeFailedError, UsageError
from evodeploy.exporter.elastic import Slotted, hold_keep, slot_names, slots_for
from evodeploy.exporter.node_names import name_nodes
from evodeploy.exporter.operators import translations
from evodeploy.models.deployed import Deployed
from evodeploy.models.folding import folded
from evodeploy.models.loaded import LoadedModel
from evodeploy.onnx_files import LARGEST, set_info
from evodeploy.preprocess import in_words
from evodeploy.specs import Precision

OPSETS = range(18, 24)

# No opset with the Attention operator, because no runtime gains by it. ONNX Runtime and OpenVINO are equally fast with
# both forms (ratios 0.98 to 1.02). TensorRT 10 does not have the operator. TensorRT for RTX fuses MatMul, Softmax and
# MatMul in FP16 as well as Attention, and includes the layout of the output: Evo-DeiT-S has 109 kernels, with the
# operator 121.
DEFAULT_OPSET = 20
# The first whose convolution takes BF16, and the first whose QuantizeLinear and DequantizeLinear take float8.
_LOWEST_OPSETS: dict[Precision, int] = {"bf16": 22, "fp8": 19}


def opset_for(precision: Precision, opset: int | None) -> int:
    """Return `opset`, or by default one that has every operator in `precision`.

    Raises UsageError if `opset` is too low for `precision`.
    """
    lowest = _LOWEST_OPSETS.get(precision, 0)
    if opset is None:
        return max(lowest, DEFAULT_OPSET)
    if opset < lowest:
        raise UsageError(f"--{precision} needs opset {lowest} or higher, not {opset}: leave out --opset")
    return opset


def onnx_from_model(
    model: LoadedModel, *, opset: int = DEFAULT_OPSET, batch: int | None = None, tokens: bool = False
) -> onnx.ModelProto:
    """Trace `model` into a self-contained ONNX model whose only dynamic axis is the batch, or none if `batch` is set.

    Inputs and outputs are those of `Deployed` for `model.info` and `tokens`. The `keep` of an elastic model decides
    inner sizes, see `exporter.elastic`. Raises UsageError if the opset or the batch is out of range, or if the weights
    do not fit in one file.
    """
    if opset not in OPSETS:
        raise UsageError(f"opset {opset} is not supported: expected {OPSETS.start} to {OPSETS.stop - 1}")
    if batch is not None and batch < 1:
        raise UsageError(f"batch {batch} is not a batch size: expected 1 or more, or 'dynamic'")
    size = sum(parameter.nbytes for parameter in model.module.parameters())
    if size > LARGEST:
        raise UsageError(
            f"{model.config.name} has {size / 1e9:.2f} GB of weights in FP32, and an ONNX file holds up to "
            f"{LARGEST / 1e9:.2f} GB: run the checkpoint itself with PyTorch, or export a smaller network"
        )
    deployed = Deployed(dataclasses.replace(model, module=folded(model.module)), tokens)
    spec = model.info.input
    # The tracer would treat a batch of 1 as a constant.
    example = torch.zeros(batch or 2, *(size or 1 for size in spec.shape[1:]), dtype=getattr(torch, spec.dtype))
    batches = {} if batch else {0: torch.export.Dim("batch", min=1, max=1 << 16)}
    slots, lengths = slots_for(model.info.elastic)
    with _quiet():
        try:
            program = torch.onnx.export(
                Slotted(deployed) if slots else deployed,
                (example, *slots),
                dynamo=True,
                opset_version=opset,
                input_names=[spec.name, *slot_names(model.info.elastic)],
                output_names=[spec.name for spec in deployed.outputs],
                dynamic_shapes=(batches, *([lengths] if slots else [])),
                custom_translation_table=translations(opset),
                optimize=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise RuntimeFailedError(f"torch.onnx {torch.__version__} could not export {model.config.name}") from error
    assert program is not None  # dynamo=True always returns the program
    proto = program.model_proto
    if slots:
        hold_keep(proto, model.info.elastic)
    return _finished(proto, model, opset)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's progress messages, and its warnings about packages that it looks for."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _finished(proto: onnx.ModelProto, model: LoadedModel, opset: int) -> onnx.ModelProto:
    """Return the exporter's graph without details of this machine, adapted to TensorRT, and with the metadata."""
    name_nodes(proto.graph)
    for node in proto.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
        if node.op_type == "TopK":  # TensorRT's parser requires names of both outputs
            for i, name in enumerate(node.output):
                node.output[i] = name or f"{node.name}_values"
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info, *proto.graph.initializer):
        value.ClearField("metadata_props")
    normalised = "" if model.info.input_format == "float32" else ", not normalised"
    proto.graph.input[0].doc_string = f"RGB, {in_words(model.info)}{normalised}"
    proto.graph.ClearField("metadata_props")
    proto.graph.name = model.config.name
    versions = {"evodeploy": __version__, "torch": torch.__version__, "onnx": onnx.__version__, "opset": str(opset)}
    set_info(proto, dataclasses.replace(model.info, versions=versions))
    onnx.checker.check_model(proto, full_check=True)
    return proto
