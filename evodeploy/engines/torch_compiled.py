"""torch.compile with a separate program for each batch size and, for an elastic network, for each `keep`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING

from evodeploy.errors import UnavailableError

if TYPE_CHECKING:
    from torch import Tensor, nn

Forward = Callable[..., tuple["Tensor", ...]]  # takes images and, if the network is elastic, `keep`

# Compilation changes process-wide state in PyTorch: a thread that runs compiled code meanwhile can fail.
_one_at_a_time = threading.Lock()


def compiled_by_batch(module: nn.Module, mode: str, cuda_graphs: bool) -> Forward:
    """Compile `module` in `mode` at the first run of each shape. One thread of the process compiles or runs at a time.

    A shape is a batch size and, for an elastic network, a `keep`. PyTorch compiles one code object at most 8 times and
    then runs it eagerly, so each shape gets its own code object. If PyTorch does not compile the whole network, or with
    `cuda_graphs` does not record it, this raises UnavailableError or PyTorch's own error. The caller may keep the
    outputs: they are copied, because a CUDA graph would overwrite them.
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
    """Compile `program` by running it on `images`. PyTorch's counters show whether it compiled and recorded."""
    from torch._dynamo.utils import counters
    from torch._inductor import config as inductor

    compiled, skipped = counters["stats"]["unique_graphs"], counters["inductor"]["cudagraph_skips"]
    with inductor.patch(autotune_num_choices_displayed=0):  # max-autotune would print everything it tries
        outputs = program(images)
    if counters["stats"]["unique_graphs"] == compiled:
        raise UnavailableError(
            "torch.compile compiled nothing and ran the network eagerly: unset TORCH_COMPILE_DISABLE and "
            "TORCHDYNAMO_DISABLE, or leave this engine out"
        )
    if cuda_graphs and counters["inductor"]["cudagraph_skips"] > skipped:
        raise UnavailableError("torch.compile recorded no CUDA graph: TORCH_LOGS=cudagraphs makes PyTorch say why")
    return outputs
