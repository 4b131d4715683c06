"""The PyTorch rows of a bench, the baseline for the other engines.

They get the same optimizations as an export: layers folded into each other, weights in the precision of the row,
attention by `scaled_dot_product_attention`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from evodeploy.benchmark.row_spec import Refusal, Role, RowSpec, unless_fp32
from evodeploy.engines.base import Engine
from evodeploy.engines.torch_modes import TORCH_MODES
from evodeploy.specs import EngineOptions, Precision

if TYPE_CHECKING:
    from evodeploy.models.loaded import LoadedModel

ON_CPU = ("torch", "torch-compile")
ON_GPU = ("torch", "torch-channels-last", *(name for name, mode in TORCH_MODES.items() if mode.compile))


def usual_torch(*, on_gpu: bool) -> tuple[str, ...]:
    """Return the engines that are compared by default."""
    return ON_GPU if on_gpu else ON_CPU


def torch_rows(
    name: str,
    role: Role,
    model: LoadedModel | None,
    precisions: Sequence[Precision],
    how: EngineOptions,
    flops: float | None,
    no_model: str,
) -> Iterator[RowSpec]:
    """Yield the rows of engine `name` on `model` in each of `precisions`, or without a model with reason `no_model`."""
    for precision in precisions:
        options = dataclasses.replace(how, precision=unless_fp32(precision))
        opened: Callable[[], Engine] = partial(_engine, name, model, options) if model else Refusal(no_model)
        if TORCH_MODES[name].autocast and precision == "fp32":
            opened = Refusal(f"{name} casts FP32 weights to fp16 or bf16, so in fp32 it is the same as torch")
        yield RowSpec(name, role, precision, "", opened, flops=flops)


def _engine(name: str, model: LoadedModel, options: EngineOptions) -> Engine:
    from evodeploy.engines.torch_network import torch_engine
    from evodeploy.models.folding import folded

    return torch_engine(dataclasses.replace(model, module=folded(model.module)), name=name, options=options)
