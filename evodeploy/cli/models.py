"""`evodeploy models` and `evodeploy init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evodeploy.cli import values
from evodeploy.cli.console import Force, Json, answer, result, result_json, show
from evodeploy.cli.values import whole
from evodeploy.text import rich_table


def models(as_json: Json = False) -> None:
    """List the published models: sizes, cost, tokens per block."""
    from evodeploy.models.published import published_models

    rows = published_models()
    if as_json:
        result_json([row.to_dict() for row in rows])
        return
    left = ("model", "tokens per block")
    table = rich_table(("model", "input", "parameters", "GFLOPs", "dense twin", "tokens per block"), left)
    for row in rows:
        side, parameters = f"{row.image_size}×{row.image_size}", f"{row.parameters / 1e6:.1f} M"
        table.add_row(row.name, side, parameters, f"{row.gflops:.2f}", f"{row.dense_gflops:.2f}", row.token_runs)
    show(table)
    result("\nGFLOPs: one multiply-add counted as one, as the papers do, for one image.")


def init(
    name: Annotated[str, typer.Argument(help="A published model; `evodeploy models` lists them.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The checkpoint to write. Default: NAME.pth in this folder.")
    ] = None,
    seed: Annotated[int, whole("--seed", 0, values.SEED, "Seed of the random weights.")] = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a checkpoint of random weights, to measure speed.

    It has the published format.
    """
    from evodeploy.models.published import random_checkpoint

    done = random_checkpoint(name, output, seed=seed, force=force)
    answer(done, as_json, f"next: evodeploy export {done.path}")
