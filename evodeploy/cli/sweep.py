"""`evodeploy sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evodeploy.cli import values
from evodeploy.cli.console import Force, Json, result_json, show
from evodeploy.cli.options import ClassMap, FastPath, Labels, Limit, Threads
from evodeploy.cli.values import real, whole
from evodeploy.errors import VerificationError


def sweep(
    checkpoint: Annotated[Path, values.artefact("A .pth, .pt or .safetensors file, or hf://OWNER/NAME@REVISION.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder for all of it; an interrupted run resumes.")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Labelled images, as for `evodeploy eval`; without it, throughput alone.")
    ] = None,
    labels: Labels = None,
    class_map: ClassMap = None,
    limit: Limit = None,
    keep: Annotated[
        str | None,
        typer.Option(
            help="Keep ratios to try, by stage with a slash: 1.0,0.7,0.7/0.5. Default: 1.0 to 0.3, or 1.0 alone for "
            "a network that was not trained with selection."
        ),
    ] = None,
    by_stage: Annotated[
        bool,
        typer.Option(
            "--by-stage", help="Search the ratios of --keep stage by stage, on --data, down from the largest."
        ),
    ] = False,
    precisions: Annotated[str, typer.Option(help="Some of fp32, bf16, fp16, int8.")] = "fp32,bf16",
    engines: Annotated[str | None, typer.Option(help="Default: those installed that run ONNX files on a CPU.")] = None,
    images: Annotated[Path | None, typer.Option(help="Images to calibrate INT8 on. Default: those of --data.")] = None,
    batch: Annotated[int, whole("--batch", 1, values.BATCH, "Images run at a time.")] = 8,
    seconds: Annotated[
        float, real("--seconds", 0.1, values.SECONDS, "Measured time for each candidate, at most.")
    ] = 6.0,
    budget: Annotated[float | None, real("--budget", 0, 10**6, "Minutes after which nothing new is begun.")] = None,
    target_latency: Annotated[
        float | None,
        real(
            "--target-latency",
            0,
            10**6,
            "Choose the most accurate candidate whose batch takes at most this, in milliseconds.",
        ),
    ] = None,
    min_accuracy: Annotated[
        float | None,
        real("--min-accuracy", 0, 100, "Choose the fastest candidate that reaches this top-1, in percent."),
    ] = None,
    fast_path: FastPath = None,
    threads: Threads = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Find the best keep ratio, precision and engine to deploy.

    Candidates are compared by accuracy and throughput. Ends with 1 where no candidate meets the target; all that was
    measured is shown and written all the same.
    """
    from evodeploy.sweeper.pipeline import sweep as swept

    found = swept(
        checkpoint,
        output,
        keeps=values.keeps(keep) if keep else None,
        by_stage=by_stage,
        precisions=values.names("--precisions", precisions),
        engines=values.names("--engines", engines) if engines else None,
        data=data,
        labels=labels,
        class_map=class_map,
        limit=limit,
        images=images,
        batch=batch,
        seconds=seconds,
        budget=None if budget is None else 60 * budget,
        target_latency=None if target_latency is None else target_latency / 1000,
        min_accuracy=None if min_accuracy is None else min_accuracy / 100,
        fast_path=fast_path,
        threads=threads,
        force=force,
    )
    if as_json:
        result_json(found.to_dict())
    else:
        show(found)
    if found.unmet is not None:
        raise VerificationError(found.unmet)
