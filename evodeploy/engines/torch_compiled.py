"""torch.compile with a program of its own for each batch size, and of an elastic network for each `keep`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING

from evodeploy.errors import UnavailableError

if TYPE_CHECKING:
    from torch import Tensor, nn

Forward = Callable[..., tuple["Tensor", ...]]  # of images and, where it is elastic, `keep`

# PyTorch compiles with state of the whole process: a thread that runs compiled code meanwhile can fail.
_one_at_a_time = threading.Lock()


def compiled_by_batch(module: nn.Module, mode: str, cuda_graphs: bool) -> Forward:
    """`module` compiled in `mode` at the first run of each shape; one thread of the process compiles or runs.

    A shape is a batch size and, of an elastic network, a `keep`. PyTorch stops compiling a code object that it has
    compiled 8 times, and runs it eagerly from then on. So each shape gets a code object of its own. What PyTorch does
    not compile whole, or with `cuda_graphs` record, raises UnavailableError or PyTorch's own error. The outputs are the
    caller's: a CUDA graph would overwrite its own.
    """
    programs: dict[tuple[int, ...], Forward] = {}

    def forward(images: Tensor, *keep: tuple[int, ...]) -> tuple[Tensor, ...]:
        shape = (len(images), *(kept for each in keep for kept in each))
        with _one_at_a_time:
            if shape in programs:
                outputs = programs[shape](images)
            else:
                program = _compiled(module, keep, shape, mode)
                outputs = _first_run(program, images, cuda_graphs)
                programs[shape] = program
            return tuple(output.clone() for output in outputs) if cuda_graphs else outputs

    return forward


def _compiled(module: nn.Module, keep: tuple[tuple[int, ...], ...], shape: tuple[int, ...], mode: str) -> Forward:
    import torch

    def forward(images: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = module(images, *keep)
        return outputs

    code = forward.__code__.replace(co_name=f"forward_{'_'.join(map(str, shape))}")
    separate = FunctionType(code, forward.__globals__, closure=forward.__closure__)
    program: Forward = torch.compile(separate, dynamic=False, fullgraph=True, mode=mode)
    return program


def _first_run(program: Forward, images: Tensor, cuda_graphs: bool) -> tuple[Tensor, ...]:
    """What `program` gives for `images`, compiled now; PyTorch counts what it compiles and what it does not record."""
    from torch._dynamo.utils import counters
    from torch._inductor import config as inductor

    compiled, skipped = counters["stats"]["unique_graphs"], counters["inductor"]["cudagraph_skips"]
    with inductor.patch(autotune_num_choices_displayed=0):  # max-autotune prints all that it tries
        outputs = program(images)
    if counters["stats"]["unique_graphs"] == compiled:
        raise UnavailableError(
            "torch.compile compiled nothing and ran the network eagerly: unset TORCH_COMPILE_DISABLE and "
            "TORCHDYNAMO_DISABLE, or leave this engine out"
        )
    if cuda_graphs and counters["inductor"]["cudagraph_skips"] > skipped:
        raise UnavailableError("torch.compile recorded no CUDA graph: TORCH_LOGS=cudagraphs makes PyTorch say why")
    return outputs
