"""Checkpoint file to ONNX file: traced, compared with PyTorch, converted where asked, and only then kept."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from torch import nn

from evodeploy.compare.parity import Check
from evodeploy.engines.device import onnxruntime_extra
from evodeploy.errors import UsageError, VerificationError, needs
from evodeploy.exporter.to_onnx import BF16_OPSET, DEFAULT_OPSET, onnx_from_model
from evodeploy.files import replacing
from evodeploy.graph.precision import reduced_from_onnx
from evodeploy.images import image_paths
from evodeploy.models.adopted import name_of
from evodeploy.models.checkpoint import LoadedModel, load_checkpoint, with_interface
from evodeploy.models.preprocessing import Stated
from evodeploy.models.untrained import selection_note
from evodeploy.onnx_files import save_onnx
from evodeploy.preprocess import as_input, assumption, folder_pictures, in_words, pictures, random_pictures
from evodeploy.specs import Converted, InputFormat, Quantized, Selection

if TYPE_CHECKING:
    from evodeploy.graph.ranges import LargestActivation

_log = logging.getLogger(__name__)

CALIBRATION = 256  # images that INT8 is calibrated on, at most


@dataclass(frozen=True)
class ExportRequest:
    """What to export, and how; what is None is told from the checkpoint, or the default."""

    checkpoint: Path | nn.Module
    output: Path
    model: str | None = None
    batch: int | None = None
    opset: int | None = None
    keep_ratios: tuple[float, ...] | None = None
    selection: Selection | None = None
    tokens: bool = False
    ema: bool = False
    precision: Converted | None = None
    verify: bool = True
    stages: tuple[int, ...] | None = None
    image_size: int | None = None
    images: Path | None = None  # a folder to measure activations on, before FP16 or INT8
    input_format: InputFormat = "float32"
    top_k: int | None = None
    stated: Stated | None = None  # of the preprocessing, before what the checkpoint says
    class_names: Path | None = None  # a file, see `read_class_names`


@dataclass(frozen=True)
class Exported:
    """What was written: the model it is, the graph's nodes, and the checks that it passed before it was kept."""

    model: LoadedModel
    nodes: int
    checks: tuple[Check, ...]


def export_checkpoint(request: ExportRequest) -> Exported:
    """Write the ONNX file; what is being done, and each check, is logged.

    Raises VerificationError where ONNX Runtime and PyTorch differ, or where an activation exceeds what FP16 holds, on
    the images given or on random ones, UsageError for INT8 or FP8 without images; nothing is written then.
    """
    if request.precision in ("int8", "fp8") and request.images is None:
        raise UsageError(f"--{request.precision} is calibrated on images like those it will see: add --images DIR")
    model = load_checkpoint(
        request.checkpoint,
        model=request.model,
        ema=request.ema,
        keep_ratios=request.keep_ratios,
        selection=request.selection,
        stages=request.stages,
        image_size=request.image_size,
        stated=request.stated,
        class_names=request.class_names,
    )
    if not model.trained_to_select and request.keep_ratios is None and (request.stages or request.selection):
        raise UsageError(
            f"{model.config.name} was not trained with selection and keeps every token, so --stages and --selection "
            "change nothing: add --keep-ratio, such as 0.7"
        )
    model = with_interface(model, request.input_format, request.top_k)
    config = model.config
    kept = ", ".join(f"{ratio:g}" for ratio in config.keep_ratios)
    told = f"{config.num_classes} classes" if config.num_classes else "no classifier, so features are exported"
    name = request.checkpoint if isinstance(request.checkpoint, Path) else name_of(request.checkpoint)
    _log.info(f"{name}: {config.name}, {config.image_size} px, {told}, keep ratio {kept}")
    if model.trained_at:
        _log.warning(
            f"position embeddings trained at {model.trained_at} px are interpolated for "
            f"{config.image_size} px: what that costs in accuracy no check of the export shows"
        )
    selecting = selection_note(model)
    if selecting is not None:
        _log.info(selecting)
    if warning := assumption(model.info):
        _log.warning(warning)
    if request.input_format != "float32":
        _log.info(f"the graph takes bytes and normalises them; before it, of an RGB image: {in_words(model.info)}")
    _log.info("exporting")
    proto = onnx_from_model(model, opset=_opset(request), batch=request.batch, tokens=request.tokens)
    with replacing(request.output) as draft:
        save_onnx(proto, draft)
        checks = _verified(model, draft) if request.verify else ()
        if request.precision == "int8" or request.precision == "fp8":
            proto = _quantized(model, proto, request.precision, request.images)
            save_onnx(proto, draft)
        elif request.precision is not None:
            if request.precision == "fp16" and request.verify:
                _log.info(f"largest activation: {_check_range(model, proto, request.images)}; FP16 holds 65504")
            reduced = reduced_from_onnx(proto, request.precision)
            _log.info(f"converted to {request.precision.upper()}, {len(reduced.kept_fp32)} nodes kept in FP32")
            proto = reduced.proto
            save_onnx(proto, draft)
    return Exported(model, len(proto.graph.node), checks)


def _opset(request: ExportRequest) -> int:
    """The opset asked for, or the lowest that has every operator in the precision asked for; raises UsageError."""
    needed = BF16_OPSET if request.precision == "bf16" else DEFAULT_OPSET
    if request.opset is not None and request.precision == "bf16" and request.opset < needed:
        raise UsageError(f"--bf16 needs opset {needed} or higher, not {request.opset}: leave out --opset")
    return needed if request.opset is None else request.opset


def _verified(model: LoadedModel, path: Path) -> tuple[Check, ...]:
    with needs(onnxruntime_extra()):
        from evodeploy.compare.export import verify_export

    _log.info("comparing ONNX Runtime with PyTorch")
    checks = []
    for check in verify_export(model, path):
        checks.append(check)
        _log.info(f"  {'ok  ' if check.passed else 'FAIL'} batch {check.batch}: {check.output}, {check.detail}")
    failed = [check for check in checks if not check.passed]
    if failed:
        first = failed[0]
        raise VerificationError(
            f"the ONNX does not compute what PyTorch does: {len(failed)} of {len(checks)} checks failed, first "
            f"{first.output} at batch {first.batch} ({first.detail}); nothing was written"
        )
    return tuple(checks)


def _quantized(
    model: LoadedModel,
    proto: onnx.ModelProto,
    precision: Quantized,
    folder: Path | None,
) -> onnx.ModelProto:
    with needs(onnxruntime_extra()):
        from evodeploy.graph.quantization import quantized_from_onnx

    assert folder is not None  # refused above
    paths = image_paths(folder)
    # Spread over the folder, which may be sorted by class.
    count = min(CALIBRATION, len(paths))
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    quantized = quantized_from_onnx(proto, as_input(pictures(chosen, model.info), model.info), precision)
    _log.info(
        f"{quantized.quantized} linear layers quantized to {precision.upper()}, calibrated on {count} images; "
        f"{len(quantized.kept_float)} other products kept in FP32"
    )
    return quantized.proto


def _check_range(model: LoadedModel, proto: onnx.ModelProto, folder: Path | None) -> LargestActivation:
    with needs(onnxruntime_extra()):
        from evodeploy.graph.ranges import check_fp16_range

    # Random ones in full contrast, which gives the largest activations.
    images = random_pictures(model.info, 2) if folder is None else folder_pictures(folder, model.info)
    return check_fp16_range(proto, as_input(images, model.info))
