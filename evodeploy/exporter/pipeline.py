"""Checkpoint or module to ONNX file: traced, compared with PyTorch, converted if asked, and only then kept."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from evodeploy.arguments import checked
from evodeploy.engines.opener import resolved
from evodeploy.errors import UsageError, needs
from evodeploy.exporter.record import Export
from evodeploy.exporter.writing import log_model, write
from evodeploy.files import check_input, claimed, replacing
from evodeploy.kinds import ONNX
from evodeploy.models.hub import origin
from evodeploy.onnx_files import info_of
from evodeploy.specs import CropMode, FastPath, InputFormat, Interpolation, Precision, Selection

if TYPE_CHECKING:
    from torch import nn

BOUNDS = (0.1, 1.0)  # the keep ratios of an elastic file by default


@checked
def export(
    source: str | os.PathLike[str] | nn.Module,
    output: str | os.PathLike[str] | None = None,
    *,
    model: str | None = None,
    batch: int | None = None,
    opset: int | None = None,
    keep_ratio: float | Sequence[float] | None = None,
    selection: Selection | None = None,
    stages: Sequence[int] | None = None,
    fast_path: FastPath | None = None,
    elastic: tuple[float, float] | Literal[True] | None = None,
    tokens: bool = False,
    ema: bool = False,
    precision: Precision = "fp32",
    keep_fp32: Sequence[str] = (),
    verify: bool = True,
    image_size: int | None = None,
    images: str | os.PathLike[str] | None = None,
    input_format: InputFormat = "float32",
    top_k: int | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    crop_pct: float | None = None,
    crop_mode: CropMode | None = None,
    interpolation: Interpolation | None = None,
    class_names: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Export:
    """Export `source` to a self-contained ONNX file, which is compared with PyTorch before it is kept.

    Args:
        source: A checkpoint's path, `hf://OWNER/NAME@REVISION`, or a module of timm, transformers or this package.
        output: The file to write. Default: next to the checkpoint, or in the current folder for one from the hub.
        model: The name of the published model; inferred from the tensors by default.
        batch: A fixed batch size; dynamic by default.
        opset: The ONNX operator set, 18 to 23; 20 by default, 22 in BF16.
        keep_ratio: The share of tokens kept, above 0 and up to 1: one for all stages, or one for each. By default what
            the network was trained with, or every token if it was not trained with selection.
        selection: Select tokens once per stage or in every layer.
        stages: The blocks before which selecting stages begin, counted from 0.
        fast_path: What happens to tokens that are not kept: they `rest`, or `merge` into the kept ones most like them.
            By default what the network was trained with, or `merge` if it was not trained with selection.
        elastic: Let each run choose how many tokens it keeps, between these shares of them; True is (0.1, 1.0). The
            file has a second input, `keep`, and `keep_ratio` is the default of a run.
        tokens: Add outputs with the positions that were kept.
        ema: Use the checkpoint's averaged weights.
        precision: The precision of weights and activations. INT8 and FP8 quantize the linear layers.
        keep_fp32: Nodes that stay in FP32 when the others are converted: patterns of names and operator types, such as
            `blocks.11.*` and `Softmax`.
        verify: Compare ONNX Runtime with PyTorch, in FP32, and check that FP16 holds every activation.
        image_size: Pixels of a side. If it is not the trained size, position embeddings are interpolated.
        images: Images to measure activations on, see `evaluate`: for INT8 and FP8, and the range check of FP16.
        input_format: The input of the graph: normalised floats, or bytes that it normalises itself.
        top_k: Return the K best classes and their probabilities instead of all logits.
        mean: The mean of the channels in [0, 1] in training: one number or three. This and the next four arguments
            override what the source states.
        std: The standard deviation of the channels in training: one number or three.
        crop_pct: The share of the resized image that the centre crop keeps.
        crop_mode: `center` keeps the aspect ratio, `squash` resizes both sides to the same length.
        interpolation: The filter that resizes images.
        class_names: A file of class names: one per line, or JSON.
        force: Replace an existing output.

    Raises:
        VerificationError: ONNX Runtime and PyTorch differ, or an activation exceeds what FP16 holds.
        UsageError: The arguments contradict each other or do not fit the network.
        BadFileError: The source is not a checkpoint of a known family.

    If an error is raised, nothing is written.
    """
    begun = time.perf_counter()
    _check_images(precision, images is not None, verify=verify)
    if keep_fp32 and precision == "fp32":
        raise UsageError("--keep-fp32 is for --fp16, --bf16, --int8 and --fp8: FP32 keeps every node, leave it out")
    folder = None if images is None else Path(images)
    names = None if class_names is None else Path(class_names)
    checkpoint = resolved(source)
    if isinstance(checkpoint, Path):
        check_input(checkpoint, "a checkpoint")  # first, so that a missing folder is not reported for the output
    path = _default_output(checkpoint, precision) if output is None else Path(output)
    with needs("export"):
        from evodeploy.exporter.to_onnx import opset_for
        from evodeploy.models.checkpoint import load_checkpoint
        from evodeploy.models.loaded import with_elastic, with_interface
        from evodeploy.models.preprocessing import stated_by_options
    opset = opset_for(precision, opset)
    inputs = (each for each in (checkpoint, folder, names) if isinstance(each, Path))
    with claimed([(path, ONNX)], force, *inputs):
        loaded = load_checkpoint(
            checkpoint,
            model=model,
            ema=ema,
            keep_ratios=_several(keep_ratio),
            selection=selection,
            stages=None if stages is None else tuple(stages),
            fast_path=fast_path,
            image_size=image_size,
            stated=stated_by_options(_channels(mean), _channels(std), interpolation, crop_pct, crop_mode),
            class_names=names,
        )
        if (
            not loaded.trained_to_select
            and keep_ratio is None
            and elastic is None
            and (stages or selection or fast_path)
        ):
            raise UsageError(
                f"{loaded.config.name} was not trained with selection and keeps every token, so --stages, "
                "--selection and --fast-path change nothing: add --keep-ratio, such as 0.7"
            )
        loaded = with_interface(loaded, input_format, top_k)
        if elastic is not None:
            loaded = with_elastic(loaded, BOUNDS if elastic is True else elastic)
        log_model(loaded, checkpoint)
        with replacing(path) as draft:
            proto, checks, kept = write(loaded, draft, opset, batch, tokens, precision, keep_fp32, folder, verify)
    info = info_of(proto)
    assert info is not None  # every export has it
    return Export(path, path.stat().st_size, time.perf_counter() - begun, len(proto.graph.node), info, checks, kept)


def _check_images(precision: Precision, images: bool, *, verify: bool) -> None:
    """Raise UsageError if `precision` needs images and there are none, or if there are images and nothing uses them."""
    if precision in ("int8", "fp8"):
        if not images:
            raise UsageError(f"--{precision} is calibrated on images like those it will see: add --images DIR")
    elif images and not (precision == "fp16" and verify):
        raise UsageError(
            "--images is for --int8, --fp8 and the range check of --fp16: leave it out, or add one (--fp16 + --verify)"
        )


def _default_output(checkpoint: Path | nn.Module, precision: Precision) -> Path:
    """Return the path next to the checkpoint, or here if it is in the hub's cache; raises UsageError for a module."""
    if not isinstance(checkpoint, Path):
        raise UsageError("a module has no file, so its export needs a name: give the output, such as 'model.onnx'")
    name = origin(checkpoint)
    if name is not None:
        checkpoint = Path(name.rpartition("@")[0].rpartition("/")[2] + checkpoint.suffix)
    return checkpoint.with_suffix(".onnx" if precision == "fp32" else f".{precision}.onnx")


def _several(numbers: float | Sequence[float] | None) -> tuple[float, ...] | None:
    """Return one number or several as a tuple."""
    if numbers is None:
        return None
    return tuple(numbers) if isinstance(numbers, Sequence) else (numbers,)


def _channels(numbers: float | Sequence[float] | None) -> tuple[float, ...] | None:
    """Return one number for all three channels, or one for each."""
    given = _several(numbers)
    return given * 3 if given is not None and len(given) == 1 else given
