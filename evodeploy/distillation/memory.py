"""Computing as many images at once as fit in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from evodeploy.engines.out_of_memory import means_out_of_memory
from evodeploy.errors import OutOfMemoryError

T = TypeVar("T")

_log = logging.getLogger(__name__)


def in_parts(compute: Callable[[int], T], count: int, device: torch.device) -> tuple[T, int]:
    """Return the result of `compute`, and how many images it computed at once: `count`, halved if memory runs out.

    `compute` starts over after each attempt. Raises OutOfMemoryError if a single image does not fit.
    """
    while True:
        try:
            return compute(count), count
        except Exception as error:
            if not means_out_of_memory(error):
                raise
            if count == 1:
                raise OutOfMemoryError(f"{device} has no memory for one image at a time") from error
        count //= 2
        _log.warning("memory ran out: from now on %d images are computed at once", count)
        if device.type == "cuda":
            torch.cuda.empty_cache()
