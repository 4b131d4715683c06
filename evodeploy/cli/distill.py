"""`evodeploy distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import evodeploy
from evodeploy.cli import options, values
from evodeploy.cli.console import Force, Json, answer
from evodeploy.cli.values import real, whole


def distill(
    checkpoint: Annotated[Path, values.artefact("A .pth, .pt or .safetensors file, or hf://OWNER/NAME@REVISION.")],
    images: Annotated[Path, typer.Option(help=f"Images to train on, labels are not needed: {options.DATA}.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The checkpoint to write.")],
    keep_ratio: Annotated[
        str | None,
        typer.Option(help="Share of tokens kept: one for all stages, or 0.7,0.5. Default: 0.5, or as trained."),
    ] = None,
    elastic: Annotated[
        str | None, typer.Option(help="Train for every keep ratio between two: 0.2:1.0.", metavar="LOW:HIGH")
    ] = None,
    stages: options.Stages = None,
    fast_path: options.FastPath = None,
    image_size: options.ImageSize = None,
    epochs: Annotated[
        float | None, real("--epochs", 0.001, 10**6, "Times that each image is seen. Default: 8.")
    ] = None,
    minutes: Annotated[float | None, real("--minutes", 0.01, 10**6, "Minutes to train, in place of --epochs.")] = None,
    val: Annotated[
        Path | None, typer.Option(help="Images to evaluate on; by default every fifth of --images, not trained on.")
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="Learn from the classes of --images too, and measure accuracy.")
    ] = False,
    class_map: options.ClassMap = None,
    teacher: Annotated[
        str | None, typer.Option(help="Another checkpoint to learn from; by default the network itself, dense.")
    ] = None,  # not a Path, which would turn hf:// into hf:/
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; the first GPU where there is one.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="Precision of products: fp32, bf16 or fp16. Default: one that is fast here.")
    ] = None,
    batch: Annotated[int, whole("--batch", 1, values.BATCH, "Images of one step.")] = 8,
    micro_batch: Annotated[
        int | None, whole("--micro-batch", 1, values.BATCH, "Images computed at once; less takes less memory.")
    ] = None,
    rate: Annotated[
        float | None, real("--rate", 1e-9, 1, "The largest learning rate. Default: 2e-5, or 5e-6 where tokens merge.")
    ] = None,
    augment: Annotated[
        bool | None,
        typer.Option(
            "--augment/--no-augment", help="Crop, mirror, change brightness; by default if that suits the images."
        ),
    ] = None,
    seed: Annotated[int, whole("--seed", 0, values.SEED, "The same seed gives the same weights.")] = 0,
    threads: options.Threads = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted training from OUTPUT.part.")] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Train a checkpoint to need fewer tokens, without labels.

    It learns to give its dense outputs with fewer tokens.
    """
    record = evodeploy.distill(
        checkpoint,
        images,
        output,
        keep_ratio=values.ratios(keep_ratio),
        elastic=values.ratio_range("--elastic", elastic),
        stages=values.blocks(stages),
        fast_path=fast_path,
        image_size=image_size,
        epochs=epochs,
        minutes=minutes,
        val=val,
        labels=labels,
        class_map=class_map,
        teacher=teacher,
        device=device,
        precision=precision,
        threads=threads,
        batch=batch,
        micro_batch=micro_batch,
        rate=rate,
        augment=augment,
        seed=seed,
        resume=resume,
        force=force,
    )
    if record.rank:  # only one of several processes prints the result
        return
    bounds = record.recipe.elastic
    elastic_option = "" if bounds is None else " --elastic {:g}:{:g}".format(*bounds)
    answer(record, as_json, f"next: evodeploy export {output}{elastic_option}")
