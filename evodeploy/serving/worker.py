"""What computes: an engine behind a queue that runs requests together."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable

import numpy as np

from evodeploy.engines.base import Array, Engine, run_all
from evodeploy.engines.opener import open_engine
from evodeploy.errors import BadFileError
from evodeploy.inference.batcher import Batcher
from evodeploy.preprocess import as_input, random_pictures
from evodeploy.serving.settings import Settings
from evodeploy.specs import ModelInfo

Ran = Callable[[int, float], None]  # is given the images of a run, and its seconds


def open_served(settings: Settings) -> Engine:
    """The engine that `settings` ask for; raises BadFileError where it does not know how images are prepared."""
    engine = open_engine(settings.artefact, settings.engine, settings.options)
    if engine.info is None:
        engine.close()
        raise BadFileError(
            f"{settings.artefact} carries no evodeploy metadata: export its checkpoint with `evodeploy export`"
        )
    return engine


def named(settings: Settings, engine: Engine) -> Settings:
    """`settings` with the names of the model and the runtime that they leave open."""
    assert engine.info is not None
    return dataclasses.replace(settings, name=settings.name or engine.info.model, engine=engine.name)


class Worker:
    """A `backend.Backend`: one engine, which it owns, behind a queue that runs requests together.

    `ran` hears of each run, in the worker's own thread. Threads may share a worker; close it once all is answered.
    """

    def __init__(self, engine: Engine, settings: Settings, ran: Ran) -> None:
        assert engine.info is not None
        self._engine, self._ran, self._largest = engine, ran, settings.max_batch
        self.info: ModelInfo = engine.info
        self.inputs, self.outputs, self.engine = engine.inputs, engine.outputs, engine.name
        for size in range(1, settings.max_batch + 1):  # what a runtime sets up for a batch size, before requests wait
            if size in engine.batch:
                engine.run(as_input(random_pictures(self.info, size), self.info))
        self._batcher: Batcher[Array, Array, dict[str, Array]] = Batcher(
            lambda images: images, self._compute, preparers=1, largest=settings.max_batch, patience=settings.max_wait
        )

    async def run(self, images: Array) -> dict[str, Array]:
        """See `backend.Backend`."""
        return await asyncio.wrap_future(self._batcher.submit(images))

    def close(self) -> None:
        """Finish what was submitted, then close the engine."""
        self._batcher.close()
        self._engine.close()

    def _compute(self, requests: list[Array]) -> list[dict[str, Array]]:
        images = np.concatenate(requests)
        began = time.perf_counter()
        outputs = run_all(self._engine, images, self._largest)
        self._ran(len(images), time.perf_counter() - began)
        ends = np.cumsum([len(request) for request in requests])[:-1]
        parts = {name: np.split(value, ends) for name, value in outputs.items()}
        return [{name: split[i] for name, split in parts.items()} for i in range(len(requests))]
