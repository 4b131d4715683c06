"""The command line: parse, call, print. Stages are imported inside commands, so that `--help` responds at once."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from evodeploy import __version__
from evodeploy.cli import (
    batch,
    bench,
    bisect,
    build,
    debug,
    distill,
    ending,
    evaluate,
    export,
    inspect,
    load_test,
    margins,
    models,
    package,
    predict,
    profile,
    serve,
    sweep,
    verify,
    visualize,
)


class App(typer.Typer):
    """A Typer app that ends as described in `evodeploy.cli.ending`."""

    def __call__(self, arguments: Sequence[str] | None = None) -> NoReturn:
        """Run the command line on `arguments`, by default the process's own, and exit through `sys.exit`."""
        code = ending.run(self, sys.argv[1:] if arguments is None else arguments)
        if arguments is None:  # the exit code is fixed: nothing may change it while Python shuts down
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.exit(code)


app = App(
    name="evodeploy",
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
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            callback=ending.remember_verbose,
            expose_value=False,
            is_eager=True,
            help="Log everything, also what TensorRT says, and the traceback of a failure.",
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            callback=ending.be_quiet,
            expose_value=False,
            is_eager=True,
            help="Log warnings only, and show no progress.",
        ),
    ] = False,
) -> None: ...


app.command("models", cls=ending.Command)(models.models)
app.command("init", cls=ending.Command)(models.init)
app.command("distill", cls=ending.Command)(distill.distill)
app.command("export", cls=ending.Export)(export.export)
app.command("build-engine", cls=ending.Command)(build.build_engine)
app.command("refit", cls=ending.Command)(build.refit)
app.command("verify", cls=ending.Command)(verify.verify)
app.command("debug", cls=ending.Command)(debug.debug)
app.command("bisect", cls=ending.Command)(bisect.bisect)
app.command("eval", cls=ending.Command)(evaluate.evaluate)
app.command("visualize", cls=ending.Command)(visualize.visualize)
app.command("margins", cls=ending.Command)(margins.margins)
app.command("bench", cls=ending.Command)(bench.bench)
app.command("profile", cls=ending.Command)(profile.profile)
app.command("sweep", cls=ending.Command)(sweep.sweep)
app.command("predict", cls=ending.Command)(predict.predict)
app.command("serve", cls=ending.Command)(serve.serve)
app.command("load-test", cls=ending.Command)(load_test.load_test)
app.command("batch", cls=ending.Command)(batch.batch)
app.command("package", cls=ending.Command)(package.package)
app.command("inspect", cls=ending.Command)(inspect.inspect)
app.command("doctor", cls=ending.Command)(inspect.doctor)
