"""The work of an engine of TensorRT for RTX, read from its plan without a GPU and without TensorRT."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evodeploy.engines.tensorrt.plan import choose_profile
from evodeploy.engines.tensorrt.sidecar import PlanRecord, check_intact, read_sidecar
from evodeploy.errors import InputError, UsageError
from evodeploy.inspection.listing import PRODUCTS, kernels_of
from evodeploy.inspection.program import read_texts
from evodeploy.inspection.roofline.bound import Network
from evodeploy.inspection.roofline.work import weights_of, work_of
from evodeploy.kinds import kind_of
from evodeploy.specs import BatchRange, TensorSpec

BATCHES = (1, 8, 64, 256)
_RTX = "tensorrt-rtx"
_BYTES = {"bool": 1, "int8": 1, "uint8": 1, "float16": 2, "bfloat16": 2, "int16": 2, "uint16": 2, "float64": 8,
          "int64": 8, "uint64": 8}  # fmt: skip


@dataclass(frozen=True)
class PlanWork:
    """An engine's work: one network for each batch size, and the largest number of bytes of its weights.

    `keep` is the number of tokens that each stage of an elastic engine keeps; it is empty for any other engine.
    """

    path: Path
    record: PlanRecord
    weights: int
    networks: tuple[Network, ...]
    keep: tuple[int, ...] = ()

    @property
    def rates(self) -> tuple[str, ...]:
        """The precisions of its products, the one with the most operations first."""
        operations: Counter[str] = Counter()
        for work in self.networks[0].kernels:
            operations[work.rate] += work.operations
        return tuple(rate for rate, count in operations.most_common() if count)

    @property
    def missing(self) -> dict[str, str]:
        """The names of kernels that are counted in part or not at all, and what is missing."""
        return {work.name: work.missing for network in self.networks for work in network.kernels if work.missing}


def plan_work(
    path: Path, batches: Sequence[int] | None = None, ratios: float | Sequence[float] | None = None
) -> PlanWork:
    """Return the work of the engine `path` at `batches`, by default at those of 1, 8, 64 and 256 that it supports.

    An elastic engine keeps the share `ratios` of the tokens, by default the share that a run uses by default. Raises
    UsageError if the file is not such an engine or does not support a batch, InputError if it does not support the
    ratios, BadFileError if the engine was altered.
    """
    record = _record(path)
    keep = _keep(record, ratios)
    programs = read_texts(path, len(record.profiles))
    if not programs or not kernels_of(programs[0], 1, keep):
        raise UsageError(
            f"{path} shows no kernels, though {record.runtime} {record.runtime_version} built it; expected a plan such "
            "as TensorRT for RTX 1.7 writes"
        )
    networks, weights = [], 0
    for batch in batches or _usual(record):
        found = kernels_of(programs[_profile(record, batch)], batch, keep)
        if keep and not all(kernel.whole for kernel in found if kernel.kind in PRODUCTS):
            raise UsageError(
                f"{path} is elastic, and its plan does not show how the sizes of its products follow from the tokens "
                "that each stage keeps: build an engine of a static export for this bound"
            )
        own = weights_of(found)
        weights = max(weights, own)
        outside = own + sum(_nbytes(spec, batch, keep) for spec in (*record.inputs, *record.outputs))
        networks.append(Network(batch, tuple(work_of(kernel) for kernel in found), outside))
    return PlanWork(path, record, weights, tuple(networks), keep)


def _keep(record: PlanRecord, ratios: float | Sequence[float] | None) -> tuple[int, ...]:
    if record.model is not None:
        return record.model.keep_of(ratios)
    if ratios is not None:
        raise InputError("the engine carries no evodeploy metadata, so it has no keep ratio to choose: leave it out")
    return ()


def _record(path: Path) -> PlanRecord:
    kind = kind_of(path)
    if kind != "engine":
        what = {"checkpoint": "a checkpoint", "onnx": "an ONNX file"}[kind]
        onnx = path if kind == "onnx" else "FILE.onnx"
        raise UsageError(
            f"{path} is {what}; the bound for a GPU needs an engine of TensorRT for RTX, which builds without a GPU: "
            f"evodeploy build-engine {onnx} --runtime tensorrt-rtx --target sm89"
        )
    record = read_sidecar(path)
    if record.runtime != _RTX:
        raise UsageError(
            f"{path} was built by {record.runtime} {record.runtime_version}, whose plans do not show their kernels; "
            "expected one of TensorRT for RTX, which builds without a GPU: "
            f"evodeploy build-engine {record.source} --runtime {_RTX} --target sm89"
        )
    check_intact(path, record)
    return record


def _usual(record: PlanRecord) -> list[int]:
    taken = [batch for batch in BATCHES if any(each.min <= batch <= each.max for each in record.profiles)]
    return taken or [record.profiles[0].opt]


def _profile(record: PlanRecord, batch: int) -> int:
    """Return the index of the profile in which an engine runs `batch`; each profile has its own kernels."""
    try:
        return choose_profile(record.profiles, batch)
    except InputError as error:
        takes = ", ".join(str(BatchRange(each.min, each.max)) for each in record.profiles)
        raise UsageError(f"--batch is {batch}, but the engine takes {takes}") from error


def _nbytes(spec: TensorSpec, batch: int, keep: tuple[int, ...]) -> int:
    """Return the bytes of an input or output; an axis of kept tokens counts as the fewest, to get a lower bound."""
    dynamic = (batch, *[min(keep, default=1)] * len(spec.shape))
    sizes = (taken if size is None else size for size, taken in zip(spec.shape, dynamic, strict=False))
    return math.prod(sizes) * _BYTES.get(spec.dtype, 4)
