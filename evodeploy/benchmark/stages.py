"""Timing from picture files to labels, stage by stage: the speed of an engine with decoding and preparation."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import numpy as np

from evodeploy.benchmark.row_spec import RowSpec
from evodeploy.engines.base import Engine
from evodeploy.errors import BadFileError, EvodeployError
from evodeploy.images import ImageLike, open_image
from evodeploy.inference.answers import ranked
from evodeploy.preprocess import prepare
from evodeploy.specs import ModelInfo

_log = logging.getLogger(__name__)

STAGES = ("decode", "preprocess", "inference", "postprocess")
TOP = 5  # labels for each image


@dataclass(frozen=True)
class EndToEnd:
    """One engine from files to labels, one image after the other except for the inference of a batch.

    `seconds` are those of one image in each of the `STAGES`, medians over batches. If there are none, `reason` says
    why.
    """

    label: str
    batch: int
    seconds: dict[str, float]
    reason: str = ""

    @property
    def images_per_second(self) -> float:
        """The throughput with one stage after the other, as `predict` runs them."""
        return 1 / sum(self.seconds.values())

    @property
    def bottleneck(self) -> str:
        """The stage that takes longest. Unless it is inference, a faster engine does not help."""
        return max(self.seconds, key=lambda stage: self.seconds[stage])


def end_to_end(
    specs: Iterable[tuple[str, RowSpec]], paths: Sequence[ImageLike], batch: int, seconds: float
) -> list[EndToEnd]:
    """Time each labelled engine on the pictures at `paths`, in batches, repeatedly for `seconds`, at least twice.

    After the first time files are read from the system's cache, as a server reads them from its network.
    """
    return [_of_one(label, spec, paths, batch, seconds) for label, spec in specs]


def _of_one(label: str, spec: RowSpec, paths: Sequence[ImageLike], batch: int, seconds: float) -> EndToEnd:
    _log.info(f"from files to labels with {label}, batch {batch}")
    try:
        with spec.open() as engine:
            if engine.info is None:
                raise BadFileError(f"{spec.artefact} does not say how its images are prepared")
            return EndToEnd(label, batch, _medians(engine, engine.info, spec.tokens, paths, batch, seconds))
    except EvodeployError as error:
        return EndToEnd(label, batch, {}, str(error))


def _medians(
    engine: Engine,
    info: ModelInfo,
    keep: tuple[int, ...] | None,
    paths: Sequence[ImageLike],
    batch: int,
    seconds: float,
) -> dict[str, float]:
    taken: list[list[float]] = []
    start, position = time.perf_counter(), 0
    while len(taken) < 3 or time.perf_counter() - start < seconds:  # the first warms up
        chunk = [paths[(position + i) % len(paths)] for i in range(batch)]
        taken.append(_stages(engine, info, keep, chunk))
        position += batch
    return {stage: median(times) / batch for stage, times in zip(STAGES, zip(*taken[1:], strict=True), strict=True)}


def _stages(engine: Engine, info: ModelInfo, keep: tuple[int, ...] | None, chunk: Sequence[ImageLike]) -> list[float]:
    moments = [time.perf_counter()]
    pictures = [open_image(path) for path in chunk]
    moments.append(time.perf_counter())
    images = np.stack([prepare(picture, info) for picture in pictures])
    moments.append(time.perf_counter())
    outputs = engine.run(images, keep)
    moments.append(time.perf_counter())
    if info.num_classes:
        for classes in ranked(outputs, info, TOP)[1]:
            _ = [info.label(int(index)) for index in classes]
    moments.append(time.perf_counter())
    return [after - before for before, after in pairwise(moments)]
