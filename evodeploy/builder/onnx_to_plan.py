"""ONNX to plan: one procedure for TensorRT 10, 11 and RTX.

The network is strongly typed. The ONNX determines the precision, and no flag can be ignored or lowered.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from evodeploy.builder.build_log import BuildLog
from evodeploy.builder.options import BuilderOptions, apply_options
from evodeploy.builder.timing_cache import shared_timings
from evodeploy.engines.tensorrt.compatibility import check_lengths
from evodeploy.engines.tensorrt.flavour import Flavour
from evodeploy.engines.tensorrt.log import shared_logger
from evodeploy.engines.tensorrt.sidecar import KeepProfile, Profile
from evodeploy.errors import BadFileError, RuntimeFailedError, UnavailableError, UsageError
from evodeploy.specs import Precision, TensorSpec

# Called with the name of a phase and the share of it that is done. Returning False cancels the build.
Progress = Callable[[str, float], bool]

_INDEX_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class BuiltPlan:
    """A serialized engine, its tensors, the memory in bytes from the builder's log, and whether it may use TF32."""

    plan: memoryview
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weights_bytes: int | None
    activation_bytes: int | None
    tf32: bool = True


def check_profile(profile: Profile, spec: TensorSpec) -> Profile:
    """Return `profile` if the input `spec` allows it. Raises UsageError if it is out of order or out of range."""
    if not 1 <= profile.min <= profile.opt <= profile.max:
        raise UsageError(
            f"batch sizes min {profile.min}, opt {profile.opt}, max {profile.max} are out of order: "
            "expected 1 ≤ min ≤ opt ≤ max"
        )
    elements = math.prod(size or 1 for size in spec.shape[1:])
    if profile.max * elements > _INDEX_LIMIT:
        raise UsageError(
            f"a batch of {profile.max} makes input '{spec.name}' larger than 2³¹ elements: "
            f"expected a maximum of {_INDEX_LIMIT // elements} or less"
        )
    fixed = spec.shape[0]
    if fixed is not None and (profile.min, profile.opt, profile.max) != (fixed, fixed, fixed):
        raise UsageError(f"the ONNX has a fixed batch of {fixed}: export it with --batch dynamic for another")
    return profile


def new_builder(flavour: Flavour, logger: Any, log: BuildLog) -> Any:
    """Return a builder of `flavour`. Raises UnavailableError if TensorRT cannot start here."""
    trt = flavour.trt
    try:
        return trt.Builder(logger)
    except Exception as error:  # the binding raises if the library returned a null pointer
        raise UnavailableError(f"{flavour} cannot start here: {log.reason}") from error


def set_targets(flavour: Flavour, config: Any, targets: Sequence[str]) -> None:
    """Make `config` build for the GPUs `targets`, or for the GPU here if there are none."""
    if targets:
        config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(flavour.targets[target], index)


def plan_from_onnx(
    path: Path,
    flavour: Flavour,
    profiles: Sequence[Profile],
    precision: Precision,
    targets: tuple[str, ...],
    options: BuilderOptions,
    log: BuildLog,
    progress: Progress | None = None,
    keep: KeepProfile | None = None,
) -> BuiltPlan:
    """Build a plan from the ONNX file `path`, whose attention has `precision`. File and `options` are already checked.

    With `keep`, its second input holds the number of tokens that each stage keeps. Raises BadFileError if TensorRT's
    parser refuses a node or the length of an output is unknown, RuntimeFailedError with TensorRT's first error if the
    build fails, KeyboardInterrupt if it was cancelled.
    """
    trt = flavour.trt
    logger, relay = shared_logger(flavour)
    with _deferred_interrupt() as interrupted, relay.to(log):
        builder = new_builder(flavour, logger, log)
        network = flavour.strongly_typed_network(builder)
        parser = trt.OnnxParser(network, logger)
        if not parser.parse_from_file(str(path)):
            refusals = [parser.get_error(i) for i in range(parser.num_errors)]
            reasons = "; ".join(f"{e.node_operator()} {e.node_name()}: {e.desc()}" for e in refusals[:3])
            raise BadFileError(f"{flavour} cannot build {path.name}: {reasons or log.reason}")
        inputs = tuple(_spec(trt, network.get_input(i)) for i in range(network.num_inputs))
        outputs = tuple(_spec(trt, network.get_output(i)) for i in range(network.num_outputs))
        if len(inputs) != (1 if keep is None else 2) or not outputs:
            wanted = "one input" if keep is None else "the images and the numbers of kept tokens"
            raise BadFileError(f"{path.name} has {len(inputs)} inputs and {len(outputs)} outputs, expected {wanted}")
        if keep is not None and not network.get_input(1).is_shape_tensor:
            raise BadFileError(
                f"{flavour} cannot build {path.name}: its input '{inputs[1].name}' does not determine the size "
                "of any tensor: export it again"
            )
        check_lengths(Path(path.name), outputs, elastic=keep is not None)
        _check_products(trt, network, precision)
        let_attention_decompose(trt, network)
        config = builder.create_builder_config()
        apply_options(flavour, config, options)
        for profile in profiles:
            _add_profile(builder, config, inputs, check_profile(profile, inputs[0]), keep)
        set_targets(flavour, config, targets)
        with shared_timings(config, options.timing_cache):
            monitor = _monitor(trt, progress or (lambda phase, share: True), interrupted)
            config.progress_monitor = monitor
            plan = builder.build_serialized_network(network, config)
            if plan is None:
                raise RuntimeFailedError(f"{flavour} could not build the engine: {log.reason}")
            tf32 = config.get_flag(trt.BuilderFlag.TF32)
        weights, activation = log.memory.get("Weights"), log.memory.get("Activation")
        return BuiltPlan(memoryview(plan), inputs, outputs, weights, activation, tf32)


def _check_products(trt: Any, network: Any, precision: Precision) -> None:
    """Raise RuntimeFailedError if most products are in FP32 although a lower `precision` was requested.

    TensorRT changes no type in a strongly typed network, so the network shows the types of the plan. The plan's memory
    does not: engines also hold kernels, and weights in several layouts, up to 17 bytes for an FP16 weight in TensorRT
    11.
    """
    wanted = {"fp16": "HALF", "bf16": "BF16"}.get(precision)
    if wanted is None:
        return
    kinds = (trt.LayerType.MATRIX_MULTIPLY, trt.LayerType.CONVOLUTION)
    layers = (network.get_layer(index) for index in range(network.num_layers))
    types = [layer.get_output(0).dtype.name for layer in layers if layer.type in kinds]
    if 2 * types.count("FLOAT") > len(types):
        raise RuntimeFailedError(
            f"{precision.upper()} was asked for, but {types.count('FLOAT')} of {len(types)} products are FP32: "
            "nothing was written"
        )


def _add_profile(
    builder: Any, config: Any, inputs: Sequence[TensorSpec], profile: Profile, keep: KeepProfile | None
) -> None:
    images = inputs[0]
    shapes = [(batch, *images.shape[1:]) for batch in (profile.min, profile.opt, profile.max)]
    optimization = builder.create_optimization_profile()
    optimization.set_shape(images.name, *shapes)
    if keep is not None:
        optimization.set_shape_input(inputs[1].name, keep.min, keep.opt, keep.max)
    if config.add_optimization_profile(optimization) < 0:
        raise UsageError(f"TensorRT refused the batch range {profile.min} to {profile.max}")


def let_attention_decompose(trt: Any, network: Any) -> None:
    """Allow FP32 attention to decompose: fused attention exists only in reduced precision."""
    kind = getattr(trt.LayerType, "ATTENTION_INPUT", None)
    for index in range(network.num_layers if kind is not None else 0):
        layer = network.get_layer(index)
        if layer.type == kind and layer.get_input(0).dtype.name == "FLOAT":
            layer.__class__ = trt.IAttentionInputLayer
            layer.attention.decomposable = True


@contextlib.contextmanager
def _deferred_interrupt() -> Iterator[threading.Event]:
    """Defer SIGINT and SIGTERM to the end, since nothing may be raised into TensorRT. Yields an event that they set."""
    interrupted = threading.Event()
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        interrupted.set()

    here = threading.current_thread() is threading.main_thread()  # only this thread receives signals
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)} if here else {}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for first in received[:1]:
            signal.raise_signal(first)
        if interrupted.is_set():
            raise KeyboardInterrupt  # instead of TensorRT's error about the cancellation


def _monitor(trt: Any, progress: Progress, interrupted: threading.Event) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self._steps[name] = steps

        def phase_finish(self, name: str) -> None:
            self._steps.pop(name, None)

        def step_complete(self, name: str, step: int) -> bool:
            if not progress(name, (step + 1) / max(1, self._steps.get(name, 1))):
                interrupted.set()
            return not interrupted.is_set()

    return Monitor()


def _spec(trt: Any, tensor: Any) -> TensorSpec:
    import numpy as np

    try:
        dtype = np.dtype(trt.nptype(tensor.dtype)).name
    except TypeError as error:  # BF16, FP8 and INT4
        raise BadFileError(
            f"'{tensor.name}' of the ONNX is {tensor.dtype.name}, expected a type that NumPy has: export inputs and "
            "outputs in FP32"
        ) from error
    return TensorSpec(tensor.name, dtype, tuple(None if size < 0 else int(size) for size in tensor.shape))
