"""The PyTorch rows of a bench: what the other engines are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from evodeploy.bench.candidate import Candidate, Role, refuse
from evodeploy.engines.base import Engine
from evodeploy.specs import EngineOptions, Precision

if TYPE_CHECKING:
    from evodeploy.models.checkpoint import LoadedModel

TORCH_ENGINES = ("torch", "torch-compile")


def torch_rows(
    name: str,
    role: Role,
    model: LoadedModel | None,
    precisions: Sequence[Precision],
    threads: int,
    flops: float | None,
    no_model: str,
) -> Iterator[Candidate]:
    """The engine `name` on `model` in each of `precisions`; without a model each says why, which is `no_model`."""
    for precision in precisions:
        options = EngineOptions(threads, precision=None if precision == "fp32" else precision)
        opened = partial(_engine, name, model, options) if model else partial(refuse, no_model)
        yield Candidate(name, role, precision, "", opened, flops=flops)


def _engine(name: str, model: LoadedModel, options: EngineOptions) -> Engine:
    from evodeploy.export.deployed import torch_engine

    return torch_engine(model, compiled=name == "torch-compile", options=options)
