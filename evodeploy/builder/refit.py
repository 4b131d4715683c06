"""Refitting: an engine file gets the weights of another ONNX file of the same network."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

from evodeploy.arguments import checked
from evodeploy.builder.build_log import BuildLog
from evodeploy.builder.decisions import decide_on, read_source
from evodeploy.builder.pipeline import engine_files
from evodeploy.builder.record import Refit
from evodeploy.builder.request import BuildRequest
from evodeploy.engines.tensorrt.compatibility import check_fits, check_unchanged, runtime_of
from evodeploy.engines.tensorrt.cuda import device
from evodeploy.engines.tensorrt.flavour import Flavour
from evodeploy.engines.tensorrt.log import shared_logger
from evodeploy.engines.tensorrt.sidecar import PlanRecord, read_sidecar, write_sidecar
from evodeploy.errors import BadFileError, RuntimeFailedError, UnavailableError, UsageError
from evodeploy.files import claimed, replacing, sha256
from evodeploy.locks import scratch
from evodeploy.machine.driver import architecture, driver_problem
from evodeploy.onnx_files import info_of, precision_of, write_onnx
from evodeploy.specs import ASKED, ModelInfo, Precision
from evodeploy.text import brief

# Fields of ModelInfo that a plan keeps whatever its weights are.
_FIXED = (
    "keep_ratios", "elastic", "selection", "stages", "fast_path", "pooling", "image_size", "patch_size", "input_format",
    "top_k",
)  # fmt: skip


@checked
def refit(
    engine: str | os.PathLike[str],
    onnx: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Refit:
    """Write `engine` with the weights of `onnx` to `output`, without a new build. Needs the GPU that it was built for.

    `onnx` holds the same network, in FP32 or in the precision of the engine's ONNX. The engine's precision does not
    change, nor do the nodes that were kept in FP32. FP16's range is measured on `images`, instead of two random ones.
    With `force` an existing output is replaced.

    Raises UsageError if the engine accepts no other weights or the ONNX's metadata describe another network,
    UnavailableError if the engine cannot run, BadFileError if the weights do not match it, VerificationError if
    activations exceed the range of FP16. After an error nothing is written.
    """
    begun = time.perf_counter()
    plan, source, path = Path(engine), Path(onnx), Path(output)
    with claimed(engine_files(path), force, source, *(each for each, _ in engine_files(plan))):
        record = _refit(plan, source, path, None if images is None else Path(images))
    return Refit(path, source, time.perf_counter() - begun, record)


def _refit(plan: Path, onnx: Path, output: Path, images: Path | None) -> PlanRecord:
    record = read_sidecar(plan)
    if not record.refittable:
        raise UsageError(f"{plan} cannot take other weights: build it with --refittable or --strip-plan")
    if record.version_compatible:
        raise UsageError(
            f"{plan} is version-compatible, and TensorRT cannot refit such engines: build it without "
            "--version-compatible"
        )
    problem = driver_problem()
    if problem is not None:
        raise UnavailableError(f"an engine is refitted on the GPU it was built for, and here {problem}")
    flavour = runtime_of(record)
    data = plan.read_bytes()
    check_unchanged(record, plan, data)
    check_fits(record, plan, flavour, architecture())
    asked = tuple(node for node, why in record.kept_fp32.items() if why == ASKED)
    checksum, model = read_source(onnx)
    _check_precision(record, plan, onnx, precision_of(model), asked)
    info = info_of(model)
    _check_network(record, plan, onnx, info)
    batches = tuple((profile.min, profile.opt, profile.max) for profile in record.profiles)
    precision = record.rest or record.precision
    request = BuildRequest(
        onnx, output, precision, batches, record.runtime, record.targets, images=images, keep_fp32=asked
    )
    decided = decide_on(request, checksum, model)
    with scratch() as folder:
        source = folder / onnx.name
        write_onnx(decided.proto, source)
        with device(0).active():
            content, refittable = refitted(data, source, flavour)
    with replacing(output) as draft:
        draft.write_bytes(content)
    record = dataclasses.replace(
        record,
        model=dataclasses.replace(info, precision=record.precision) if info else None,
        source=onnx.name,
        source_sha256=checksum,
        plan_sha256=sha256(output),
        plan_bytes=len(content),
        stripped=False,
        refittable=refittable,
        largest_activation=decided.engine.largest_activation,
    )
    write_sidecar(record, output)
    return record


def _check_precision(record: PlanRecord, plan: Path, onnx: Path, held: Precision, asked: tuple[str, ...]) -> None:
    """Raise UsageError if weights in `held` cannot become those of the plan, whose nodes in `asked` stay FP32."""
    reduced = record.precision in ("fp16", "bf16")
    expected = "fp32" if reduced and asked else record.precision
    if held != expected and not (reduced and held == "fp32"):
        raise UsageError(
            f"{onnx} holds {held.upper()} weights, expected {expected.upper()} ones for {plan}: export it again"
        )


def _check_network(record: PlanRecord, plan: Path, onnx: Path, info: ModelInfo | None) -> None:
    """Raise UsageError if `info`, the metadata of `onnx`, differs from `plan` in what weights do not decide."""
    had, has = ({name: getattr(each, name, None) for name in _FIXED} for each in (record.model, info))
    other = [
        f"{name} {brief(str(has[name]))}, expected {brief(str(had[name]))}" for name in had if has[name] != had[name]
    ]
    if other:
        raise UsageError(f"{onnx} is another network than {plan} ({'; '.join(other[:3])}): export it as that one was")


def refitted(plan: bytes, onnx: Path, flavour: Flavour) -> tuple[bytes, bool]:
    """Return `plan` with the weights of the file `onnx`, and whether the result can be refitted again.

    The file must match the plan's source except for the values of the weights. Needs a working driver, to be checked
    before. Raises BadFileError if the weights do not match, RuntimeFailedError with TensorRT's reason.
    """
    trt = flavour.trt
    logger, relay = shared_logger(flavour)
    log = BuildLog()
    with relay.to(log):
        runtime = trt.Runtime(logger)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise RuntimeFailedError(f"{flavour} cannot load the plan: {log.reason}")
        refitter = trt.Refitter(engine, logger)
        parser = trt.OnnxParserRefitter(refitter, logger)
        if not parser.refit_from_file(str(onnx)):
            refusals = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
            raise BadFileError(f"{onnx.name} does not fit the engine: {refusals or log.reason}")
        missing = refitter.get_missing_weights()
        if missing:
            raise BadFileError(f"{onnx.name} lacks {len(missing)} weights of the engine, first {missing[0]}")
        if not refitter.refit_cuda_engine():
            raise RuntimeFailedError(f"{flavour} could not refit the engine: {log.reason}")
        flags = trt.SerializationFlag.__members__
        config = engine.create_serialization_config()
        config.clear_flag(flags["EXCLUDE_WEIGHTS"])
        if "INCLUDE_REFIT" in flags:  # since TensorRT 10.14; else a plan without weights can be refitted only once
            config.set_flag(flags["INCLUDE_REFIT"])
        serialized = engine.serialize_with_config(config)
        if serialized is None:
            raise RuntimeFailedError(f"{flavour} could not write the engine: {log.reason}")
        content = bytes(serialized)
        del serialized, config, parser, refitter, engine  # frees memory for the result
        result = runtime.deserialize_cuda_engine(content)
        if result is None:
            raise RuntimeFailedError(f"{flavour} cannot load the engine that it wrote: {log.reason}")
        return content, bool(result.refittable)
