"""The TensorRT engines of a bench: the given ones, and those built because they were missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from evodeploy.benchmark.engine_cache import cached_build, usual_folder
from evodeploy.benchmark.row_spec import Role
from evodeploy.builder.options import BuilderOptions, HardwareCompatibility
from evodeploy.builder.request import BuildRequest
from evodeploy.engines.tensorrt.flavour import load_flavour
from evodeploy.engines.tensorrt.sidecar import PlanRecord, profiles_for, read_sidecar
from evodeploy.errors import EvodeployError, MissingExtraError
from evodeploy.machine.driver import driver_problem
from evodeploy.onnx_files import input_spec, read_onnx
from evodeploy.specs import ASKED, Precision, Quantized


@dataclass(frozen=True)
class Plan:
    """An engine that is given or `built`, or the reason why it could not be built. `runtime` is its TensorRT."""

    artefact: str
    runtime: str
    precision: Precision
    path: Path | None = None
    reason: str = ""
    built: bool = False


@dataclass(frozen=True)
class Wanted:
    """An engine that both the model and its twin need, built with the settings in the record `like` if there is one."""

    runtime: str
    precision: Precision
    like: PlanRecord | None = None


@dataclass(frozen=True)
class Builds:
    """How a bench builds missing engines.

    It holds the batch sizes, the cache folder (None for the default one), and whether TF32 is allowed.
    """

    batches: tuple[int, ...]
    cache: Path | None
    tf32: bool = True


def builder_problem() -> str | None:
    """Return why no engine can be built for a GPU of this machine, or None if that may work."""
    problem = driver_problem()
    if problem is not None:
        return problem
    try:
        load_flavour()
    except MissingExtraError as error:
        return str(error)
    return None


def given_plans(paths: Iterable[Path]) -> tuple[Plan, ...]:
    """Return the engines in files, as their records describe them."""
    records = {path: read_sidecar(path) for path in paths}
    return tuple(Plan(path.name, record.runtime, record.precision, path) for path, record in records.items())


def wanted_engines(given: Iterable[Path], precisions: Iterable[Precision]) -> list[Wanted]:
    """Return the engines that the model and its twin both need: one like each given engine, and one in every precision.

    So each row is compared with a twin that the same TensorRT built in the same way.
    """
    alike: dict[Precision, dict[str, Wanted]] = {precision: {} for precision in precisions}
    for record in map(read_sidecar, given):
        one = Wanted(record.runtime, record.precision, record)
        alike.setdefault(record.precision, {}).setdefault(record.runtime, one)
    usual = load_flavour().name
    return [one for precision, found in alike.items() for one in (found.values() or (Wanted(usual, precision),))]


def built_plans(
    role: Role,
    sources: Sequence[tuple[Path, Precision | None]],
    missing: Iterable[Wanted],
    builds: Builds,
    folder: Path,
) -> list[Plan]:
    """Return the `missing` engines of one role, in `folder`, built from `sources` or taken from the cache.

    `sources` are ONNX files with the precision of their weights: FP32 serves every precision, others only their own. By
    default an engine has a profile for each batch. If a build fails, the plan holds the reason.
    """
    plans = []
    for one in missing:
        source = next((path for path, held in sources if _serves(held, one.precision)), None)
        if source is not None:
            plans.append(_built(role, source, one, builds, folder))
    return plans


def _serves(held: Precision | None, precision: Precision) -> bool:
    """Return whether a build may start from weights in `held`: conversion to INT8 or FP8 needs pictures."""
    return held == precision or (held in (None, "fp32") and precision not in get_args(Quantized))


def _built(role: Role, source: Path, wanted: Wanted, builds: Builds, folder: Path) -> Plan:
    output = folder / f"{role}.{wanted.runtime}.{wanted.precision}.engine"
    plan = Plan(output.name, wanted.runtime, wanted.precision, output, built=True)
    like = wanted.like
    try:
        if like is None:
            fixed = input_spec(read_onnx(source)).shape[0] is not None  # a fixed batch allows only one profile
            profiles = () if fixed else profiles_for(builds.batches)
            options = BuilderOptions(tf32=None if builds.tf32 else False)
        else:
            profiles, options = like.profiles, _options(like)
        asked = tuple((profile.min, profile.opt, profile.max) for profile in profiles)
        kept = [] if like is None else [name for name, why in like.kept_fp32.items() if why == ASKED]
        precision = (like.rest if like else None) or wanted.precision  # of a quantized engine, the one around it
        request = BuildRequest(source, output, precision, asked, wanted.runtime, options=options, keep_fp32=tuple(kept))
        cached_build(request, builds.cache or usual_folder())
    except EvodeployError as error:
        return dataclasses.replace(plan, path=None, reason=str(error))
    return plan


def _options(record: PlanRecord) -> BuilderOptions:
    return BuilderOptions(
        version_compatible=record.version_compatible,
        hardware_compatible=cast("HardwareCompatibility | None", record.hardware_compatible or None),
        refittable=record.refittable,
        tf32=record.tf32,
    )
