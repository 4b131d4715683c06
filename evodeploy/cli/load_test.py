"""`evodeploy load-test`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evodeploy.cli import token, values
from evodeploy.cli.console import Force, Json, answer, saved
from evodeploy.cli.values import real, whole


def load_test(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="The server: http://127.0.0.1:8000, or grpc://127.0.0.1:8001.")],
    rate: Annotated[
        str | None, typer.Option(help="Requests a second, one load after the other. Default: 10,20,40.")
    ] = None,
    connections: Annotated[
        int | None, whole("--connections", 1, 4096, "In place of --rate: clients that each wait for their answer.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Images to send, as for `evodeploy eval`; without it, one of noise.")
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="Compare answers with the images' folders, which name their classes.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="Send tensors for this model, to any Open Inference Protocol server.")
    ] = None,
    seconds: Annotated[float, real("--seconds", 0.1, values.SECONDS, "How long each load lasts.")] = 10.0,
    target: Annotated[
        float | None, real("--target", 0.01, 3_600_000, "An answer within this number of milliseconds is in time.")
    ] = None,
    keep_ratio: Annotated[
        float | None, real("--keep-ratio", 0.001, 1, "Ask an elastic model for this share of tokens.")
    ] = None,
    token_file: token.File = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the JSON document here too.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a report with plots, one page without a script.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Measure how a server answers under load.

    Latencies count from when each request was to be sent.
    """
    from evodeploy import load_test as tested
    from evodeploy.files import claimed
    from evodeploy.kinds import PAGE, REPORT

    outputs = [(path, kind) for path, kind in ((output, REPORT), (html, PAGE)) if path is not None]
    context.with_resource(claimed(outputs, force))
    test = tested(
        url,
        rates=values.rates(rate),
        connections=connections,
        images=images,
        labels=labels,
        model=model,
        seconds=seconds,
        target=None if target is None else target / 1000,
        keep_ratio=keep_ratio,
        token=token.read(token_file),
    )
    saved(test, outputs, force, lambda: answer(test, as_json))
