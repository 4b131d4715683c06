"""Every image decoded once and given to every artefact."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evodeploy.engines.base import Engine, run_all
from evodeploy.engines.finite import PROBLEM, not_finite
from evodeploy.engines.opener import open_engine
from evodeploy.errors import BadFileError, EvodeployError, RuntimeFailedError, UsageError
from evodeploy.evaluation.data import Labelled, LabelledImages, labelled_images
from evodeploy.evaluation.journal import Answer, Journal
from evodeploy.evaluation.report import Contender, Evaluation, evaluation
from evodeploy.files import check_output, sha256
from evodeploy.images import open_image
from evodeploy.inference.answers import ranked
from evodeploy.inference.pipeline import pipelined
from evodeploy.kinds import JOURNAL, kind_of
from evodeploy.preprocess import as_input, assumption, cropped, difference
from evodeploy.specs import EngineOptions, ModelInfo, Preprocessing
from evodeploy.text import printable

_log = logging.getLogger(__name__)

TOP = 5

Progress = Callable[[Iterable[Answer], int], Iterable[Answer]]  # passes answers on, and shows how many of how many

_Seen = tuple[int, Preprocessing]  # what decides how a picture is resized and cropped
_Pictures = dict[_Seen, NDArray[np.uint8]]


@dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate, on what; with `journal` an interrupted run resumes from there, unless it begins `fresh`."""

    artefacts: tuple[Path, ...]
    data: Path
    labels: Path | None = None
    limit: int | None = None
    batch: int = 32
    engine: str | None = None
    options: EngineOptions = field(default_factory=EngineOptions)
    journal: Path | None = None
    fresh: bool = False


def evaluate(request: EvaluationRequest, progress: Progress | None = None) -> Evaluation:
    """Run all artefacts over the images.

    Raises UsageError for artefacts that do not name the same classes or a journal of another evaluation, BadFileError
    where no image can be evaluated. An image that cannot be read, or whose output is no number, does not count.
    """
    if request.journal is not None:
        check_output(request.journal, True, *request.artefacts, *filter(None, [request.labels]), kind=JOURNAL)
    with ExitStack() as stack:
        engines = [
            stack.enter_context(open_engine(path, request.engine, request.options)) for path in request.artefacts
        ]
        infos = _infos(engines, request.artefacts)
        data = labelled_images(request.data, request.labels, infos[0]).limited(request.limit)
        contenders = [
            Contender(path, engine.name, request.options.precision or info.precision, info)
            for path, engine, info in zip(request.artefacts, engines, infos, strict=True)
        ]
        _log.info(f"{len(data.images)} images; {data.mapping}")
        for warning in _warnings(request.artefacts, infos):
            _log.warning(warning)
        journal = Journal(request.journal, _task(contenders, data), request.fresh)
        if len(journal.answers) > len(data.images):
            raise BadFileError(
                f"{journal.path} has answers to {len(journal.answers)} images, expected {len(data.images)} at most: "
                "remove it, or pass --force to begin anew"
            )
        if journal.answers:
            _log.info(f"{len(journal.answers)} of them are known from {journal.path}")
        stack.enter_context(journal.open())
        left = data.images[len(journal.answers) :]
        answers = stack.enter_context(closing(_answers(left, request.artefacts, engines, infos, request.batch)))
        for answer in progress(answers, len(left)) if progress is not None else answers:
            journal.append(answer)
    report = evaluation(data.images, journal.answers, contenders)
    if not report.images:
        raise BadFileError(f"none of {len(data.images)} images can be evaluated; the first: {report.broken[0][1]}")
    return report


def _infos(engines: Sequence[Engine], paths: Sequence[Path]) -> list[ModelInfo]:
    infos = []
    for engine, path in zip(engines, paths, strict=True):
        if engine.info is None:
            raise BadFileError(f"{path} carries no evodeploy metadata: export its checkpoint with `evodeploy export`")
        infos.append(engine.info)
    exports = {
        info.source_sha256: info.class_names
        for info, path in zip(infos, paths, strict=True)
        if info.class_names and kind_of(path) != "checkpoint"
    }
    infos = [  # options of the export may have named a checkpoint's classes otherwise
        dataclasses.replace(info, class_names=exports.get(info.source_sha256, info.class_names))
        if kind_of(path) == "checkpoint"
        else info
        for info, path in zip(infos, paths, strict=True)
    ]
    names = next((info.class_names for info in infos if info.class_names), ())
    named = [info if info.class_names else dataclasses.replace(info, class_names=names) for info in infos]
    for info, path in zip(named, paths, strict=True):
        if (info.num_classes, info.class_names) != (infos[0].num_classes, names):
            raise UsageError(f"{paths[0]} and {path} do not name the same classes: evaluate them separately")
    return named


def _warnings(paths: Sequence[Path], infos: Sequence[ModelInfo]) -> Iterator[str]:
    """What is assumed of the preprocessing, and where it differs, so that accuracies are of two preparations."""
    for path, info in zip(paths, infos, strict=True):
        if warning := assumption(info):
            yield f"{path}: {warning}"
        if unlike := difference(infos[0], info):
            yield f"{paths[0]} and {path} prepare images differently ({unlike}): each is evaluated on its own"


def _task(contenders: Sequence[Contender], data: LabelledImages) -> dict[str, object]:
    """What must be the same for answers to be of use again."""
    return {
        "artefacts": [[sha256(each.path), each.engine, each.precision] for each in contenders],
        "images": data.checksum(),
    }


def _answers(
    images: Sequence[Labelled],
    paths: Sequence[Path],
    engines: Sequence[Engine],
    infos: Sequence[ModelInfo],
    batch: int,
) -> Generator[Answer, None, None]:
    """Each image cropped once for all artefacts that see it alike, and run through every one.

    An image for which one of them gives no number fails for all.
    """
    kinds = {(info.image_size, info.preprocessing) for info in infos}

    def prepare(image: Labelled) -> _Pictures:
        opened = open_image(image.path)
        return {kind: cropped(opened, *kind) for kind in kinds}

    def compute(pictures: list[_Pictures]) -> list[Answer | RuntimeFailedError]:
        ranks, shares = [], []
        errors: dict[int, RuntimeFailedError] = {}
        for path, engine, info in zip(paths, engines, infos, strict=True):
            seen = np.stack([each[info.image_size, info.preprocessing] for each in pictures])
            prepared = as_input(seen, info)
            began = time.perf_counter()
            outputs = run_all(engine, prepared, batch)
            shares.append((time.perf_counter() - began) / len(pictures))
            ranks.append(ranked(outputs, info, min(TOP, info.top_k or TOP))[1].tolist())
            errors |= {int(i): RuntimeFailedError(f"{path}: {PROBLEM}") for i in np.flatnonzero(not_finite(outputs))}
        answers = [Answer(tuple(map(tuple, each)), tuple(shares)) for each in zip(*ranks, strict=True)]
        return [errors.get(i, answer) for i, answer in enumerate(answers)]

    def failed(image: Labelled, error: EvodeployError) -> Answer:
        return Answer(error=printable(str(error)))

    return pipelined(images, prepare, compute, failed, batch=batch, preparers=os.cpu_count() or 1)
