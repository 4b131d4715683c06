"""Options that several commands share: the runtime of an artefact, its settings, and changes to a checkpoint."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from evodeploy.cli.values import IMAGES, SIDE, ratios, whole
from evodeploy.machine.cores import most_threads
from evodeploy.specs import EngineOptions
from evodeploy.specs import FastPath as FastPathName

if TYPE_CHECKING:
    from evodeploy.specs import Precision as PrecisionName

EngineName = Annotated[
    str | None,
    typer.Option("--engine", help="The runtime, such as onnxruntime; the first installed that fits by default."),
]
Device = Annotated[str | None, typer.Option("--device", help="Where to compute: cpu, cuda or cuda:N.")]
Precision = Annotated[
    str | None,
    typer.Option("--precision", help="Compute FP32 files in fp32, fp16 or bf16, where the runtime can convert them."),
]
CudaGraph = Annotated[
    bool, typer.Option("--cuda-graph", help="Record the GPU's work once for each batch size, and replay it.")
]
Threads = Annotated[
    int | None,
    whole("--threads", 1, most_threads(), "CPU threads. Default: all usable cores, shared among actors or replicas."),
]
Cache = Annotated[
    Path | None, typer.Option("--cache", help="A folder for what the runtime compiles: later starts are faster.")
]
Tf32 = Annotated[
    bool | None,
    typer.Option("--tf32/--no-tf32", help="On a GPU, let FP32 products round to TF32 or not. Default: the runtime's."),
]
FixedKeep = Annotated[
    str | None,
    typer.Option(
        "--fixed-keep",
        metavar="RATIO",
        help="Open an elastic file at this keep ratio only: 0.5, or one for each stage: 0.7,0.5. OpenVINO only.",
    ),
]
KeepRatio = Annotated[
    str | None,
    typer.Option(
        "--keep-ratio",
        metavar="RATIO",
        help="Share of tokens that an elastic artefact keeps: 0.5, or one for each stage: 0.7,0.5. Default: its own.",
    ),
]

KeepFp32 = Annotated[
    list[str] | None,
    typer.Option(
        "--keep-fp32",
        metavar="PATTERN",
        help="Keep in FP32 the nodes whose name or operator type matches; repeat it for more: 'blocks.11.*', Softmax. "
        "`evodeploy debug` proposes some.",
    ),
]

DATA = "a folder, webdataset tars (data-{000..009}.tar), Parquet files, or what `datasets` saved (FOLDER/SPLIT)"
Images = Annotated[
    Path | None, typer.Option("--images", help="Images, as for `evodeploy eval`; without it, random noise.")
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="Labels in place of the data's own: a CSV file path,label, or ImageNet's validation labels in any form.",
    ),
]
ClassMap = Annotated[
    Path | None,
    typer.Option(
        "--class-map", metavar="FILE", help="The model's class for each class of the data: CSV name,class, or JSON."
    ),
]
Limit = Annotated[int | None, whole("--limit", 1, IMAGES, "Use this many of the images, evenly spread over all.")]

Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        help="Join the Ray cluster at this address, or `auto` for that of this machine, instead of starting one.",
    ),
]

Stages = Annotated[
    str | None,
    typer.Option("--stages", help="Blocks before which selecting stages begin, counted from 0: 4,8 for example."),
]
FastPath = Annotated[
    FastPathName | None,
    typer.Option(
        "--fast-path",
        help="What happens to tokens that are not kept: rest, as in the published models, or merge into the most "
        "similar kept ones, the default for a network not trained with selection.",
    ),
]
ImageSize = Annotated[
    int | None,
    whole("--image-size", 1, SIDE, "Side of the images in pixels, if not as trained: positions are interpolated."),
]


ENGINE_OPTIONS = EngineOptions()  # the default


def engine_options(
    device: Device = None,
    precision: Precision = None,
    cuda_graph: CudaGraph = False,
    threads: Threads = None,
    cache: Cache = None,
    tf32: Tf32 = None,
    fixed_keep: FixedKeep = None,
) -> EngineOptions:
    """Return the options as an object of the library. Raises UsageError for values that no runtime accepts."""
    return EngineOptions(
        threads=threads,
        device=device,
        precision=cast("PrecisionName | None", precision),
        cuda_graph=cuda_graph,
        cache=cache,
        tf32=tf32,
        fixed_keep=ratios(fixed_keep, "--fixed-keep"),
    )


def opens_engine(command: Callable[..., None], *, without: Collection[str] = ()) -> Callable[..., None]:
    """Give `command` the options of `engine_options` instead of its parameter `how`, which receives their values.

    Options named in `without` are not offered, and keep their defaults.
    """
    signature = inspect.signature(command, eval_str=True)
    known = inspect.signature(engine_options, eval_str=True).parameters
    shared = [each for name, each in known.items() if name not in without]
    parameters = [new for each in signature.parameters.values() for new in (shared if each.name == "how" else [each])]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        how = engine_options(**{each.name: given.pop(each.name) for each in shared})
        command(**given, how=how)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # what Typer reads
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
