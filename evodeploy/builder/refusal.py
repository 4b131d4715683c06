"""A check of whether TensorRT can build a model, with its reason if it cannot."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto

from evodeploy.builder.build_log import BuildLog
from evodeploy.builder.onnx_to_plan import let_attention_decompose, new_builder, set_targets
from evodeploy.engines.tensorrt.flavour import Flavour
from evodeploy.engines.tensorrt.log import shared_logger


def refusal(model: ModelProto, flavour: Flavour, targets: Sequence[str]) -> str:
    """Return why `flavour` cannot build `model`, whose shapes are fixed, or an empty string if it can.

    Raises UnavailableError if TensorRT cannot start here.
    """
    trt = flavour.trt
    log = BuildLog()
    logger, relay = shared_logger(flavour)
    with relay.to(log):
        builder = new_builder(flavour, logger, log)
        network = flavour.strongly_typed_network(builder)
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(model.SerializeToString()):
            errors = [parser.get_error(index) for index in range(parser.num_errors)]
            return "; ".join(each.desc() for each in errors[:3]) or log.reason
        let_attention_decompose(trt, network)
        config = builder.create_builder_config()
        set_targets(flavour, config, targets)
        return "" if builder.build_serialized_network(network, config) is not None else log.reason
