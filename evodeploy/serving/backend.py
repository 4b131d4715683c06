"""What computes, as the endpoints see it."""

from __future__ import annotations

import asyncio
from typing import Protocol

from evodeploy.engines.base import Array
from evodeploy.specs import ModelInfo, TensorSpec


class Backend(Protocol):
    """An engine's facts, and batches of whole requests."""

    info: ModelInfo
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    engine: str

    async def run(self, images: Array) -> dict[str, Array]:
        """Outputs by name for any number of images, prepared as `inputs[0]` says."""


async def run_within(backend: Backend, images: Array, seconds: float) -> dict[str, Array]:
    """`backend.run`; raises asyncio.TimeoutError after `seconds`."""
    return await asyncio.wait_for(backend.run(images), seconds)
