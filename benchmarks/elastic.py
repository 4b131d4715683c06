"""What it costs that one file holds every keep ratio: `python benchmarks/elastic.py [ROUNDS] [MODEL]`.

At batch 8, static files at four keep ratios against one elastic file run at each of them: in ONNX Runtime in FP32, and
in OpenVINO in FP32 and BF16, all eight of a runtime in turn. Prints a Markdown table of images per second and of the
elastic throughput over the static one, by rounds, with 95 % intervals: below 1 the static file is faster. The keep
ratio 1.0 is the dense network. Weights are random. Run it on a quiet machine.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from evodeploy.benchmark.measure.interleaved import Budget, RunTimes, interleaved
from evodeploy.benchmark.measure.intervals import median_interval
from evodeploy.engines.base import Array, Engine
from evodeploy.engines.opener import open_engine
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.machine.cores import usable_cores
from evodeploy.models.loaded import LoadedModel, with_elastic
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import named, with_selection
from evodeploy.onnx_files import write_onnx
from evodeploy.specs import EngineOptions

RATIOS = (0.3, 0.5, 0.7, 1.0)
RUNTIMES = (("onnxruntime", None), ("openvino", None), ("openvino", "bf16"))  # None is FP32
BATCH = 8
ROUNDS = 40


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    config = named(sys.argv[2] if len(sys.argv) > 2 else "evo_deit_small_patch16_224")
    side = config.image_size
    images = np.random.default_rng(0).standard_normal((BATCH, 3, side, side), dtype=np.float32)
    print("| runtime | keep ratio | static img/s | elastic img/s | elastic / static, 95 % interval |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        statics = [
            _written(Path(folder, f"{ratio}.onnx"), random_model(with_selection(config, (ratio,)))) for ratio in RATIOS
        ]
        elastic = _written(Path(folder, "elastic.onnx"), with_elastic(random_model(config), (min(RATIOS), 1.0)))
        for runtime, precision in RUNTIMES:
            options = EngineOptions(usable_cores(), precision=precision)
            with ExitStack() as stack:
                opened = [stack.enter_context(open_engine(path, runtime, options)) for path in (*statics, elastic)]
                runs = [
                    run
                    for ratio, static in zip(RATIOS, opened, strict=False)
                    for run in _pair(ratio, static, opened[-1])
                ]
                timings = interleaved(runs, images, Budget(seconds=1, rounds=rounds, precision=1))
            for index, ratio in enumerate(RATIOS):
                _row(f"{runtime} {(precision or 'fp32').upper()}", ratio, *timings[2 * index : 2 * index + 2])


def _written(path: Path, model: LoadedModel) -> Path:
    write_onnx(onnx_from_model(model), path)
    return path


def _pair(ratio: float, static: Engine, elastic: Engine) -> tuple[Callable[[Array], object], ...]:
    """The static engine, and the elastic one at `ratio`."""
    assert elastic.info is not None
    return static.run, partial(elastic.run, keep=elastic.info.keep_of(ratio))


def _row(runtime: str, ratio: float, static: RunTimes, elastic: RunTimes) -> None:
    gained = median_interval([alone / ours for alone, ours in zip(static.samples, elastic.samples, strict=True)])
    rates = f"{BATCH / static.median:.1f} | {BATCH / elastic.median:.1f}"
    print(f"| {runtime} | {ratio} | {rates} | {gained.value:.3f} ({gained.low:.3f} to {gained.high:.3f}) |", flush=True)


if __name__ == "__main__":
    main()
