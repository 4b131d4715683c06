"""What one row of a bench is to be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from evodeploy.engines.base import Engine
from evodeploy.errors import UnavailableError
from evodeploy.specs import Precision
from evodeploy.text import ratios_in_words

Role = Literal["evo", "dense"]


@dataclass(frozen=True)
class Kept:
    """What a run of an elastic artefact keeps: the keep ratio and the tokens of each stage."""

    ratios: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def dense(self) -> bool:
        """Whether it is every token."""
        return all(ratio == 1.0 for ratio in self.ratios)

    def __str__(self) -> str:
        return f"keep {ratios_in_words(self.ratios)}"


@dataclass(frozen=True)
class RowSpec:
    """One planned row: an engine on the model (`evo`) or on its twin that keeps every token (`dense`).

    `precision` is what it computes in, None where that is known only once it is opened; `flops` is what the matrix
    products of one image take, None where that cannot be counted. `open` gives the engine, or raises UnavailableError
    with the reason why this machine has none. With `random` weights it is as fast as with the model's, and computes
    something else. `keep` is what an elastic artefact is run at; rows that differ in it alone share `open`.
    """

    engine: str
    role: Role
    precision: Precision | None
    artefact: str
    open: Callable[[], Engine]
    cuda_graph: bool = False
    flops: float | None = None
    random: bool = False
    keep: Kept | None = None

    @property
    def tokens(self) -> tuple[int, ...] | None:
        """The `keep` of `Engine.run`."""
        return self.keep.tokens if self.keep else None


def without_tf32(spec: RowSpec) -> RowSpec:
    """`spec`, which raises UnavailableError when it is opened where its FP32 products may be TF32."""
    if isinstance(spec.open, Refusal):
        return spec

    def opened() -> Engine:
        engine = spec.open()
        if engine.tf32 and spec.precision == "fp32":
            engine.close()
            raise UnavailableError(
                "its FP32 products may be TF32, which --no-tf32 leaves out: TensorRT builds engines without by "
                "`evodeploy build-engine --no-tf32`"
            )
        return engine

    return dataclasses.replace(spec, open=opened)


def unless_fp32(precision: Precision) -> Precision | None:
    """The option that makes an engine compute in `precision`: none for FP32, which files are in."""
    return None if precision == "fp32" else precision


@dataclass(frozen=True)
class Refusal:
    """The `open` of a row that this machine has no engine for: raises UnavailableError with the reason."""

    reason: str

    def __call__(self) -> Engine:
        """Raise."""
        raise UnavailableError(self.reason)
