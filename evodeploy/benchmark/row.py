"""One line of a bench: an engine at one batch size, and its measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evodeploy.benchmark.judge import Verdict
from evodeploy.benchmark.measure.clocks import Clocks
from evodeploy.benchmark.measure.interleaved import RunTimes, Stop
from evodeploy.benchmark.measure.intervals import Interval
from evodeploy.benchmark.row_spec import RowSpec
from evodeploy.specs import Precision

Transfers = Literal["none", "included", "resident"]


@dataclass(frozen=True)
class Row:
    """One engine at one batch size: its measurements, or the reason why there are none.

    `batch` is the size that was run, less than `asked` if memory ran out. `transfers` says whether the time includes
    those to and from a device: `included`, or not, because the batch is `resident` there; `none` on the host itself.
    With several batches `in_flight` the timing is one of throughput, not of latency: it is the time from the end of one
    batch to that of the next. A sample is the mean of at least `launches` consecutive runs. `exposed` says that the
    time of the device may include the host's time to start a run, in one sample or more. `verdict` is None for the
    reference row. Memory is in bytes, energy in joules per image. `clocks` are those of a GPU.
    """

    spec: RowSpec
    asked: int
    batch: int
    precision: Precision | None
    device: str
    tf32: bool = False
    transfers: Transfers = "none"
    in_flight: int = 1
    launches: int = 1
    exposed: bool = False
    timing: RunTimes | None = None
    stopped: Stop | None = None
    verdict: Verdict | None = None
    host_memory: int | None = None
    device_memory: int | None = None
    joules: float | None = None
    clocks: Clocks | None = None
    reason: str = ""

    @property
    def arithmetic(self) -> str | None:
        """The precision, or tf32 for FP32 whose products may be TF32."""
        return "tf32" if self.tf32 and self.precision == "fp32" else self.precision

    @property
    def label(self) -> str:
        """The row's `way`, and the keep ratio of an elastic artefact."""
        return f"{self.way} {self.spec.keep}" if self.spec.keep else self.way

    @property
    def way(self) -> str:
        """The engine, its arithmetic, and whether it replays a CUDA graph: the same for the model and its twin."""
        parts = (self.spec.engine, self.arithmetic or "", "graph" if self.spec.cuda_graph else "")
        return " ".join(part for part in parts if part)

    @property
    def latency(self) -> RunTimes | None:
        """The timing, if only one batch is in flight."""
        return self.timing if self.in_flight == 1 else None

    @property
    def images_per_second(self) -> Interval | None:
        """The throughput at the median run."""
        return self.timing.interval.inverted(self.batch) if self.timing else None

    @property
    def operations_per_second(self) -> float | None:
        """The matrix operations per second; a multiply-add counts as two."""
        speed = self.images_per_second
        return None if speed is None or self.spec.flops is None else speed.value * self.spec.flops

    @property
    def wrong(self) -> bool:
        """Whether it was timed, but computes wrong results."""
        return self.verdict is not None and not self.verdict.correct
