"""An engine file, given the weights of another ONNX file of the same network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from evodeploy.build import BuildRequest, prepare
from evodeploy.engines.tensorrt.compatibility import check_fits, check_unchanged, runtime_of
from evodeploy.engines.tensorrt.cuda import device
from evodeploy.engines.tensorrt.driver import architecture, driver_problem
from evodeploy.engines.tensorrt.refit import refitted
from evodeploy.engines.tensorrt.sidecar import PlanRecord, read_sidecar, write_sidecar
from evodeploy.errors import UnavailableError, UsageError
from evodeploy.files import replacing, sha256
from evodeploy.locks import scratch
from evodeploy.onnx_files import info_of, write_onnx


def refit_engine(plan: Path, onnx: Path, output: Path, tell: Callable[[str], None]) -> PlanRecord:
    """Write `plan` with the weights of `onnx` to `output`, with its record; the precision stays the plan's.

    Raises UsageError for a plan that takes no other weights, UnavailableError where it cannot run, BadFileError for an
    ONNX of another network. Nothing is written then.
    """
    record = read_sidecar(plan)
    if not record.refittable:
        raise UsageError(f"{plan} takes no other weights: build it with --refittable or --strip-plan")
    if record.version_compatible:
        raise UsageError(f"{plan} is version-compatible, and TensorRT refits none that is: build it without")
    problem = driver_problem()
    if problem is not None:
        raise UnavailableError(f"an engine is refitted on the GPU it was built for, and here {problem}")
    flavour = runtime_of(record)
    data = plan.read_bytes()
    check_unchanged(record, plan, data)
    check_fits(record, plan, flavour, architecture())
    batches = tuple((profile.min, profile.opt, profile.max) for profile in record.profiles)
    request = BuildRequest(onnx, output, record.rest or record.precision, batches, record.runtime, record.targets)
    prepared = prepare(request, tell)
    if prepared.precision != record.precision:
        raise UsageError(
            f"{onnx} makes {prepared.precision.upper()} weights, expected {record.precision.upper()} as {plan} has them"
        )
    with scratch() as folder:
        source = folder / onnx.name
        write_onnx(prepared.proto, source)
        with device(0).active():
            content, refittable = refitted(data, source, flavour, tell)
    with replacing(output) as draft:
        draft.write_bytes(content)
    info = info_of(prepared.source)
    record = dataclasses.replace(
        record,
        model=dataclasses.replace(info, precision=record.precision) if info else None,
        source=onnx.name,
        source_sha256=sha256(onnx),
        plan_sha256=sha256(output),
        plan_bytes=len(content),
        stripped=False,
        refittable=refittable,
    )
    write_sidecar(record, output)
    return record
