"""Evaluation: labelled images are decoded once, run through every artefact, and counted; interrupted runs resume."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evodeploy.arguments import checked
from evodeploy.artefacts import identity
from evodeploy.datasets.labelled import Labelled, LabelledImages, labelled_images
from evodeploy.engines.base import Array, Engine, run_all
from evodeploy.engines.finite import PROBLEM, not_finite
from evodeploy.engines.opener import Source, open_engine, resolved, several
from evodeploy.errors import BadFileError, EvodeployError, RuntimeFailedError, UsageError
from evodeploy.evaluation.contenders import Contender, contenders_of, warnings
from evodeploy.evaluation.journal import Answer, Journal
from evodeploy.evaluation.report import Evaluation, evaluation
from evodeploy.files import check_output, claimed, replacing
from evodeploy.images import open_image
from evodeploy.inference.answers import ranked
from evodeploy.inference.pipeline import pipelined
from evodeploy.kinds import JOURNAL, REPORT
from evodeploy.locks import owned
from evodeploy.machine.cores import usable_cores
from evodeploy.preprocess import as_input, cropped
from evodeploy.specs import EngineOptions, ModelInfo, Preprocessing
from evodeploy.text import json_text, left_out, printable

if TYPE_CHECKING:
    from torch import nn

_log = logging.getLogger(__name__)

TOP = 5

Progress = Callable[[int, int], None]  # number of images done, and of all

_Seen = tuple[int, Preprocessing]  # determines how a picture is resized and cropped
_Pictures = dict[_Seen, NDArray[np.uint8]]


@checked
def evaluate(
    artefacts: Source | Sequence[Source],
    data: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    class_map: str | os.PathLike[str] | None = None,
    real_labels: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    batch: int = 32,
    engine: str | None = None,
    options: EngineOptions | None = None,
    keep_ratio: float | Sequence[float] | None = None,
    output: str | os.PathLike[str] | None = None,
    journal: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure top-1 and top-5 accuracy of artefacts on labelled images, and whether they differ significantly.

    `artefacts` are one or several checkpoints, ONNX files, engines, names on the hub or modules. `data` is a folder of
    images, a glob or braces of webdataset tars or Parquet files, or a folder saved by Hugging Face's `datasets`. The
    classes are its folders or other labels in the data, or those in the file `labels`: a CSV table path,label, or
    ImageNet's validation labels. They are mapped to the model's classes by name, by WordNet id, by the file
    `class_map`, or by their order. With `real_labels`, a JSON file with a list for each validation image of ImageNet,
    an answer is right if it is any class in the image's list.

    With `limit`, that number of images is used, evenly spread over all. They run in batches of `batch`, in the runtime
    `engine`, with `options`. Elastic artefacts keep the share `keep_ratio` of their tokens, one for all stages or one
    for each, by default their own. Raises InputError if an artefact does not support it.

    The report is written to the JSON file `output`. Answers are saved in `journal` as they come, by default
    OUTPUT.part, from which the same call resumes after an interruption. The journal of an `output` is removed at the
    end. `force` replaces the output and starts over. `progress` is called with the number of images done and the number
    to do in this run, in the thread of the call.

    An image that cannot be read, or whose outputs are not finite, does not count. Raises UsageError if the artefacts'
    classes differ or the journal is of another evaluation, BadFileError if no image can be evaluated.
    """
    if batch < 1 or (limit is not None and limit < 1):
        raise UsageError(f"batch is {batch} and limit {limit}, expected 1 or more")
    sources = [resolved(each) for each in several(artefacts)]
    if not sources:
        raise UsageError("there are no artefacts: expected one or more")
    tables = {
        name: None if given is None else Path(given)
        for name, given in (("labels", labels), ("class_map", class_map), ("real_labels", real_labels))
    }
    inputs = [*(source for source in sources if isinstance(source, Path)), *filter(None, tables.values())]

    def listed(info: ModelInfo) -> LabelledImages:
        return labelled_images(Path(data), info, **tables).limited(limit)

    kept = None if journal is None else Path(journal)
    with ExitStack() as stack:
        if output is not None:
            output = Path(output)
            stack.enter_context(claimed([(output, REPORT)], force, *inputs))
            kept = kept or output.with_name(f"{output.name}.part")
        if kept is not None:
            check_output(kept, True, *inputs, kind=JOURNAL)
            stack.enter_context(owned(kept))
        report = _evaluated(sources, listed, batch, engine, options, keep_ratio, kept, force, progress)
        if output is not None and kept is not None:
            with replacing(output) as draft:
                draft.write_text(json_text(report.to_dict()) + "\n", encoding="utf-8")
            kept.unlink()
            _log.info(f"wrote {output}")
    return report


def _evaluated(
    sources: Sequence[Path | nn.Module],
    listed: Callable[[ModelInfo], LabelledImages],
    batch: int,
    engine: str | None,
    options: EngineOptions | None,
    keep_ratio: float | Sequence[float] | None,
    path: Path | None,
    fresh: bool,
    progress: Progress | None,
) -> Evaluation:
    """Run all `sources` over the images that `listed` returns for a model.

    With a `path` the answers are kept there, and resumed unless `fresh`.
    """
    with ExitStack() as stack:
        engines = [stack.enter_context(open_engine(source, engine, options)) for source in sources]
        contenders = contenders_of(sources, engines, keep_ratio)
        data = listed(contenders[0].info)
        _log.info(f"{len(data.images)} images; {data.mapping}")
        for warning in warnings(contenders):
            _log.warning(warning)
        journal = Journal(path, _task(contenders, data) if path is not None else {}, fresh)
        if len(journal.answers) > len(data.images):
            raise BadFileError(
                f"{journal.path} has answers for {len(journal.answers)} images, expected {len(data.images)} at most: "
                "remove it, or pass --force to start over"
            )
        if journal.answers:
            _log.info(f"{len(journal.answers)} of them are known from {journal.path}")
        stack.enter_context(journal.open())
        left = data.images[len(journal.answers) :]
        answers = stack.enter_context(closing(_answers(left, contenders, engines, batch)))
        for done, answer in enumerate(answers, 1):
            journal.append(answer)
            if progress is not None:
                progress(done, len(left))
    report = evaluation(data, journal.answers, contenders)
    if not report.images:
        raise BadFileError(f"none of {len(data.images)} images can be evaluated; the first: {report.broken[0][1]}")
    for line in left_out([f"{name}: {reason}" for name, reason in report.broken]):
        _log.info(line)
    return report


def _task(contenders: Sequence[Contender], data: LabelledImages) -> dict[str, object]:
    """Return the facts that must be equal to reuse answers. Raises UsageError for a module, which has no checksum."""
    for each in contenders:
        if not isinstance(each.source, Path):
            raise UsageError(f"{each.title} is a module, which no journal can identify: leave out output and journal")
    return {
        "artefacts": [
            [identity(each.source), each.engine, each.device, each.precision, each.tf32]
            for each in contenders
            if isinstance(each.source, Path)
        ],
        "keep_ratios": [list(each.info.keep_ratios) for each in contenders],
        "images": data.checksum(),
    }


def _answers(
    images: Sequence[Labelled], contenders: Sequence[Contender], engines: Sequence[Engine], batch: int
) -> Generator[Answer, None, None]:
    """Yield the answers to each image, cropped once for all artefacts with the same preprocessing.

    If an output of any artefact is not finite, the image fails for all. The artefact that runs first rotates, because
    decoding takes most of the CPU during the first run of a batch.
    """
    infos = [each.info for each in contenders]
    kinds = {(info.image_size, info.preprocessing) for info in infos}
    turns = itertools.count()
    warm: set[int] = set()  # batch sizes that all engines have run

    def prepare(image: Labelled) -> _Pictures:
        opened = open_image(image.image)
        return {kind: cropped(opened, *kind) for kind in kinds}

    def timed(contender: Contender, engine: Engine, pictures: list[_Pictures]) -> tuple[dict[str, Array], float]:
        info = contender.info
        seen = np.stack([each[info.image_size, info.preprocessing] for each in pictures])
        prepared, keep = as_input(seen, info), info.keep_of() or None
        if len(pictures) not in warm:  # the first run of a size may compile or allocate
            run_all(engine, prepared, batch, keep)
        began = time.perf_counter()
        outputs = run_all(engine, prepared, batch, keep)
        return outputs, (time.perf_counter() - began) / len(pictures)

    def compute(pictures: list[_Pictures]) -> list[Answer | RuntimeFailedError]:
        count = len(contenders)
        first = next(turns) % count
        order = [*range(first, count), *range(first)]
        found = {index: timed(contenders[index], engines[index], pictures) for index in order}
        warm.add(len(pictures))
        shares = tuple(found[index][1] for index in range(count))
        ranks = []
        errors: dict[int, RuntimeFailedError] = {}
        for index, contender in enumerate(contenders):
            info, outputs = contender.info, found[index][0]
            ranks.append(ranked(outputs, info, min(TOP, info.top_k or TOP))[1].tolist())
            errors |= {
                int(i): RuntimeFailedError(f"{contender.title}: {PROBLEM}") for i in np.flatnonzero(not_finite(outputs))
            }
        answers = [Answer(tuple(map(tuple, each)), shares) for each in zip(*ranks, strict=True)]
        return [errors.get(i, answer) for i, answer in enumerate(answers)]

    def failed(image: Labelled, error: EvodeployError) -> Answer:
        return Answer(error=printable(str(error)))

    return pipelined(images, prepare, compute, failed, batch=batch, preparers=usable_cores())
