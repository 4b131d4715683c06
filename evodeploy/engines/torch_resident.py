"""Batches of images that PyTorch keeps on its device."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evodeploy.engines.base import Array
from evodeploy.engines.gate import GatedClock, GatedResident, hold

if TYPE_CHECKING:
    from evodeploy.engines.torch_engine import TorchEngine


class TorchResident(GatedResident):
    """Runs `engine` on `images` in device memory, timed by device events."""

    def __init__(self, engine: TorchEngine, images: Array, keep: tuple[int, ...]) -> None:
        self._engine, self._host = engine, images
        self._timeline = _TorchTimeline(engine, torch.from_numpy(images).to(engine.device), keep)
        self._clock = GatedClock(self._timeline)

    def run(self) -> None:
        """See Resident."""
        with self._engine.working(self._host), self._current():
            self._timeline.start()
            self._timeline.launch()
            self._timeline.end()
            self._timeline.elapsed()

    def time(self) -> float:
        """See Resident."""
        with self._engine.working(self._host), self._current():
            return self._clock()

    def outputs(self) -> dict[str, Array]:
        """See Resident."""
        with self._engine.working(self._host):
            return self._engine.fetched(self._timeline.values)

    def close(self) -> None:
        """See Resident."""
        self._timeline.images, self._timeline.values = None, ()

    def _current(self) -> AbstractContextManager[None]:
        """Make the engine's GPU the current device, because events are recorded in the stream of the current device."""
        return torch.cuda.device(self._engine.device)


class _TorchTimeline:
    """Forward passes in the current stream of the engine's GPU, which is the current one."""

    def __init__(self, engine: TorchEngine, images: Tensor, keep: tuple[int, ...]) -> None:
        self._engine, self._keep = engine, keep
        self.images: Tensor | None = images
        self.values: tuple[Tensor, ...] = ()
        self._start, self._end = (torch.Event(engine.device, enable_timing=True) for _ in range(2))

    def hold(self, seconds: float) -> None:
        hold(torch.cuda.current_stream().cuda_stream, seconds)

    def start(self) -> None:
        self._start.record()

    def launch(self) -> None:
        assert self.images is not None  # not closed
        self.values = self._engine.forward(self.images, self._keep)

    def end(self) -> None:
        self._end.record()

    def started(self) -> bool:
        return bool(self._start.query())

    def elapsed(self) -> float:
        self._end.synchronize()
        return float(self._start.elapsed_time(self._end)) / 1e3
