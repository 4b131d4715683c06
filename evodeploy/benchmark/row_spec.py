"""What one row of a bench is to be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NoReturn

from evodeploy.engines.base import Engine
from evodeploy.errors import UnavailableError
from evodeploy.specs import Precision

Role = Literal["evo", "dense"]


@dataclass(frozen=True)
class RowSpec:
    """One row to be: an engine on the model (`evo`) or on its twin that keeps every token (`dense`).

    `precision` is what it computes in, None where that is known only once it is opened; `flops` is what the matrix
    products of one image take, None where that cannot be counted. `open` gives the engine, or raises UnavailableError
    with the reason why this machine has none. With `random` weights it is as fast as with the model's, and computes
    something else.
    """

    engine: str
    role: Role
    precision: Precision | None
    artefact: str
    open: Callable[[], Engine]
    cuda_graph: bool = False
    flops: float | None = None
    random: bool = False


def without_tf32(spec: RowSpec) -> RowSpec:
    """`spec`, which raises UnavailableError when it is opened where its FP32 products may be TF32."""

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


def refuse(reason: str) -> NoReturn:
    """Raise UnavailableError: what the `open` of a row does where this machine has no engine for it."""
    raise UnavailableError(reason)
