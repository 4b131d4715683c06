"""ONNX file to engine file: builds what was decided, checks it, and records it next to the plan."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator

from evodeploy import __version__
from evodeploy.builder.build_log import BuildLog
from evodeploy.builder.decisions import Decided, decide
from evodeploy.builder.onnx_to_plan import Progress, plan_from_onnx
from evodeploy.builder.request import BuildRequest
from evodeploy.engines.tensorrt.sidecar import PlanRecord, write_sidecar
from evodeploy.errors import UsageError
from evodeploy.files import replacing, sha256
from evodeploy.locks import scratch
from evodeploy.machine.driver import architecture
from evodeploy.onnx_files import info_of, write_onnx

_log = logging.getLogger(__name__)


def build_engine(request: BuildRequest, progress: Progress | None = None) -> PlanRecord:
    """Write the engine and its sidecar, and return the record. Raises the same errors as `decide`.

    Also raises BadFileError if TensorRT cannot parse the ONNX, and RuntimeFailedError if the build fails or an FP16
    engine turns out to be FP32. After any of these nothing is written. If the log cannot be written, it raises
    UsageError at the end, but keeps the engine.
    """
    return build_decided(request, decide(request), progress)


def build_decided(request: BuildRequest, decided: Decided, progress: Progress | None = None) -> PlanRecord:
    """Write the engine that was `decided` for `request`, and its sidecar."""
    flavour, options, engine = decided.flavour, request.options, decided.engine
    with scratch() as folder, _build_log(request) as log:
        source = folder / request.onnx.name
        write_onnx(decided.proto, source)  # even if nothing was converted: the file may have been replaced
        around = f" with {engine.rest.upper()} around it" if engine.rest else ""
        _log.info(f"building {engine.precision.upper()}{around} with {flavour}")
        floats = engine.rest or engine.precision
        built = plan_from_onnx(
            source, flavour, engine.profiles, floats, engine.targets, options, log, progress, engine.keep
        )
    with replacing(request.output) as draft:
        draft.write_bytes(built.plan)
    info = info_of(decided.source)
    record = PlanRecord(
        runtime=flavour.name,
        runtime_version=flavour.version,
        targets=engine.targets,
        precision=engine.precision,
        rest=engine.rest,
        profiles=engine.profiles,
        inputs=built.inputs,
        outputs=built.outputs,
        model=dataclasses.replace(info, precision=engine.precision) if info else None,
        source=request.onnx.name,
        source_sha256=decided.checksum,
        plan_sha256=sha256(request.output),
        plan_bytes=len(built.plan),
        weights_bytes=built.weights_bytes,
        activation_bytes=built.activation_bytes,
        kept_fp32=engine.kept_fp32,
        attentions=engine.attentions,
        evodeploy=__version__,
        architecture="" if engine.targets else architecture(),
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible or "",
        refittable=options.refittable or options.strip_plan,
        stripped=options.strip_plan,
        tf32=built.tf32,
        largest_activation=engine.largest_activation,
    )
    write_sidecar(record, request.output)
    if log.loss is not None:
        why = log.loss.strerror or log.loss
        raise UsageError(f"the engine {request.output} is complete, its log {request.log} is not: {why}")
    return record


@contextlib.contextmanager
def _build_log(request: BuildRequest) -> Iterator[BuildLog]:
    if request.log is None:
        yield BuildLog()
        return
    try:
        file = request.log.open("w", encoding="utf-8", buffering=1)  # each line is written at once
    except OSError as error:
        raise UsageError(f"cannot write the log to {request.log}: {error.strerror or error}") from error
    try:  # the log is kept if the build fails: then it is needed most
        yield BuildLog(file)
    finally:
        with contextlib.suppress(OSError):  # a line could not be written, which the log has noted
            file.close()
