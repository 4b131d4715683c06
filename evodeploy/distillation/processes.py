"""One training in several processes, each with its own device.

`torchrun --nproc-per-node N -m evodeploy distill …` starts them. It is part of PyTorch, which training needs anyway; it
also starts processes on several machines, and ends all of them when one fails. A step needs one sum over the processes.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from evodeploy.errors import UsageError
from evodeploy.text import brief

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The `rank` of this process among the `size` processes that train together."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process logs and writes."""
        return self.rank == 0

    def share(self, items: Sequence[int]) -> Sequence[int]:
        """Return this process's part of `items`, which are divided among the processes."""
        return items[self.rank :: self.size]

    def check_shares(self, count: int) -> None:
        """Raise UsageError if a step of `count` images has none for one of the processes."""
        if count < self.size:
            raise UsageError(
                f"each of the {self.size} processes needs an image in every step, which has {count}: give --batch "
                f"{self.size} or more and as many images, or start fewer processes"
            )

    def add(self, tensor: Tensor) -> Tensor:
        """Add up `tensor` over all processes, in place, and return it."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def from_leading(self, make: Callable[[], T]) -> T:
        """Return the result of `make` in all processes; only the leading process calls it."""
        values = [make() if self.leads else None]
        if self.size > 1:
            dist.broadcast_object_list(values)
        return cast("T", values[0])


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started while the body runs; without torchrun, yield this process alone.

    The leading process logs everything, the others only warnings.
    """
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        yield Processes()
        return
    log = logging.getLogger("evodeploy")
    before = log.level
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        if dist.get_rank():
            log.setLevel(logging.WARNING)
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        log.setLevel(before)
        dist.destroy_process_group()


def device_of(name: str | None) -> torch.device:
    """Return the device called `name`, or the best one; each process has its own GPU. Raises UsageError."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise UsageError(f"no device is called '{brief(str(name))}': expected cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device is {name}, expected cpu, cuda or cuda:N")
    if device.type == "cpu":
        return device
    index = device.index if device.index is not None else _number("LOCAL_RANK", 0)
    if index >= torch.cuda.device_count():
        raise UsageError(f"device is cuda:{index}, but PyTorch sees {torch.cuda.device_count()} GPUs here")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def _number(name: str, otherwise: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else otherwise
