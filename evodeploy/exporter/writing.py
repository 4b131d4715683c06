"""Writing a network as an ONNX file: traced, compared with PyTorch, and converted to the precision."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evodeploy.datasets.examples import spread
from evodeploy.datasets.sources import images_of
from evodeploy.engines.device import onnxruntime_extra
from evodeploy.errors import VerificationError, needs
from evodeploy.onnx_files import save_onnx
from evodeploy.preprocess import as_input, assumption, in_words, pictures
from evodeploy.specs import Precision, Quantized

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from evodeploy.compare.parity import Check
    from evodeploy.graph.changed import Changed
    from evodeploy.models.loaded import LoadedModel

_log = logging.getLogger(__name__)

CALIBRATION = 256  # the most images that INT8 and FP8 are calibrated on


def log_model(model: LoadedModel, source: Path | nn.Module) -> None:
    """Log what is exported, and warn of anything that may change its predictions."""
    from evodeploy.models.adopted import name_of
    from evodeploy.models.untrained import selection_note

    config = model.config
    kept = ", ".join(f"{ratio:g}" for ratio in config.keep_ratios)
    classes = f"{config.num_classes} classes" if config.num_classes else "no classifier, so features are exported"
    name = source if isinstance(source, Path) else name_of(source)
    _log.info(f"{name}: {config.name}, {config.image_size} px, {classes}, keep ratio {kept}")
    if model.trained_at:
        _log.warning(
            f"position embeddings trained at {model.trained_at} px are interpolated for "
            f"{config.image_size} px: the checks of the export do not show what that costs in accuracy"
        )
    selecting = selection_note(model)
    if selecting is not None:
        _log.log(logging.INFO if model.info.dense else logging.WARNING, selecting)
    if warning := assumption(model.info):
        _log.warning(warning)
    if model.info.input_format != "float32":
        _log.info(f"the graph takes bytes and normalises them; prepare an RGB image as follows: {in_words(model.info)}")
    if model.info.elastic:
        bounds = ", ".join(f"{stage.low} to {stage.high} of {stage.tokens}" for stage in model.info.elastic)
        _log.info(f"elastic: each run says how many tokens its stages keep, {bounds}")


def write(
    model: LoadedModel,
    draft: Path,
    opset: int,
    batch: int | None,
    tokens: bool,
    precision: Precision,
    keep_fp32: Sequence[str],
    images: Path | None,
    verify: bool,
) -> tuple[onnx.ModelProto, tuple[Check, ...], Mapping[str, str]]:
    """Write `model` to `draft` in FP32, verify it, and convert it to `precision`; the last result is `kept_fp32`."""
    from evodeploy.exporter.to_onnx import onnx_from_model
    from evodeploy.graph.precision import reduced_from_onnx

    _log.info("exporting")
    proto = onnx_from_model(model, opset=opset, batch=batch, tokens=tokens)
    save_onnx(proto, draft)
    checks = _verified(model, draft) if verify else ()
    if precision == "fp32":
        return proto, checks, {}
    if precision == "int8" or precision == "fp8":
        assert images is not None  # checked before
        converted = _quantized(model, proto, precision, keep_fp32, images)
    else:
        converted = reduced_from_onnx(proto, precision, keep_fp32)
        converted.check_changed(precision, keep_fp32)
        if precision == "fp16" and verify:
            with needs(onnxruntime_extra()):
                from evodeploy.graph.ranges import largest_activation

            largest_activation(proto, images, converted.kept)
        _log.info(f"converted to {precision.upper()}, {len(converted.kept)} nodes kept in FP32")
    save_onnx(converted.model, draft)
    return converted.model, checks, converted.kept


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
    model: LoadedModel, proto: onnx.ModelProto, precision: Quantized, keep_fp32: Sequence[str], folder: Path
) -> Changed:
    with needs(onnxruntime_extra()):
        from evodeploy.graph.quantization import quantized_from_onnx

    chosen = spread(images_of(folder), CALIBRATION)
    quantized = quantized_from_onnx(proto, as_input(pictures(chosen, model.info), model.info), precision, keep_fp32)
    _log.info(
        f"{quantized.count} linear layers quantized to {precision.upper()}, calibrated on {len(chosen)} images; "
        f"{len(quantized.kept)} other products kept in FP32"
    )
    return quantized
