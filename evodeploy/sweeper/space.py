"""The candidates of a sweep: every keep ratio in every precision, on every engine that supports it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evodeploy.arguments import check_names
from evodeploy.engines.opener import RUNTIMES
from evodeploy.specs import EngineOptions, Precision

KEEPS = tuple((tenths / 10,) for tenths in range(10, 2, -1))  # 1.0, 0.9, … 0.3
DENSE = ((1.0,),)
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16", "int8")


@dataclass(frozen=True)
class Candidate:
    """A way to deploy: the share of tokens kept (one for all stages, or one each), the precision and the engine."""

    keep: tuple[float, ...]
    precision: Precision
    engine: str

    @property
    def kept(self) -> str:
        """The keep ratios in the form of the command line."""
        return "/".join(f"{ratio:g}" for ratio in self.keep)

    @property
    def dashed(self) -> str:
        """The same for file names."""
        return self.kept.replace("/", "-")

    @property
    def stored(self) -> Precision:
        """The precision of the file: engines that compute in BF16 take an FP32 file."""
        return "fp32" if self.precision == "bf16" else self.precision

    def options(self, threads: int) -> EngineOptions:
        """Return the options of the engine."""
        return EngineOptions(threads, precision="bf16" if self.precision == "bf16" else None)

    def __str__(self) -> str:
        return f"keep {self.kept}, {self.engine} {self.precision.upper()}"


def candidates(
    keeps: Sequence[tuple[float, ...]], precisions: Sequence[str], engines: Sequence[str]
) -> tuple[list[Candidate], dict[str, str]]:
    """Return the candidates, and what is excluded from the grid and why. Raises UsageError for unknown names."""
    check_names("precision", precisions, PRECISIONS)
    check_names("engine", engines, _onnx_engines())
    found, left_out = [], {}
    for engine, precision in _pairs(engines, precisions):
        if precision == "bf16" and "precision" not in RUNTIMES[engine].honours:
            left_out[f"{engine} BF16"] = f"{engine} computes an FP32 file in FP32 only"
        else:
            found += [Candidate(keep, precision, engine) for keep in dict.fromkeys(keeps)]
    return found, left_out


def usual_engines() -> tuple[str, ...]:
    """Return the installed engines that run ONNX files on a CPU."""
    return tuple(name for name in _onnx_engines() if RUNTIMES[name].installed and not RUNTIMES[name].on_gpu)


def _onnx_engines() -> tuple[str, ...]:
    return tuple(name for name, runtime in RUNTIMES.items() if runtime.runs == "onnx")


def _pairs(engines: Sequence[str], precisions: Sequence[str]) -> Iterator[tuple[str, Precision]]:
    for engine in dict.fromkeys(engines):
        for precision in PRECISIONS:
            if precision in precisions:
                yield engine, precision
