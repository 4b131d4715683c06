"""Other weights for a plan that was built to take them; TensorRT does it on the GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evodeploy.engines.tensorrt.flavour import Flavour, shared_logger
from evodeploy.engines.tensorrt.log import BuildLog
from evodeploy.errors import BadFileError, RuntimeFailedError


def refitted(plan: bytes, onnx: Path, flavour: Flavour, tell: Callable[[str], None]) -> tuple[bytes, bool]:
    """`plan` with the weights of the file `onnx`, and whether the result takes other weights in its turn.

    The file holds what the plan was built from but for the values of the weights. Needs a working driver, found out
    before. Raises BadFileError where the weights are others, RuntimeFailedError with TensorRT's reason.
    """
    trt = flavour.trt
    logger, relay = shared_logger(flavour)
    log = BuildLog(tell)
    with relay.to(log):
        runtime = trt.Runtime(logger)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise RuntimeFailedError(f"{flavour} cannot load the plan: {log.reason}")
        refitter = trt.Refitter(engine, logger)
        parser = trt.OnnxParserRefitter(refitter, logger)
        if not parser.refit_from_file(str(onnx)):
            told = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
            raise BadFileError(f"{onnx.name} does not fit the engine: {told or log.reason}")
        missing = refitter.get_missing_weights()
        if missing:
            raise BadFileError(f"{onnx.name} lacks {len(missing)} weights of the engine, first {missing[0]}")
        if not refitter.refit_cuda_engine():
            raise RuntimeFailedError(f"{flavour} could not refit the engine: {log.reason}")
        flags = trt.SerializationFlag.__members__
        config = engine.create_serialization_config()
        config.clear_flag(flags["EXCLUDE_WEIGHTS"])
        if "INCLUDE_REFIT" in flags:  # from TensorRT 10.14 on; without it a plan that had no weights takes no others
            config.set_flag(flags["INCLUDE_REFIT"])
        serialized = engine.serialize_with_config(config)
        if serialized is None:
            raise RuntimeFailedError(f"{flavour} could not write the engine: {log.reason}")
        content = bytes(serialized)
        del serialized, config, parser, refitter, engine  # their memory is needed for the result
        result = runtime.deserialize_cuda_engine(content)
        if result is None:
            raise RuntimeFailedError(f"{flavour} cannot load the engine that it wrote: {log.reason}")
        return content, bool(result.refittable)
