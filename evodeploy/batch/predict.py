"""From prepared images to answers: what each actor of the pool does with an engine of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from evodeploy.batch.output import CLASSES, ERROR, FEATURES, IDENTITY
from evodeploy.predictor import load, softmax

PLACE = {"shard": pa.int32(), "position": pa.int32()}


class Answerer:
    """Opens an artefact once and answers batches with it: the best classes, or the features where it has no classes."""

    def __init__(self, artefact: Path, engine: str, threads: int, top: int) -> None:
        self._predictor = load(artefact, engine, threads=threads)
        self._top = top

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One row (`PREPARED`) to a row for each of its images, whose answer or whose error is null."""
        (row,) = batch.drop_columns("images").to_pylist()
        readable = np.array([error is None for error in row["errors"]])
        size = self._predictor.info.image_size
        images = np.frombuffer(batch["images"][0].as_buffer(), np.float32).reshape(-1, 3, size, size)
        outputs = iter(self._predictor.predict_logits(images))
        answers = [self._answer(next(outputs)) if fine else {} for fine in readable]
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

    def _answer(self, output: np.ndarray) -> dict[str, object]:
        info = self._predictor.info
        if not info.num_classes:
            return {"features": output}
        probabilities = softmax(output)
        best = np.argsort(-probabilities, kind="stable")[: self._top]
        return {
            "labels": [info.label(int(index)) for index in best],
            "indices": best,
            "probabilities": probabilities[best],
        }
