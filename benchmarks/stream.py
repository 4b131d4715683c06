"""The cost of a stream compared with its parts: `python benchmarks/stream.py [ARTEFACT]`.

2,000 JPEG files made of the project's photographs (about 500 by 375 pixels), in turn: decoded and prepared by one
thread per core, computed alone in batches of 32, and streamed from file to label. On a CPU decoding and computing share
the cores, so two bounds are printed: the slower of the two, and the sum of their work. Prints a Markdown table, and the
growth of memory over the streams.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from photographs import crops

import evodeploy
from evodeploy.engines.base import Array, run_all
from evodeploy.images import open_image
from evodeploy.inference.predictor import BATCH, Predictor
from evodeploy.preprocess import prepare

COUNT, DISTINCT, ROUNDS = 2000, 100, 3
MODEL = "evo_deit_small_patch16_224"


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, crop in enumerate(crops(DISTINCT, size=500)):
            crop.crop((0, 0, 500, 375)).save(folder / f"{number:03}.jpg", quality=90)
        paths = [folder / f"{number % DISTINCT:03}.jpg" for number in range(COUNT)]
        with evodeploy.load(sys.argv[1] if len(sys.argv) > 1 else _exported(folder), "openvino") as predictor:
            images = np.stack([prepare(open_image(path), predictor.info) for path in paths[:BATCH]])
            tasks: dict[str, Callable[[], object]] = {
                "decoding": lambda: _decode(predictor, paths),
                "computing": lambda: _compute(COUNT, predictor, images),
                "streaming": lambda: [answer for answer in predictor.stream(paths) if answer],
            }
            seconds: dict[str, list[float]] = {task: [] for task in tasks}
            memory = []
            for _ in range(ROUNDS):
                for task, run in tasks.items():
                    began = time.perf_counter()
                    run()
                    seconds[task].append(time.perf_counter() - began)
                memory.append(_resident())
        rates = {task: COUNT / min(times) for task, times in seconds.items()}
        in_turn = 1 / (1 / rates["decoding"] + 1 / rates["computing"])
        print("| | img/s |\n|---|---|")
        print(f"| decoding alone | {rates['decoding']:.1f} |\n| computing alone | {rates['computing']:.1f} |")
        print(f"| both, one after the other | {in_turn:.1f} |\n| the stream | {rates['streaming']:.1f} |\n")
        print(f"the stream reaches {rates['streaming'] / min(rates['decoding'], rates['computing']):.1%} of the slower")
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"memory after each round: {', '.join(f'{value:.0f}' for value in memory)} MB, at most {most:.0f} MB")


def _compute(count: int, predictor: Predictor, images: Array) -> None:
    for start in range(0, count, BATCH):
        run_all(predictor.engine, images[: count - start])


def _resident() -> float:
    """Return the resident memory of this process in megabytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _decode(predictor: Predictor, paths: list[Path]) -> None:
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(lambda path: prepare(open_image(path), predictor.info).shape, paths):
            pass


def _exported(folder: Path) -> Path:
    from evodeploy.exporter.to_onnx import onnx_from_model
    from evodeploy.models.random_weights import random_model
    from evodeploy.models.zoo import named
    from evodeploy.onnx_files import write_onnx

    write_onnx(onnx_from_model(random_model(named(MODEL))), folder / "m.onnx")
    return folder / "m.onnx"


if __name__ == "__main__":
    main()
