"""The worker of a service: an engine behind a queue that runs requests together."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evodeploy.engines.base import Array, Engine, run_all
from evodeploy.engines.opener import open_engine
from evodeploy.engines.torch_modes import TORCH_MODES
from evodeploy.errors import BadFileError, EvodeployError, InputError
from evodeploy.inference.batcher import Batcher, run_alike
from evodeploy.preprocess import as_input, random_pictures
from evodeploy.serving.backend import Answer, Asked
from evodeploy.serving.controller import Controller, Waiting, batches_of, measured
from evodeploy.serving.settings import Settings
from evodeploy.specs import NO_METADATA, ModelInfo

_log = logging.getLogger(__name__)

Ran = Callable[[int, float, tuple[float, ...]], None]  # receives the images of a run, its seconds and its keep ratios


@dataclass(frozen=True, eq=False)
class _Request:
    images: Array
    asked: Asked
    entry: Waiting | None


def open_served(settings: Settings) -> Engine:
    """Open the engine of `settings`. Raises BadFileError if it has no metadata on how to prepare images."""
    engine = open_engine(settings.artefact, settings.engine, settings.options)
    if engine.info is None:
        engine.close()
        raise BadFileError(f"{settings.artefact} {NO_METADATA}")
    return engine


def named(settings: Settings, engine: Engine) -> Settings:
    """Return `settings` with the names of the model and the runtime filled in.

    Raises InputError if they have a budget and the artefact is not elastic, or not elastic to its ratios.
    """
    assert engine.info is not None
    if settings.budget is not None:
        if not engine.info.elastic:
            raise InputError(
                f"a target needs an elastic artefact, and {settings.artefact} keeps the same share of tokens in every "
                "run: leave --target-p99 out, or export the checkpoint with --elastic"
            )
        engine.info.keep_of(settings.budget.low)
        engine.info.keep_of(settings.budget.high)
    return dataclasses.replace(settings, name=settings.name or engine.info.model, engine=engine.name)


def _prepares_each_size(engine: Engine) -> bool:
    """Return whether it prepares kernels or compiles for each batch size, which no request should have to wait for."""
    mode = TORCH_MODES.get(engine.name)
    return engine.device != "cpu" or (mode is not None and mode.compile is not None)


class Worker:
    """A `backend.Backend`: one engine, which it owns, behind a queue that runs requests together.

    With a budget it chooses the keep ratio of each batch. `ran` is called for each run, in the worker's own thread.
    Threads may share a worker. Close it when all requests are answered.
    """

    def __init__(self, engine: Engine, settings: Settings, ran: Ran) -> None:
        assert engine.info is not None
        self._engine, self._ran = engine, ran
        self._largest, self._max_wait = settings.max_batch, settings.max_wait
        self.info: ModelInfo = engine.info
        self.inputs, self.outputs, self.engine = engine.inputs, engine.outputs, engine.name
        self.budget = settings.budget
        self._controller: Controller | None = None
        _log.info("running batches of up to %d images once, before requests are taken", self._largest)
        if settings.budget is not None:
            self._controller = Controller(settings.budget, measured(engine, settings.budget, self._largest))
        for size in batches_of(engine, self._largest, every=_prepares_each_size(engine)):
            engine.run(as_input(random_pictures(self.info, size), self.info))
        largest, patience = self._room
        self._batcher: Batcher[_Request, _Request, Answer] = Batcher(
            lambda request: request, self._compute, preparers=1, largest=largest, patience=patience,
            weigh=lambda request: len(request.images),
        )  # fmt: skip

    @property
    def _room(self) -> tuple[int, float]:
        """The largest number of images in a batch, and the most seconds that an image waits for others, at present."""
        if self._controller is None:
            return self._largest, self._max_wait
        return min(self._largest, self._controller.largest), self._controller.patience(self._max_wait)

    def check(self, images: int, asked: Asked) -> None:
        """Check a request, see `backend.Backend`."""
        self._check_ratios(asked)
        if self._controller is not None:
            self._controller.check_room(images)

    def _check_ratios(self, asked: Asked) -> None:
        for ratio in (asked.keep_ratio, asked.least_keep_ratio):
            if ratio is not None:
                self.info.keep_of(ratio)

    async def run(self, images: Array, asked: Asked) -> Answer:
        """Compute an answer, see `backend.Backend`."""
        self._check_ratios(asked)
        controller = self._controller
        if controller is None:
            return await asyncio.wrap_future(self._batcher.submit(_Request(images, asked, None)))
        entry = controller.enter(len(images), asked.arrived)
        future = self._batcher.submit(_Request(images, asked, entry))
        future.add_done_callback(lambda _: controller.leave(entry))  # also if the client has left
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Finish the submitted requests, then close the engine."""
        self._batcher.close()
        self._engine.close()

    def _compute(self, requests: list[_Request]) -> list[Answer | EvodeployError]:
        chosen = None if self._controller is None else self._controller.begin()
        return run_alike(requests, lambda request: self._ratio(request.asked, chosen), self._run)

    def _ratio(self, asked: Asked, chosen: float | None) -> float | None:
        """Return the keep ratio with which a request runs; None is the artefact's own."""
        if asked.keep_ratio is not None:
            return asked.keep_ratio
        floor = asked.least_keep_ratio
        if floor is None or (chosen is not None and chosen >= floor):
            return chosen
        if chosen is None and min(self.info.keep_ratios) >= floor:
            return None
        return floor if self._controller is None else max(floor, self._controller.at_least(floor))

    def _run(self, requests: list[_Request], ratio: float | None) -> list[Answer]:
        images = np.concatenate([request.images for request in requests])
        keep = None if ratio is None else self.info.keep_of(ratio)
        if self._controller is not None and ratio is not None:
            self._controller.running(len(images), ratio, [request.entry for request in requests if request.entry])
        began = time.perf_counter()
        try:
            outputs = run_all(self._engine, images, self._largest, keep)
        except EvodeployError:
            if self._controller is not None:
                self._controller.failed()
            raise
        seconds, ratios = time.perf_counter() - began, self.info.ratios_of(ratio)
        if self._controller is not None and ratio is not None:
            self._controller.ran(len(images), ratio, seconds)
            self._batcher.largest, self._batcher.patience = self._room
        self._ran(len(images), seconds, ratios)
        ends = np.cumsum([len(request.images) for request in requests])[:-1]
        parts = {name: np.split(value, ends) for name, value in outputs.items()}
        return [Answer({name: split[i] for name, split in parts.items()}, ratios) for i in range(len(requests))]
