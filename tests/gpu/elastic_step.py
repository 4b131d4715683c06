"""Elastic engines against static ones at several keep ratios: equal outputs, what a batch takes at each, and kernels.

In PyTorch, Evo-DeiT-S; in TensorRT and TensorRT for RTX, where they build engines for the GPU here, the sample.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gpu.facts import NotRunError, need_gpu, need_pycuda, of_this_process

from evodeploy.engines.base import Array, Engine
from evodeploy.engines.opener import open_engine
from evodeploy.specs import EngineOptions, ModelInfo

SAMPLE = Path(__file__).parents[2] / "sample"
RATIOS = (0.1, 0.3, 0.5, 0.7, 1.0)
BUILT = (0.3, 1.0)  # as static engines too
BATCH = 8
ROUNDS = 20
EQUAL = 1e-3  # of the largest output of an image
MOST = 0.75  # of the images at least: where two tokens are close, kernels of other sizes may rank them otherwise


def compared(
    elastic: Engine, statics: Mapping[float, Engine], images: Array, rounds: int = ROUNDS
) -> dict[str, dict[str, Any]]:
    """Compare what both say and take at each ratio of `statics`, the medians of `rounds` runs in turn.

    Raises AssertionError where too many images have another output.
    """
    assert elastic.info is not None
    found = {}
    for ratio, static in statics.items():
        keep = elastic.info.keep_of(ratio)
        wanted, got = (next(iter(outputs.values())) for outputs in (static.run(images), elastic.run(images, keep)))
        flat = [np.asarray(values, np.float64).reshape(len(images), -1) for values in (wanted, got)]
        differences = np.abs(flat[1] - flat[0]).max(axis=1) / np.maximum(np.abs(flat[0]).max(axis=1), 1e-9)
        equal = float((differences <= EQUAL).mean())
        found[f"{ratio:g}"] = {
            "keep": keep, "largest_difference": float(differences.max()), "equal_images": equal,
            **_milliseconds(static, elastic, images, keep, rounds),
        }  # fmt: skip
        assert equal >= MOST, f"at {keep} tokens {1 - equal:.0%} of the images differ by up to {differences.max():.3g}"
    return found


def _milliseconds(
    static: Engine, elastic: Engine, images: Array, keep: Sequence[int], rounds: int
) -> dict[str, float | None]:
    """Return medians on the device's own clock; None where the engine computes in host memory."""
    batches = (static.resident(images), elastic.resident(images, keep=keep))
    if None in batches:
        return {"static_ms": None, "elastic_ms": None}
    with contextlib.ExitStack() as stack:
        for batch in batches:
            stack.callback(batch.close)
        times = [[batch.time() * 1e3 for batch in batches] for _ in range(rounds + 3)][3:]
    static_ms, elastic_ms = map(statistics.median, zip(*times, strict=True))
    return {"static_ms": static_ms, "elastic_ms": elastic_ms}


def in_pytorch(name: str, device: str) -> dict[str, Any]:
    """Compare an elastic network of the model `name` with networks configured with each ratio, in FP32."""
    from evodeploy.compare.export import configured
    from evodeploy.engines.torch_network import torch_engine
    from evodeploy.models.loaded import with_elastic
    from evodeploy.models.random_weights import random_model
    from evodeploy.models.zoo import named

    model = with_elastic(random_model(named(name)), (0.1, 1.0))
    options = EngineOptions(device=device, tf32=False if device != "cpu" else None)
    with contextlib.ExitStack() as stack:
        elastic = stack.enter_context(torch_engine(model, options=options))
        statics = {
            ratio: stack.enter_context(torch_engine(configured(model, model.info.keep_of(ratio)), options=options))
            for ratio in RATIOS
        }
        found = compared(elastic, statics, drawn(model.info))
        for ratio, facts in found.items():
            facts["kernels"] = _launched(elastic, model.info.keep_of(float(ratio))) if device != "cpu" else None
    return found


def _launched(engine: Engine, keep: Sequence[int]) -> int:
    """Count the kernels that PyTorch launches for a batch."""
    from torch.profiler import ProfilerActivity, profile

    assert engine.info is not None
    images = drawn(engine.info)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        engine.run(images, keep)
    return sum(map(is_kernel, seen.events()))


def is_kernel(event: Any) -> bool:
    """Whether an event of PyTorch's profiler is a kernel: no copy, and no call of the host that starts one."""
    from torch.autograd import DeviceType

    return event.device_type == DeviceType.CUDA and not event.name.lower().startswith("mem")


def built(runtime: str, folder: Path, targets: Sequence[str] = ()) -> dict[float | None, Path]:
    """Build an elastic engine of the sample, of key None, and static ones by ratio, in FP32 without TF32."""
    from evodeploy.builder.pipeline import build
    from evodeploy.exporter.pipeline import export

    checkpoint = Path(shutil.copy(SAMPLE / "digits.pth", folder))
    asked: dict[float | None, dict[str, Any]] = {None: {"elastic": (0.1, 1.0)}}
    asked |= {ratio: {"keep_ratio": ratio} for ratio in BUILT}
    plans = {}
    for ratio, options in asked.items():
        onnx = folder / f"{ratio}.onnx"
        export(checkpoint, onnx, verify=False, **options)
        made = build(onnx, runtime=runtime, targets=targets, tf32=False, opt_batch=BATCH, max_batch=BATCH)
        plans[ratio] = made.path
    return plans


def kernels_of(plans: Mapping[float | None, Path]) -> dict[str, int]:
    """Count the kernels of each plan that shows them. In FP32 an elastic plan may have more: TensorRT fuses less."""
    from evodeploy.inspection.program import read_program

    programs = {ratio: read_program(plan) for ratio, plan in plans.items()}
    return {f"{ratio or 'elastic'}": program.total for ratio, program in programs.items() if program}


def in_engines(runtime: str, folder: Path) -> dict[str, Any]:
    """Compare an elastic engine of the sample with static ones, in outputs, times and kernels."""
    from evodeploy.engines.tensorrt.flavour import load_flavour
    from evodeploy.errors import EvodeployError

    need_gpu()
    try:
        importlib.import_module(runtime.replace("-", "_"))
        load_flavour(runtime).resolve_targets((), "fp32")
    except (EvodeployError, ImportError, OSError) as error:  # OSError: bindings without their libraries
        raise NotRunError(str(error)) from error
    need_pycuda()
    plans = built(runtime, folder)
    kernels = kernels_of(plans)
    with contextlib.ExitStack() as stack:
        engines = {ratio: stack.enter_context(open_engine(plan, "tensorrt")) for ratio, plan in plans.items()}
        elastic = engines[None]
        assert elastic.info is not None
        found = compared(elastic, {ratio: engines[ratio] for ratio in BUILT}, drawn(elastic.info))
    return {**found, "kernels": kernels}


def drawn(info: ModelInfo) -> Array:
    """Draw a batch of noise."""
    shape = [size or BATCH for size in dataclasses.astuple(info.input)[2]]
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def main() -> None:
    """Run all checks; with --anywhere PyTorch's on the CPU too."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--anywhere", action="store_true")
    parser.add_argument("--model", default="evo_deit_small_patch16_224", help="in PyTorch")
    given = parser.parse_args()
    facts = of_this_process()
    with facts.check("an_elastic_network_in_pytorch") as found:
        import torch

        cuda = torch.cuda.is_available()
        if not cuda and not given.anywhere:
            raise NotRunError("PyTorch has no CUDA here")
        found |= in_pytorch(given.model, "cuda" if cuda else "cpu")
    for runtime in ("tensorrt", "tensorrt-rtx"):
        with (
            facts.check(f"an_elastic_engine_of_{runtime.replace('-', '_')}") as found,
            tempfile.TemporaryDirectory() as folder,
        ):
            found |= in_engines(runtime, Path(folder))


if __name__ == "__main__":
    main()
