"""`evodeploy export`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, cast

import typer

from evodeploy.cli import values
from evodeploy.cli.console import Force, Json, Stopwatch, result, result_json, size_of
from evodeploy.cli.values import real, whole
from evodeploy.errors import UsageError, needs
from evodeploy.files import check_input, claimed
from evodeploy.kinds import ONNX
from evodeploy.specs import Converted, CropMode, InputFormat, Interpolation, Selection


def export(
    context: typer.Context,
    checkpoint: Annotated[Path, values.artefact("A .pth, .pt or .safetensors file, or hf://OWNER/NAME@REVISION.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: next to the checkpoint.")] = None,
    model: Annotated[
        str | None, typer.Option(help="The published model it is; told from its tensors otherwise.")
    ] = None,
    batch: Annotated[str, typer.Option(help="'dynamic', or one fixed batch size.")] = "dynamic",
    opset: Annotated[int | None, whole("--opset", 18, 23, "ONNX operator set; 20 by default, 22 with --bf16.")] = None,
    keep_ratio: Annotated[
        str | None,
        typer.Option(
            help="Share of tokens kept: one for all stages, or 0.7,0.5. 1.0 is the dense twin, and what a network "
            "not trained with selection gets by default."
        ),
    ] = None,
    selection: Annotated[Selection | None, typer.Option(help="Select tokens per stage or per layer.")] = None,
    stages: Annotated[
        str | None, typer.Option(help="Blocks before which selecting stages begin, counted from 0: 4,8 for example.")
    ] = None,
    image_size: Annotated[
        int | None,
        whole("--image-size", 1, values.SIDE, "Pixels a side, where not as trained: positions are interpolated."),
    ] = None,
    input_format: Annotated[
        InputFormat,
        typer.Option("--input", help="What the graph takes: normalised floats, or bytes (uint8 NHWC or uint8-nchw)."),
    ] = "float32",
    top_k: Annotated[
        int | None,
        whole("--top-k", 1, values.CLASSES, "Give the K best classes and their probabilities in place of all logits."),
    ] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Add outputs with the positions that were kept.")] = False,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Store and compute in FP16; build-engine does so by itself.")
    ] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Store and compute in BF16, at opset 22 or higher.")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantize the linear layers to INT8, calibrated on --images.")
    ] = False,
    fp8: Annotated[
        bool, typer.Option("--fp8", help="The same to FP8 (E4M3), which TensorRT has for Ada and later.")
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option(help="A folder of images to measure activations on: for 8 bits, and the range check of --fp16."),
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="Of the channels in [0, 1], as trained: one number, or R,G,B.", metavar="NUMBERS")
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="Deviation of the channels, as trained: one number, or R,G,B.", metavar="NUMBERS")
    ] = None,
    crop_pct: Annotated[
        float | None,
        real("--crop-pct", 0.25, 1, "Share of the resized image that the centre crop keeps: 0.875 for example."),
    ] = None,
    crop_mode: Annotated[
        CropMode | None, typer.Option(help="center keeps the aspect ratio, squash resizes both sides alike.")
    ] = None,
    interpolation: Annotated[Interpolation | None, typer.Option(help="How images are resized.")] = None,
    class_names: Annotated[
        Path | None, typer.Option(help="A file of class names: one a line, or JSON.", metavar="FILE")
    ] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Take the checkpoint's averaged weights.")] = False,
    verify: Annotated[bool, typer.Option(help="Compare with PyTorch after export.")] = True,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Turn a checkpoint into one self-contained ONNX file, compared with PyTorch before it is kept."""
    clock = Stopwatch()
    precision = values.one_precision(fp16=fp16, bf16=bf16, int8=int8, fp8=fp8)
    path = output or _named_after(checkpoint).with_suffix(f".{precision}.onnx" if precision else ".onnx")
    if images is not None and not (int8 or fp8 or (fp16 and verify)):
        raise UsageError(
            "--images serves --int8, --fp8 and the range check of --fp16: leave it out, or add one (--fp16 + --verify)"
        )
    fixed = values.fixed_batch(batch)
    asked, starts = values.ratios(keep_ratio), values.blocks(stages)
    channels = values.channels("--mean", mean), values.channels("--std", std)
    check_input(checkpoint, "a checkpoint")  # before its folder is found missing as that of the output
    with needs("export"):
        from evodeploy.exporter.pipeline import ExportRequest, export_checkpoint
        from evodeploy.models.preprocessing import stated_by_options
    context.with_resource(claimed([(path, ONNX)], force, checkpoint, *filter(None, [images, class_names])))
    request = ExportRequest(
        checkpoint, path, model, fixed, opset, asked, selection, tokens, ema, cast("Converted | None", precision),
        verify, starts, image_size, images, input_format, top_k,
        stated_by_options(*channels, interpolation, crop_pct, crop_mode), class_names,
    )  # fmt: skip
    exported = export_checkpoint(request)
    config, checks = exported.model.config, exported.checks
    if as_json:
        result_json(
            {
                "onnx": str(path),
                "bytes": path.stat().st_size,
                "seconds": clock.seconds,
                "model": config.name,
                "precision": precision or "fp32",
                "keep_ratios": list(config.keep_ratios),
                "input": input_format,
                "top_k": top_k,
                "preprocessing": dataclasses.asdict(exported.model.info.preprocessing),
                "nodes": exported.nodes,
                "verified": verify,
                "checks": [{"output": c.output, "batch": c.batch, "error": c.error, "limit": c.limit} for c in checks],
            }
        )
        return
    told = f"all {len(checks)} checks passed" if verify else "not verified"
    result(f"{path}  {size_of(path)}  {clock.seconds:.1f} s  {told}")
    result(f"next: evodeploy build-engine {path}{'' if precision else ' --fp16'}")
    result(f"      evodeploy bench {checkpoint} {path}")


def _named_after(checkpoint: Path) -> Path:
    """The checkpoint, or of one in the hub's cache its name in this folder."""
    from evodeploy.hub import origin

    name = origin(checkpoint)
    return checkpoint if name is None else Path(name.rpartition("@")[0].rpartition("/")[2] + checkpoint.suffix)
