"""Deterministic fake engine for tests without a runtime."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from evodeploy.engines.base import Array, Engine, Resident
from evodeploy.specs import BatchRange, ModelInfo, TensorSpec


def brightness_logits(images: Array, classes: int) -> Array:
    """Logits (B, classes) that are largest at the class named by the image's mean: answers are known in advance."""
    chosen = np.abs(images.mean(axis=(1, 2, 3)) * 10).astype(int) % classes
    logits: Array = np.eye(classes, dtype=np.float32)[chosen]
    return logits


def logits_by_first_pixel(images: Array) -> dict[str, Array]:
    """Logits of three classes, the first best where the first pixel is bright, and the last where it is dark."""
    return {"logits": np.stack([images[:, 0, 0, 0], np.zeros(len(images)), -images[:, 0, 0, 0]], axis=1)}


class FakeEngine(Engine):
    """Answers with `compute`, or with `brightness_logits`; counts its calls, and holds the `keep` of each.

    With `device_seconds` it pretends to run on a GPU, by whose clock each run takes so long, and half as long with two
    in flight, up to `deepest`.
    """

    name = "fake"

    def __init__(
        self,
        info: ModelInfo,
        batch: BatchRange | None = None,
        compute: Callable[[Array], dict[str, Array]] | None = None,
        device_seconds: float | None = None,
        deepest: int = 1,
        ranges: tuple[BatchRange, ...] = (),
    ) -> None:
        super().__init__()
        self.info = info
        self.inputs = info.inputs
        self.outputs = (TensorSpec("logits", "float32", (None, info.num_classes)),)
        self.batch = batch or BatchRange()
        self._ranges = ranges
        self.calls = 0
        self.keeps: list[tuple[int, ...]] = []
        self._counting = threading.Lock()
        self.device = "cpu" if device_seconds is None else "cuda:0"
        self.deepest = deepest
        self._device_seconds = device_seconds
        self._compute = compute or (lambda images: {"logits": brightness_logits(images, info.num_classes)})

    @property
    def ranges(self) -> tuple[BatchRange, ...]:
        """Those that were given, or all of `batch`."""
        return self._ranges or super().ranges

    def resident(self, images: Array, in_flight: int = 1, keep: Sequence[int] | None = None) -> Resident | None:
        """Return a batch that pretends to lie on the GPU, where this engine pretends to run on one."""
        if self._device_seconds is None:
            return None
        return FakeResident(self, images, keep, self._device_seconds / in_flight)

    def _run(self, images: Array, keep: tuple[int, ...]) -> dict[str, Array]:
        with self._counting:
            self.calls += 1
            self.keeps.append(keep)
        return self._compute(images)

    def _close(self) -> None:
        pass


class FakeResident(Resident):
    def __init__(self, engine: FakeEngine, images: Array, keep: Sequence[int] | None, seconds: float) -> None:
        self._engine, self._images, self._keep, self._seconds = engine, images, keep, seconds
        self._outputs: dict[str, Array] = {}

    def run(self) -> None:
        self._outputs = self._engine.run(self._images, self._keep)

    def time(self) -> float:
        self.run()
        return self._seconds

    def outputs(self) -> dict[str, Array]:
        return self._outputs

    def close(self) -> None:
        self._outputs = {}
