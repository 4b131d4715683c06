"""The specification of one row of a bench."""

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
        """Whether every token is kept."""
        return all(ratio == 1.0 for ratio in self.ratios)

    def __str__(self) -> str:
        return f"keep {ratios_in_words(self.ratios)}"


@dataclass(frozen=True)
class RowSpec:
    """One planned row: an engine on the model (`evo`) or on its twin that keeps every token (`dense`).

    `precision` is that of the computation, None if it is known only after opening. `flops` are those of the matrix
    products of one image, None if they cannot be counted. `open` returns the engine, or raises UnavailableError with
    the reason why this machine has none. With `random` weights the speed is the same as with the model's, but the
    results differ. `keep` is the setting of an elastic artefact; rows that differ only in it share `open`.
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
        """The argument `keep` of `Engine.run`."""
        return self.keep.tokens if self.keep else None


def without_tf32(spec: RowSpec) -> RowSpec:
    """Return `spec`, changed to raise UnavailableError on opening if its FP32 products may be TF32."""
    if isinstance(spec.open, Refusal):
        return spec

    def opened() -> Engine:
        engine = spec.open()
        if engine.tf32 and spec.precision == "fp32":
            engine.close()
            raise UnavailableError(
                "its FP32 products may be TF32, which --no-tf32 excludes: build the engine with `evodeploy "
                "build-engine --no-tf32`"
            )
        return engine

    return dataclasses.replace(spec, open=opened)


def unless_fp32(precision: Precision) -> Precision | None:
    """Return the option for computing in `precision`: None for FP32, the precision of the files."""
    return None if precision == "fp32" else precision


@dataclass(frozen=True)
class Refusal:
    """The `open` of a row without an engine on this machine. Raises UnavailableError with the reason."""

    reason: str

    def __call__(self) -> Engine:
        """Raise UnavailableError."""
        raise UnavailableError(self.reason)
