"""`evodeploy export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import evodeploy
from evodeploy.cli import options, values
from evodeploy.cli.console import Force, Json, answer
from evodeploy.cli.values import real, whole
from evodeploy.specs import CropMode, InputFormat, Interpolation, Selection


def export(
    checkpoint: Annotated[str, typer.Argument(help="A .pth, .pt or .safetensors file, or hf://OWNER/NAME@REVISION.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: next to the checkpoint; of one of the hub, here.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The published model it is; inferred from its tensors otherwise.")
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
    elastic: Annotated[
        str | None,
        typer.Option(
            help="Let each run choose its keep ratio, from LOW to HIGH; without them from 0.1 to 1.0. --keep-ratio "
            "is the default of a run.",
            metavar="[LOW:HIGH]",
        ),
    ] = None,
    selection: Annotated[Selection | None, typer.Option(help="Select tokens per stage or per layer.")] = None,
    stages: options.Stages = None,
    fast_path: options.FastPath = None,
    image_size: options.ImageSize = None,
    input_format: Annotated[
        InputFormat,
        typer.Option("--input", help="What the graph takes: normalised floats, or bytes (uint8 NHWC or uint8-nchw)."),
    ] = "float32",
    top_k: Annotated[
        int | None,
        whole("--top-k", 1, values.CLASSES, "Output the top K classes and probabilities in place of all logits."),
    ] = None,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Add outputs with the tokens that each selection keeps.")
    ] = False,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Store and compute in FP16; build-engine does so by itself.")
    ] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Store and compute in BF16, at opset 22 or higher.")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantize the linear layers to INT8, calibrated on --images.")
    ] = False,
    fp8: Annotated[
        bool, typer.Option("--fp8", help="Quantize the linear layers to FP8 (E4M3), for TensorRT on Ada and later.")
    ] = False,
    keep_fp32: options.KeepFp32 = None,
    images: Annotated[
        Path | None, typer.Option(help="Images to measure activations on: for 8 bits, and the range check of --fp16.")
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(help="Mean of the channels in [0, 1], as trained: one number, or R,G,B.", metavar="NUMBERS"),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(help="Standard deviation of the channels, as trained: one number, or R,G,B.", metavar="NUMBERS"),
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
    verify: Annotated[bool, typer.Option(help="Compare with PyTorch before the file is kept.")] = True,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Turn a checkpoint into an ONNX file, and compare them.

    The file is self-contained, and kept only if it agrees with PyTorch.
    """
    precision = values.one_precision(fp16=fp16, bf16=bf16, int8=int8, fp8=fp8) or "fp32"
    done = evodeploy.export(
        checkpoint,
        output,
        model=model,
        batch=values.fixed_batch(batch),
        opset=opset,
        keep_ratio=values.ratios(keep_ratio),
        selection=selection,
        stages=values.blocks(stages),
        fast_path=fast_path,
        elastic=True if elastic == "" else values.ratio_range("--elastic", elastic),
        tokens=tokens,
        ema=ema,
        precision=precision,
        keep_fp32=keep_fp32 or (),
        verify=verify,
        image_size=image_size,
        images=images,
        input_format=input_format,
        top_k=top_k,
        mean=values.channels("--mean", mean),
        std=values.channels("--std", std),
        crop_pct=crop_pct,
        crop_mode=crop_mode,
        interpolation=interpolation,
        class_names=class_names,
        force=force,
    )
    answer(
        done,
        as_json,
        f"next: evodeploy build-engine {done.path}{' --fp16' if precision == 'fp32' else ''}",
        f"      evodeploy bench {checkpoint} {done.path}",
    )
