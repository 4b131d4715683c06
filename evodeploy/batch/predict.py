"""Conversion of prepared images to answers, done by each actor of the pool with its own engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from evodeploy.artefacts import identity
from evodeploy.batch.output import CLASSES, ERROR, FEATURES, IDENTITY
from evodeploy.engines.base import run_all
from evodeploy.engines.finite import PROBLEM, not_finite
from evodeploy.errors import UsageError
from evodeploy.inference.answers import ranked
from evodeploy.inference.loading import load
from evodeploy.specs import EngineOptions

PLACE = {"shard": pa.int32(), "position": pa.int32()}


class Answerer:
    """Opens an artefact once and answers batches with it: the best classes, or the features if it has no classes.

    `sha256` is the expected `identity` of the artefact. Raises UsageError if it has changed.
    """

    def __init__(self, artefact: Path, sha256: str, engine: str, options: EngineOptions, top: int) -> None:
        self._predictor = load(artefact, engine, **dataclasses.asdict(options))
        if identity(artefact) != sha256:  # checked after opening, so that the opened file cannot be newer
            self._predictor.close()
            raise UsageError(f"{artefact} has changed since the run began: restore it and resume, or start another run")
        self._top = top

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Turn one row (`PREPARED`) into a row for each of its images, in which the answer or the error is null."""
        (row,) = batch.drop_columns("images").to_pylist()
        spec = self._predictor.info.input
        images = np.frombuffer(batch["images"][0].as_buffer(), spec.dtype).reshape(-1, *spec.shape[1:])
        outputs = self._answers(images)
        answers = [next(outputs) if error is None else {} for error in row["errors"]]
        answer = CLASSES if self._predictor.info.num_classes else FEATURES
        return pa.Table.from_pylist(
            [
                {"shard": row["shard"], "position": row["first"] + i, "path": path, "row": at, "error": error, **values}
                for i, (path, at, error, values) in enumerate(
                    zip(row["paths"], row["rows"], row["errors"], answers, strict=True)
                )
            ],
            pa.schema({**PLACE, **IDENTITY, **answer, **ERROR}),
        )

    def _answers(self, images: np.ndarray) -> Iterator[dict[str, object]]:
        info, engine = self._predictor.info, self._predictor.engine
        outputs = run_all(engine, images, max(1, len(images)))
        bad = not_finite(outputs)
        if not info.num_classes:
            answers: Iterator[dict[str, object]] = ({"features": row} for row in outputs.get("features", ()))
        elif outputs:
            answers = (
                {"labels": [info.label(int(index)) for index in classes], "indices": classes, "probabilities": each}
                for each, classes in zip(*ranked(outputs, info, self._top), strict=True)
            )
        else:
            answers = iter(())
        for i, answer in enumerate(answers):
            yield {"error": PROBLEM} if bad[i] else answer
