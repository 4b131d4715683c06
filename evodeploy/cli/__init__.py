"""The command line: parse, call, print. Stages are imported inside commands, so that `--help` answers at once."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from evodeploy import __version__
from evodeploy.cli import (
    batch,
    bench,
    build,
    evaluate,
    export,
    inspect,
    margins,
    models,
    package,
    predict,
    serve,
    verify,
    visualize,
)
from evodeploy.errors import EvodeployError


class App(typer.Typer):
    """A Typer app that ends with one sentence and the error's exit code instead of a stack trace."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line and leave through `sys.exit`."""
        try:
            return super().__call__(*args, **kwargs)
        except EvodeployError as error:
            print(f"Error: {error}", file=sys.stderr)
            sys.exit(error.exit_code)


app = App(
    name="evodeploy",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Deploy Evo-ViT: checkpoint to ONNX to TensorRT engine, verified and measured.",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"evodeploy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


app.command("models")(models.models)
app.command("init")(models.init)
app.command("export")(export.export)
app.command("build-engine")(build.build_engine)
app.command("refit")(build.refit)
app.command("verify")(verify.verify)
app.command("eval")(evaluate.evaluate)
app.command("visualize")(visualize.visualize)
app.command("margins")(margins.margins)
app.command("bench")(bench.bench)
app.command("predict")(predict.predict)
app.command("serve")(serve.serve)
app.command("batch")(batch.batch)
app.command("package")(package.package)
app.command("inspect")(inspect.inspect)
app.command("doctor")(inspect.doctor)
