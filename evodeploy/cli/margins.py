"""`evodeploy margins`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evodeploy.cli import options, values
from evodeploy.cli.console import Json, note, result, result_json, show

if TYPE_CHECKING:
    from rich.table import Table

    from evodeploy.compare.margins import SelectionMargins, Spread


def margins(
    artefact: Annotated[Path, values.artefact("A checkpoint, or an ONNX file or engine exported with --tokens.")],
    images: Annotated[Path, typer.Option(help="A folder of images, such as the artefact will see.")],
    engine: options.EngineName = None,
    device: options.Device = None,
    precision: options.Precision = None,
    cuda_graph: options.CudaGraph = False,
    threads: options.Threads = None,
    cache: options.Cache = None,
    tf32: options.Tf32 = None,
    as_json: Json = False,
) -> None:
    """Tell how sure each selection is, and what keep ratio would hold most of the class attention."""
    from evodeploy.compare.margins import margins as margins_of
    from evodeploy.compare.selections import selecting
    from evodeploy.engines.opener import open_engine
    from evodeploy.preprocess import folder_pictures

    how = options.engine_options(device, precision, cuda_graph, threads, cache, tf32)
    with open_engine(artefact, engine, how, tokens=True) as opened:
        pictures = folder_pictures(images, selecting(opened))
        note(f"running {opened.name} on {len(pictures)} images")
        found = margins_of(opened, pictures)
    if as_json:
        result_json({"images": len(pictures), "selections": [dataclasses.asdict(each) for each in found]})
        return
    result(f"{artefact}, {len(pictures)} images: the median one, and in brackets what 95 % of them reach\n")
    show(_table(found))
    result("\nmargin: between the last score kept and the first dropped, relative to them")
    result("attention: the share of the class attention that the kept tokens hold")


def _table(found: list[SelectionMargins]) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    shares = list(found[0].keep_ratios)
    for heading in ("selection", "keeps", "margin", "attention", *(f"{share:.0%} of it at" for share in shares)):
        table.add_column(heading, justify="left" if heading == "selection" else "right")
    for each in found:
        table.add_row(
            each.name,
            f"{each.kept} of {each.tokens}",
            _told(each.margin, ".2%"),
            _told(each.attention, ".1%"),
            *(_told(each.keep_ratios[share], ".2f") for share in shares),
        )
    return table


def _told(spread: Spread, form: str) -> str:
    return f"{spread.median:{form}} ({spread.worst:{form}})"
