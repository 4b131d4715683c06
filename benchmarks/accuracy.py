"""What a user would pick instead: `python benchmarks/accuracy.py --tome DIR [--help]`.

A DINOv2 ViT-S/14 that reads handwritten digits, made faster in every way at hand: tokens that rest or merge, untrained
and distilled without labels; Token Merging, whose published code is run from DIR (`git clone
https://github.com/facebookresearch/ToMe DIR`); the dense network on fewer pixels. Accuracy by a linear probe of the
dense network's features, which is fitted once and reads all of them; throughput over the dense network's in PyTorch,
ONNX Runtime and OpenVINO, all networks of a runtime in turn; and the GPU program of four of them, built without a GPU.
With `--busy`, for a machine that has other work, throughput is by the CPU time of one thread instead of the clock.

Writes a JSON document, after each part what there is, and a picture; prints Markdown tables. With `--show` it only
prints and draws what an earlier run wrote.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import accuracy_report
import numpy as np
import real_weights
from accuracy_entrants import Entrant, entrants_of, labelled
from digits_probe import chunks, digits, fitted_probe
from labelled_sets import save
from numpy.typing import NDArray
from photographs import tensors
from PIL import Image
from token_merging import published

import evodeploy
from evodeploy.benchmark.measure.interleaved import Budget, Clock, measured, wall_clock
from evodeploy.benchmark.measure.intervals import median_interval
from evodeploy.builder.engine import build_engine
from evodeploy.builder.request import BuildRequest
from evodeploy.engines.base import Engine
from evodeploy.engines.opener import open_engine
from evodeploy.errors import EvodeployError
from evodeploy.files import replacing
from evodeploy.inspection.program import read_program
from evodeploy.machine.cores import usable_cores
from evodeploy.machine.environment import environment
from evodeploy.onnx_files import write_onnx
from evodeploy.specs import EngineOptions

HERE = Path(__file__).parent
RESULT = HERE / "results" / "accuracy.json"
PICTURE = HERE.parent / "docs" / "images" / "accuracy.svg"
RUNTIMES = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
AGREES = 1e-3  # of the largest feature, by which a runtime's features may differ from PyTorch's
SETTINGS = ("train", "test", "batch", "rounds", "minutes", "threads", "busy")
Document = dict[str, Any]
Images = list[Image.Image]


def main() -> None:
    """Measure, write, draw, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--tome", type=Path, metavar="DIR", help="a checkout of facebookresearch/ToMe")
    parser.add_argument("--keep", default="0.7,0.5,0.3", help="keep ratios; ToMe and fewer pixels at equal work")
    parser.add_argument("--exported", help="keep ratios whose networks run in ONNX Runtime and OpenVINO too: all")
    parser.add_argument("--tome-r", default="11,17", help="r of ToMe to measure besides, for those of equal time")
    parser.add_argument("--distilled", type=Path, nargs="*", metavar="CKPT", help="in place of distilling here")
    parser.add_argument("--minutes", type=float, default=12.0, help="to distill each fast path for; 0: not at all")
    parser.add_argument("--train", type=int, default=1195, help="digits to fit the probe on, of 1195")
    parser.add_argument("--test", type=int, default=300, help="digits to test on, of 599")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10, help="in which every network is timed once")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--busy", action="store_true", help="time one thread, by its CPU time")
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--show", action="store_true", help="print and draw what --output holds; measure nothing")
    args = parser.parse_args()
    args.threads = 1 if args.busy else args.threads
    if args.show:
        document = json.loads(args.output.read_text(encoding="utf-8"))
    elif args.tome is None:
        parser.error("--tome DIR is needed: git clone https://github.com/facebookresearch/ToMe DIR")
    else:
        for document in run(args):
            _write(args.output, json.dumps(document, indent=1, allow_nan=False) + "\n")
            print(f"wrote {args.output}, {len(document['rows'])} rows", file=sys.stderr, flush=True)
    _write(args.picture, accuracy_report.as_svg(document) + "\n")
    print("\n".join(accuracy_report.tables(document)))


def run(args: argparse.Namespace) -> Iterator[Document]:
    """The document as it grows: accuracies, then one runtime after the other, then GPU programs."""
    merging, keeps = published(args.tome), tuple(map(float, args.keep.split(",")))
    train, test = digits(args.train, args.test)
    document: Document = {
        "schema": 1,
        "environment": dataclasses.asdict(environment(args.threads)),
        "load": [os.getloadavg()[0]],
        "settings": {name: getattr(args, name) for name in SETTINGS},
        "runtimes": RUNTIMES,
        "rows": [],
        "programs": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = real_weights.checkpoint(Path(folder, "dinov2_small.pth"))
        trained = args.distilled if args.distilled is not None else _distilled(checkpoint, args, Path(folder))
        rates = tuple(int(r) for r in args.tome_r.split(",") if r)
        entrants = entrants_of(checkpoint, trained, keeps, rates, merging)
        reference = _accuracies(entrants, train, test, EngineOptions(threads=usable_cores()), document)
        options = EngineOptions(threads=args.threads)
        yield _loaded(document)
        timed = [entrant for entrant in entrants if not entrant.distilled]  # distilled weights are as fast
        with ExitStack() as stack:
            engines = [stack.enter_context(entrant.torch(options)) for entrant in timed]
            _speeds("torch", timed, engines, test[0], reference, document)
        yield _loaded(document)
        chosen = keeps if args.exported is None else tuple(map(float, args.exported.split(",")))
        timed = [entrant for entrant in timed if entrant.keep in (None, *chosen)]
        files = [Path(folder, f"{index}.onnx") for index, _ in enumerate(timed)]
        for entrant, file in zip(timed, files, strict=True):
            write_onnx(entrant.onnx(), file)
        for runtime in ("onnxruntime", "openvino"):
            with ExitStack() as stack:
                engines = [stack.enter_context(open_engine(file, runtime, options)) for file in files]
                _speeds(runtime, timed, engines, test[0], reference, document)
            yield _loaded(document)
        for entrant, file in zip(timed, files, strict=True):
            if entrant.programmed:
                document["programs"].append(_program(entrant, file))
        yield _loaded(document)


def _distilled(checkpoint: Path, args: argparse.Namespace, folder: Path) -> list[Path]:
    """One set of weights for all keep ratios and each fast path, learnt from the training digits without labels."""
    if not args.minutes:
        return []
    for name, images in zip(("train", "held"), (side[0] for side in digits(args.train, 50)), strict=True):
        save(folder / name, images)
    paths = []
    for fast_path in ("rest", "merge"):
        paths.append(folder / f"{fast_path}.pth")
        evodeploy.distill(
            checkpoint, folder / "train", paths[-1], elastic=(0.3, 1.0), stages=(4, 8), fast_path=fast_path,
            image_size=224, minutes=args.minutes, val=folder / "held", threads=args.threads,
        )  # fmt: skip
    return paths


def _accuracies(
    entrants: list[Entrant],
    train: tuple[Images, NDArray[np.int64]],
    test: tuple[Images, NDArray[np.int64]],
    options: EngineOptions,
    document: Document,
) -> dict[str, NDArray[np.float32]]:
    """Add a row for each of `entrants`, the dense network first; returns features of the first test digits."""
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


def _speeds(
    runtime: str,
    timed: list[Entrant],
    engines: list[Engine],
    images: Images,
    reference: dict[str, NDArray[np.float32]],
    document: Document,
) -> None:
    """Add to the rows what `runtime` takes, and over the dense network, round by round; the first is the dense one."""
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
    """A clock of `run` by the CPU time of this process: on one thread it hardly sees what else the machine does."""
    return partial(_cpu_seconds, run, images)


def _cpu_seconds(run: Callable[[NDArray[np.float32]], object], images: NDArray[np.float32]) -> float:
    start = time.process_time()
    run(images)
    return time.process_time() - start


def _program(entrant: Entrant, onnx: Path) -> Document:
    """The GPU program of an FP16 engine for SM89, batch 1 to 64, or why there is none."""
    request = BuildRequest(onnx, onnx.with_suffix(".engine"), "fp16", ((1, 32, 64),), "tensorrt-rtx", ("sm89",))
    row: Document = {"name": entrant.name, "attentions_of": entrant.depth}
    try:
        record = build_engine(request)
    except EvodeployError as error:
        return row | {"reason": f"{error}"}
    program = read_program(request.output)
    assert program is not None
    return row | {
        "kernels": program.total,
        "gemms": program.kernels.get("gemm", 0),
        "attentions": program.attentions,
        "activation_bytes": record.activation_bytes,
    }


def _loaded(document: Document) -> Document:
    """With the machine's load at this moment added: the mean number of processes that wanted a core."""
    document["load"].append(round(os.getloadavg()[0], 1))
    return document


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
