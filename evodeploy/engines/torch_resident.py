"""A batch of images that PyTorch keeps on its device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evodeploy.engines.base import Array, Resident

if TYPE_CHECKING:
    from evodeploy.engines.torch_engine import TorchEngine


class TorchResident(Resident):
    """Runs `engine` on `images` where they lie, timed by events of the device."""

    def __init__(self, engine: TorchEngine, images: Array) -> None:
        self._engine, self._host = engine, images
        self._images: Tensor | None = torch.from_numpy(images).to(engine.device)
        self._start, self._end = (torch.Event(engine.device, enable_timing=True) for _ in range(2))
        self._values: tuple[Tensor, ...] = ()

    def time(self) -> float:
        """Run once; seconds between the two events."""
        assert self._images is not None  # not closed
        with self._engine.working(self._host):
            self._start.record()
            self._values = self._engine.forward(self._images)
            self._end.record()
            self._end.synchronize()
            return float(self._start.elapsed_time(self._end)) / 1e3

    def outputs(self) -> dict[str, Array]:
        """What the last run computed, fetched."""
        with self._engine.working(self._host):
            return self._engine.fetched(self._values)

    def close(self) -> None:
        """Free the memory."""
        self._images, self._values = None, ()
