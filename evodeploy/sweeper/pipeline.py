"""The Python function that runs one sweep, from its checkpoint to its files."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evodeploy.arguments import checked, several_names
from evodeploy.engines.deploy_file import SCHEMA, DeployFile
from evodeploy.errors import UsageError, VerificationError, needs
from evodeploy.files import sha256
from evodeploy.machine.cores import usable_cores
from evodeploy.machine.cpu import processor_name
from evodeploy.models.hub import local
from evodeploy.preprocess import assumption
from evodeploy.specs import EngineOptions, FastPath
from evodeploy.sweeper.begin import begun
from evodeploy.sweeper.front import Point, chosen, front
from evodeploy.sweeper.measuring import measured
from evodeploy.sweeper.picture import as_svg
from evodeploy.sweeper.request import SweepRequest
from evodeploy.sweeper.result import Sweep
from evodeploy.sweeper.search import Keep
from evodeploy.sweeper.space import DENSE, KEEPS, candidates, usual_engines
from evodeploy.sweeper.state import State
from evodeploy.text import json_text

if TYPE_CHECKING:
    from evodeploy.models.loaded import LoadedModel

PathLike = str | os.PathLike[str]

_log = logging.getLogger(__name__)


@checked
def sweep(
    checkpoint: PathLike,
    output: PathLike,
    *,
    keeps: Sequence[float | Sequence[float]] | None = None,
    by_stage: bool = False,
    precisions: str | Sequence[str] = ("fp32", "bf16"),
    engines: str | Sequence[str] | None = None,
    data: PathLike | None = None,
    labels: PathLike | None = None,
    class_map: PathLike | None = None,
    limit: int | None = None,
    images: PathLike | None = None,
    batch: int = 8,
    seconds: float = 6.0,
    budget: float | None = None,
    target_latency: float | None = None,
    min_accuracy: float | None = None,
    fast_path: FastPath | None = None,
    threads: int | None = None,
    force: bool = False,
) -> Sweep:
    """Try keep ratios, precisions and engines on `checkpoint`, and find what is worth deploying.

    `keeps` are shares of tokens to keep; a sequence gives one candidate's share for each stage. By default they are 1.0
    to 0.3, or only 1.0 for a network that was not trained with selection. With `by_stage` they are searched stage by
    stage. `precisions` are some of fp32, bf16, fp16 and int8. INT8 is calibrated on `images`, or else on `data`.
    `engines` run ONNX files, by default the installed ones for a CPU. Accuracy is measured on `limit` of the labelled
    images in `data`, with `labels` and `class_map` as for `evaluate`; throughput at `batch` images, for `seconds` in
    total per candidate. After `budget` seconds nothing new is begun.

    If the network can be elastic, several keep ratios are run from one file for each stored precision; otherwise each
    ratio has separate files. `fast_path` is the treatment of tokens that are not kept, as for `export`.

    Everything is written below the folder `output`, and an interrupted sweep is resumed from there; `force` starts it
    over. With a `target_latency`, in seconds of a batch, the most accurate candidate that meets it is chosen; with
    `min_accuracy`, a share of the images, the fastest. It is written to `chosen.onnx`, with `deploy.toml`, which states
    how to run it. If none meets the target, `unmet` of the result gives the reason.

    Raises UsageError if options contradict each other or are not possible, BadFileError if a file cannot be read.
    """
    if batch < 1 or not seconds > 0 or (limit is not None and limit < 1):
        raise UsageError(
            f"batch is {batch}, seconds {seconds} and limit {limit}, expected 1 or more, above 0, 1 or more"
        )
    for what, target, most in (("target_latency", target_latency, math.inf), ("min_accuracy", min_accuracy, 1)):
        if target is not None and not 0 <= target <= most:
            raise UsageError(f"{what} is {target}, expected {'seconds' if most > 1 else 'a share from 0 to 1'}")
    cores = usable_cores() if threads is None else threads
    EngineOptions(cores)  # raises for a number that no engine accepts
    source, folder = local(checkpoint), Path(output)
    with needs("export"):
        from evodeploy.models.checkpoint import load_checkpoint
    model = load_checkpoint(source, fast_path=fast_path)
    if unstated := assumption(model.info):
        _log.warning(unstated)
    ratios = _keeps(model, keeps, by_stage)
    if fast_path is not None and all(ratio == 1 for each in ratios for ratio in each):
        raise UsageError("--fast-path changes nothing where every token is kept: add --keep, such as 1.0,0.7")
    searched = tuple(each[0] for each in ratios) if by_stage else ()
    first = [(max(searched),)] if by_stage else ratios
    wanted = usual_engines() if engines is None else several_names(engines)
    tried, refused = candidates(first, several_names(precisions), wanted)
    if not tried:
        raise UsageError(f"nothing can be tried: {'; '.join(refused.values())}")
    for what, reason in refused.items():
        _log.info(f"left out: {what}: {reason}")
    request = SweepRequest(
        source, folder, tuple(tried), _path(data), _path(labels), _path(class_map), limit, _path(images), batch,
        cores, seconds, budget, searched, min_accuracy, _elastic(model, ratios), fast_path,
    )  # fmt: skip
    with begun(request, force) as state:
        points, left_out = measured(request, state)
        pick, unmet = None, None
        if target_latency is not None or min_accuracy is not None:
            try:
                pick = chosen(points, target_latency, min_accuracy)
            except VerificationError as error:
                unmet = str(error)
        found = Sweep(tuple(points), tuple(front(points)), refused | left_out, pick, batch, request.threads, unmet)
        files = tuple(folder / name for name in _written(found, request, state))
    return dataclasses.replace(found, files=files)


def _keeps(model: LoadedModel, asked: Sequence[float | Sequence[float]] | None, by_stage: bool) -> Sequence[Keep]:
    """Return the keep ratios to try, one for each stage or one for all. Raises UsageError if some are not possible."""
    from evodeploy.models.untrained import warning
    from evodeploy.models.zoo import with_selection

    if asked is not None and not asked:
        raise UsageError("no keep ratio is given, expected some such as 1.0, 0.7")
    ratios: Sequence[Keep] = KEEPS if model.trained_to_select or by_stage else DENSE
    if asked is not None:
        ratios = [tuple(each) if isinstance(each, Sequence) else (each,) for each in asked]
    wrong = [ratio for each in ratios for ratio in each or (0,) if not 0 < ratio <= 1]
    if wrong:
        raise UsageError(f"a keep ratio is {wrong[0]}, expected numbers above 0 and up to 1")
    for each in ratios:
        if len(each) > 1:
            with_selection(model.config, each)  # raises if the network has another number of stages
    if by_stage and any(len(each) > 1 for each in ratios):
        raise UsageError("--by-stage finds the stages' ratios itself: give --keep ratios without slashes")
    if not model.trained_to_select:
        selecting = any(ratio < 1 for each in ratios for ratio in each)
        _log.warning(
            warning(model) if selecting else f"{model.config.name} was not trained with selection: trying 1.0 alone"
        )
    return ratios


def _elastic(model: LoadedModel, ratios: Sequence[Keep]) -> bool:
    """Return whether one file holds all `ratios`, which needs several. Logs if the network cannot be elastic."""
    from evodeploy.models.loaded import ANY_SHARE, with_elastic

    if len(set(ratios)) == 1:  # a static file is enough for one ratio
        return False
    try:
        with_elastic(model, ANY_SHARE)
    except UsageError as error:
        _log.info(f"{error}; so each keep ratio is a separate file")
        return False
    return True


def _path(given: PathLike | None) -> Path | None:
    return None if given is None else Path(given)


def _written(found: Sweep, request: SweepRequest, state: State) -> Iterator[str]:
    """Write the results, and yield their names."""
    with state.replacing("sweep.json") as draft:
        draft.write_text(json_text(found.to_dict()) + "\n", encoding="utf-8")
    yield "sweep.json"
    if request.data is not None:
        with state.replacing("front.svg") as draft:
            heading = f"{request.checkpoint.stem}: accuracy and throughput"
            draft.write_text(as_svg(found.points, found.front, heading), encoding="utf-8")
        yield "front.svg"
    if found.chosen is not None:
        with state.replacing("chosen.onnx") as draft:
            shutil.copy(request.folder / found.chosen.file, draft)
        yield "chosen.onnx"
        with state.replacing("deploy.toml") as draft:
            checksum = sha256(request.folder / "chosen.onnx")
            draft.write_text(_deploy_file(found.chosen, checksum, request).to_toml(), encoding="utf-8")
        yield "deploy.toml"


def _deploy_file(point: Point, checksum: str, request: SweepRequest) -> DeployFile:
    """Return the deploy file of the point. The measurements in it are for people."""
    each, accuracy = point.candidate, point.accuracy
    measured = {
        "candidate": str(each),
        "images_per_second": round(point.rate, 2),
        "batch": request.batch,
        "milliseconds_of_a_batch": round(1e3 * point.seconds, 3),
        "threads": request.threads,
        "processor": processor_name(),
    }
    if accuracy is not None:
        measured |= {"top1": accuracy.value, "top1_low": accuracy.low, "top1_high": accuracy.high}
    precision = each.options(1).precision
    kept = (each.keep[0] if len(each.keep) == 1 else each.keep) if request.elastic else None
    return DeployFile(SCHEMA, "chosen.onnx", checksum, each.engine, precision, keep_ratio=kept, measured=measured)
