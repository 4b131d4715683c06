"""`evodeploy models` and `evodeploy init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evodeploy.cli import values
from evodeploy.cli.console import Force, Json, result, result_json, show, size_of
from evodeploy.cli.values import whole
from evodeploy.errors import needs


def models(as_json: Json = False) -> None:
    """List the published models: sizes, cost, and the tokens that each block computes on."""
    from evodeploy.models.cost import cost_of
    from evodeploy.models.zoo import ZOO, dense_twin

    rows = [(config, cost_of(config), cost_of(dense_twin(config))) for config in ZOO.values()]
    if as_json:
        result_json(
            [
                {
                    "name": config.name,
                    "image_size": config.image_size,
                    "parameters": cost.parameters,
                    "gflops": cost.gflops,
                    "dense_gflops": dense.gflops,
                    "tokens_per_block": list(config.tokens_per_block),
                }
                for config, cost, dense in rows
            ]
        )
        return
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("model", "input", "parameters", "GFLOPs", "dense twin", "tokens per block"):
        table.add_column(heading, justify="left" if heading in ("model", "tokens per block") else "right")
    for config, cost, dense in rows:
        side = f"{config.image_size}×{config.image_size}"
        tokens = _runs(config.tokens_per_block)
        table.add_row(
            config.name, side, f"{cost.parameters / 1e6:.1f} M", f"{cost.gflops:.2f}", f"{dense.gflops:.2f}", tokens
        )
    show(table)
    result("\nGFLOPs: one multiply-add counted as one, as the papers do, for one image.")


def _runs(tokens: tuple[int, ...]) -> str:
    """196, 196, 98 as 2×196 1×98."""
    runs: list[list[int]] = []
    for count in tokens:
        if runs and runs[-1][1] == count:
            runs[-1][0] += 1
        else:
            runs.append([1, count])
    return " ".join(f"{times}×{count}" for times, count in runs)


def init(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A published model; `evodeploy models` lists them.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The checkpoint to write.")] = None,
    seed: Annotated[int, whole("--seed", 0, values.SEED, "Seed of the random weights.")] = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a checkpoint of random weights in the published format: to measure speed, no training is needed."""
    from evodeploy.files import claimed
    from evodeploy.kinds import CHECKPOINT
    from evodeploy.models.zoo import named

    config = named(name)
    path = output or Path(f"{name}.pth")
    context.with_resource(claimed([(path, CHECKPOINT)], force))
    with needs("export"):
        from evodeploy.models.checkpoint import random_model, save_checkpoint
    save_checkpoint(random_model(config, seed), path)
    if as_json:
        result_json({"checkpoint": str(path), "bytes": path.stat().st_size, "model": name, "seed": seed})
        return
    result(f"{path}  {size_of(path)}  {name}, random weights of seed {seed}")
    result(f"next: evodeploy export {path}")
