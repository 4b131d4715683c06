"""`evodeploy visualize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evodeploy.cli import options, values
from evodeploy.cli.console import Force, Json, note, progress, result, result_json

OVERVIEW = "overview.png"


def visualize(
    context: typer.Context,
    artefact: Annotated[Path, values.artefact("A checkpoint, or an ONNX file or engine exported with --tokens.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, and folders of them with all below.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for the pictures; made if missing.")],
    engine: options.EngineName = None,
    device: options.Device = None,
    precision: options.Precision = None,
    cuda_graph: options.CudaGraph = False,
    threads: options.Threads = None,
    cache: options.Cache = None,
    tf32: options.Tf32 = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Draw which patches of images each selection kept, and the class attention it chose by."""
    from evodeploy.engines.opener import open_engine
    from evodeploy.errors import UsageError
    from evodeploy.files import check_output, made_folder, replacing
    from evodeploy.images import image_paths
    from evodeploy.kinds import PICTURE
    from evodeploy.locks import owned
    from evodeploy.visualization.evolution import evolutions
    from evodeploy.visualization.figure import figure, overview, save_png

    paths = [path for image in images for path in (image_paths(image) if image.is_dir() else [image])]
    targets = [output / f"{path.stem}.png" for path in paths] + [output / OVERVIEW] * (len(paths) > 1)
    twice = next((target for target in targets if targets.count(target) > 1), None)
    if twice is not None:
        raise UsageError(f"several pictures would be called {twice}: give images of different names")
    context.with_resource(made_folder(output))
    context.with_resource(owned(output / OVERVIEW))  # in place of each picture: there may be thousands
    for target in targets:
        check_output(target, force, artefact, *paths, kind=PICTURE)
    how = options.engine_options(device, precision, cuda_graph, threads, cache, tf32)
    with open_engine(artefact, engine, how, tokens=True) as opened:
        found = evolutions(opened, paths)
        model = f"{opened.info.model}, {opened.info.precision.upper()}" if opened.info else ""
    drawn = progress(zip(targets, paths, found, strict=False), len(paths), "drawing")
    for target, path, evolution in drawn:
        with replacing(target) as draft:
            save_png(figure(evolution, f"{path.name}  ·  {model}"), draft)
    if len(paths) > 1:
        with replacing(output / OVERVIEW) as draft:
            save_png(overview(found, [path.stem for path in paths]), draft)
    note(f"what stays in full colour went the slow path; {opened.name} ran it")
    if as_json:
        result_json({"pictures": [str(target) for target in targets]})
        return
    for target in targets:
        result(str(target))
