"""torch.compile with a program of its own for each batch size."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

Forward = Callable[["Tensor"], tuple["Tensor", ...]]

# PyTorch compiles with state of the whole process: a thread that runs compiled code meanwhile can fail.
_one_at_a_time = threading.Lock()


def compiled_by_batch(module: nn.Module) -> Forward:
    """`module` compiled at the first run of each batch size; one thread of the process at a time compiles or runs.

    PyTorch stops compiling a code object that it has compiled 8 times, and runs it eagerly from then on. So each
    batch size gets a code object of its own, and a graph that cannot be compiled whole is an error.
    """
    programs: dict[int, Forward] = {}

    def forward(images: Tensor) -> tuple[Tensor, ...]:
        batch = len(images)
        with _one_at_a_time:
            if batch not in programs:
                programs[batch] = _compiled(module, batch)
            return programs[batch](images)

    return forward


def _compiled(module: nn.Module, batch: int) -> Forward:
    import torch

    def forward(images: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = module(images)
        return outputs

    code = forward.__code__.replace(co_name=f"forward_{batch}")
    separate = FunctionType(code, forward.__globals__, closure=forward.__closure__)
    program: Forward = torch.compile(separate, dynamic=False, fullgraph=True)
    return program
