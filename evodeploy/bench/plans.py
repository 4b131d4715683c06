"""The TensorRT engines of a bench: those given, and those built because they were not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from evodeploy.bench.candidate import Role
from evodeploy.bench.engine_cache import cached_build, usual_folder
from evodeploy.build import Batches, BuildRequest
from evodeploy.engines.tensorrt.driver import driver_problem
from evodeploy.engines.tensorrt.flavour import load_flavour
from evodeploy.engines.tensorrt.options import BuilderOptions, HardwareCompatibility
from evodeploy.engines.tensorrt.sidecar import PlanRecord, read_sidecar
from evodeploy.errors import EvodeployError, MissingExtraError
from evodeploy.onnx_files import input_spec, read_onnx
from evodeploy.specs import Precision, Quantized


@dataclass(frozen=True)
class Plan:
    """An engine that takes part, or the reason why it could not be built."""

    artefact: str
    precision: Precision
    path: Path | None = None
    reason: str = ""


@dataclass(frozen=True)
class Builds:
    """How a bench builds the engines that it lacks.

    For which batch sizes; where it keeps them, None for the usual folder; whether with TF32.
    """

    batches: tuple[int, ...]
    cache: Path | None
    tell: Callable[[str], None]
    tf32: bool = True


def builder_problem() -> str | None:
    """Why no engine can be built for a GPU of this machine; None where that may work."""
    problem = driver_problem()
    if problem is not None:
        return problem
    try:
        load_flavour()
    except MissingExtraError as error:
        return str(error)
    return None


def given_plans(paths: Iterable[Path]) -> list[Plan]:
    """The engines in files, in the precision of their records."""
    return [Plan(path.name, read_sidecar(path).precision, path) for path in paths]


def records_by_precision(paths: Iterable[Path]) -> dict[Precision, PlanRecord]:
    """The record of the first of `paths` in each precision."""
    records: dict[Precision, PlanRecord] = {}
    for record in map(read_sidecar, paths):
        records.setdefault(record.precision, record)
    return records


def built_plans(
    role: Role,
    sources: Sequence[tuple[Path, Precision | None]],
    precisions: Iterable[Precision],
    like: Mapping[Precision, PlanRecord],
    builds: Builds,
    folder: Path,
) -> list[Plan]:
    """One engine for each of `precisions`, in `folder`, built from `sources` or taken from the cache.

    `sources` are ONNX files with the precision of their weights: one in FP32 serves every precision, others their own.
    What `like` holds in a precision decides how the engine is built, so that the model and its twin are built alike;
    elsewhere each batch has a profile of its own. A build that fails is a plan with the reason.
    """
    plans = []
    for precision in precisions:
        source = next((path for path, held in sources if _serves(held, precision)), None)
        if source is not None:
            plans.append(_built(role, source, precision, like.get(precision), builds, folder))
    return plans


def _serves(held: Precision | None, precision: Precision) -> bool:
    """Whether a build may start from weights of `held`: conversion to INT8 or FP8 needs pictures."""
    return held == precision or (held in (None, "fp32") and precision not in get_args(Quantized))


def _built(
    role: Role, source: Path, precision: Precision, like: PlanRecord | None, builds: Builds, folder: Path
) -> Plan:
    output = folder / f"{role}.{precision}.engine"
    try:
        if like is None:
            options = BuilderOptions(tf32=None if builds.tf32 else False)
            request = BuildRequest(source, output, precision, _profiles(source, builds.batches), options=options)
        else:
            profiles = tuple((profile.min, profile.opt, profile.max) for profile in like.profiles)
            request = BuildRequest(source, output, precision, profiles, like.runtime, options=_options(like))
        cached_build(request, builds.cache or usual_folder(), builds.tell)
    except EvodeployError as error:
        return Plan(output.name, precision, reason=str(error))
    return Plan(output.name, precision, output)


def _profiles(source: Path, batches: Iterable[int]) -> tuple[Batches, ...]:
    """One for each of `batches`, fastest there, together without a gap; the only one of an ONNX of a fixed batch."""
    if input_spec(read_onnx(source)).shape[0] is not None:
        return ()
    rising = sorted(set(batches))
    return tuple((low + 1, batch, batch) for low, batch in zip((0, *rising), rising, strict=False))


def _options(record: PlanRecord) -> BuilderOptions:
    return BuilderOptions(
        version_compatible=record.version_compatible,
        hardware_compatible=cast("HardwareCompatibility | None", record.hardware_compatible or None),
        refittable=record.refittable,
        tf32=record.tf32,
    )
