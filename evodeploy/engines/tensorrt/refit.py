"""Other weights for a plan that was built to take them; TensorRT does it on the GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evodeploy.engines.tensorrt.flavour import Flavour, shared_logger
from evodeploy.engines.tensorrt.log import BuildLog
from evodeploy.errors import BadFileError, RuntimeFailedError


def refitted(plan: bytes, onnx: Path, flavour: Flavour, tell: Callable[[str], None]) -> bytes:
    """`plan` with the weights of the file `onnx`, which holds what the plan was built from but for their values.

    Needs a working driver, found out before. Raises BadFileError where the weights are others, RuntimeFailedError with
    TensorRT's reason.
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
        config = engine.create_serialization_config()
        config.clear_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
        serialized = engine.serialize_with_config(config)
        if serialized is None:
            raise RuntimeFailedError(f"{flavour} could not write the engine: {log.reason}")
        return bytes(serialized)
