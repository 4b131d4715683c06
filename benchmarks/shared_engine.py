"""The cost of sharing OpenVINO's engine between threads: `python benchmarks/shared_engine.py [MODEL]`.

In turn, at batch 1 and 8: one thread with the engine, whose pool has an infer request for each thread, compared with
the bare call of one request; and two threads with the engine, compared with two threads with one request behind a lock.
Prints a Markdown table of times and ratios; below 1 the engine is faster. Run it on a quiet machine.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openvino
from in_turn import interleaved

from evodeploy.benchmark.measure.interleaved import Budget, RunTimes
from evodeploy.benchmark.measure.intervals import median_interval
from evodeploy.engines.base import Array
from evodeploy.engines.opener import open_engine
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.machine.cores import usable_cores
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import named
from evodeploy.onnx_files import write_onnx
from evodeploy.specs import EngineOptions

RUNS = {1: 4, 8: 1}  # by batch size: runs of each of two threads in one timed round
ROUNDS = {1: 40, 8: 20}
Run = Callable[[Array], dict[str, Array]]


def main() -> None:
    """Print the table."""
    model = random_model(named(sys.argv[1] if len(sys.argv) > 1 else "evo_deit_small_patch16_224"))
    side, threads = model.config.image_size, usable_cores()
    print("| batch | threads | one request | evodeploy | ratio, 95 % interval |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as workers:
        path = Path(folder, "m.onnx")
        write_onnx(onnx_from_model(model), path)
        bare, locked = _one_request(path, threads)
        with open_engine(path, "openvino", EngineOptions(threads)) as engine:
            for batch in RUNS:
                images = np.random.default_rng(0).standard_normal((batch, 3, side, side), dtype=np.float32)
                budget = Budget(seconds=10, rounds=ROUNDS[batch], precision=0)
                _row(batch, 1, interleaved([bare, engine.run], images, budget))
                runs = [_by_two(run, workers, RUNS[batch]) for run in (locked, engine.run)]
                _row(batch, 2, interleaved(runs, images, budget))


def _one_request(path: Path, threads: int) -> tuple[Run, Run]:
    """Return the runtime's own call with the engine's settings, without and with a lock around it."""
    properties = {
        "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
    }  # fmt: skip
    compiled = openvino.Core().compile_model(path, "CPU", properties)
    request, lock = compiled.create_infer_request(), threading.Lock()
    names = [port.any_name for port in compiled.outputs]

    def bare(images: Array) -> dict[str, Array]:
        request.infer([images], share_inputs=True)
        return {name: np.array(request.get_tensor(name).data) for name in names}

    def locked(images: Array) -> dict[str, Array]:
        with lock:
            return bare(images)

    return bare, locked


def _by_two(run: Run, workers: ThreadPoolExecutor, times: int) -> Callable[[Array], object]:
    """Return a function that lets two threads run `times` times each."""

    def work(images: Array) -> None:
        for _ in range(times):
            run(images)

    return lambda images: list(workers.map(work, [images, images]))


def _row(batch: int, threads: int, timings: list[RunTimes]) -> None:
    alone, ours = timings
    ratio = median_interval([mine / theirs for mine, theirs in zip(ours.samples, alone.samples, strict=True)])
    each = threads * (RUNS[batch] if threads > 1 else 1)  # runs in a round
    times = f"{alone.median / each * 1e3:.2f} ms | {ours.median / each * 1e3:.2f} ms"
    print(f"| {batch} | {threads} | {times} | {ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f}) |", flush=True)


if __name__ == "__main__":
    main()
