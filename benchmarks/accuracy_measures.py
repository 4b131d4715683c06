"""The measurements of benchmarks/accuracy.py: accuracies, throughputs and GPU programs."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_entrants import Entrant, labelled
from digits_probe import chunks, fitted_probe
from numpy.typing import NDArray
from photographs import tensors
from PIL import Image

from evodeploy.benchmark.measure.interleaved import Budget, Clock, measured, wall_clock
from evodeploy.benchmark.measure.intervals import median_interval
from evodeploy.builder.engine import build_engine
from evodeploy.builder.request import BuildRequest
from evodeploy.engines.base import Engine
from evodeploy.errors import EvodeployError
from evodeploy.inspection.program import read_program
from evodeploy.specs import EngineOptions

AGREES = 1e-3  # tolerance between a runtime's features and PyTorch's, relative to the largest feature
Document = dict[str, Any]
Images = list[Image.Image]


def accuracies(
    entrants: list[Entrant],
    train: tuple[Images, NDArray[np.int64]],
    test: tuple[Images, NDArray[np.int64]],
    options: EngineOptions,
    document: Document,
) -> dict[str, NDArray[np.float32]]:
    """Add a row for each of `entrants`, the dense network first. Returns features of the first test digits."""
    probe, dense, first = None, None, {}
    for entrant in entrants:
        with entrant.torch(options) as engine:
            if probe is None:
                probe = fitted_probe(_features(engine, train[0], entrant.side), train[1])
            features = _features(engine, test[0], entrant.side)
        first[entrant.name] = features[: document["settings"]["batch"]]
        answers = probe.predict(features)
        dense = answers if dense is None else dense
        document["rows"].append(labelled(entrant, answers, test[1], dense))
        print(f"{entrant.name}: {document['rows'][-1]['accuracy']:.1%}", file=sys.stderr, flush=True)
    return first


def _features(engine: Engine, images: Images, side: int, batch: int = 20) -> NDArray[np.float32]:
    found = [engine.run(_pixels(chunk, side))["features"] for chunk in chunks(images, batch)]
    return np.concatenate(found)


def _pixels(images: Images, side: int) -> NDArray[np.float32]:
    return tensors([image.resize((side, side), Image.Resampling.BICUBIC) for image in images])


def speeds(
    runtime: str,
    timed: list[Entrant],
    engines: list[Engine],
    images: Images,
    reference: dict[str, NDArray[np.float32]],
    document: Document,
) -> None:
    """Add the times of `runtime` to the rows, relative to the dense network, which is the first, round by round."""
    settings = document["settings"]
    pixels = [_pixels(images[: settings["batch"]], entrant.side) for entrant in timed]
    for entrant, engine, batch in zip(timed, engines, pixels, strict=True):
        expected = reference[entrant.name]
        error = float(np.abs(engine.run(batch)["features"] - expected).max() / np.abs(expected).max())
        if error > AGREES:
            print(f"{entrant.name} in {runtime} differs from PyTorch by {error:.1e}", file=sys.stderr)
    clock: Callable[..., Clock] = cpu_clock if settings["busy"] else wall_clock
    clocks = [clock(engine.run, batch) for engine, batch in zip(engines, pixels, strict=True)]
    timings = measured(clocks, Budget(0.0, settings["rounds"], min_seconds=0.0)).timings
    for entrant, timing in zip(timed, timings, strict=True):
        ratios = [base / own for base, own in zip(timings[0].samples, timing.samples, strict=True)]
        speed = {
            **dataclasses.asdict(median_interval(ratios)),
            "images_per_second": settings["batch"] / timing.median,
            "seconds": [round(sample, 5) for sample in timing.samples],
        }
        for row in document["rows"]:
            if row["network"] == entrant.network:
                row["speed"][runtime] = speed


def cpu_clock(run: Callable[[NDArray[np.float32]], object], images: NDArray[np.float32]) -> Clock:
    """Return a clock of `run` by the CPU time of this process. With one thread, other work hardly affects it."""
    return partial(_cpu_seconds, run, images)


def _cpu_seconds(run: Callable[[NDArray[np.float32]], object], images: NDArray[np.float32]) -> float:
    start = time.process_time()
    run(images)
    return time.process_time() - start


def program(entrant: Entrant, onnx: Path) -> Document:
    """Return the GPU program of an FP16 engine for SM89, batch 1 to 64, or the reason why there is none."""
    request = BuildRequest(onnx, onnx.with_suffix(".engine"), "fp16", ((1, 32, 64),), "tensorrt-rtx", ("sm89",))
    row: Document = {"name": entrant.name, "attentions_of": entrant.depth}
    try:
        record = build_engine(request)
    except EvodeployError as error:
        return row | {"reason": f"{error}"}
    found = read_program(request.output)
    assert found is not None
    return row | {
        "kernels": found.total,
        "gemms": found.kernels.get("gemm", 0),
        "attentions": found.attentions,
        "activation_bytes": record.activation_bytes,
    }
