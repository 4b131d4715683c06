"""Comparison with the alternatives a user has: `python benchmarks/accuracy.py --tome DIR [--help]`.

A DINOv2 ViT-S/14 that reads handwritten digits, made faster in every available way: tokens that rest or merge,
untrained and distilled without labels; Token Merging, whose published code is run from DIR (`git clone
https://github.com/facebookresearch/ToMe DIR`); the dense network on fewer pixels. Accuracy comes from a linear probe
that is fitted once to the dense network's features and applied to the features of all. Throughput is relative to the
dense network's in PyTorch, ONNX Runtime and OpenVINO, with all networks of a runtime in turn. The GPU programs of four
of them are built without a GPU. With `--busy`, for a machine that has other work, throughput is measured by the CPU
time of one thread instead of the clock.

Writes a JSON document, updated after each part, and a picture; prints Markdown tables. With `--show` it only prints and
draws the results of an earlier run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import accuracy_report
import real_weights
from accuracy_entrants import entrants_of
from accuracy_measures import Document, accuracies, program, speeds
from digits_probe import digits
from labelled_sets import save
from token_merging import published

import evodeploy
from evodeploy.engines.opener import open_engine
from evodeploy.files import replacing
from evodeploy.machine.cores import usable_cores
from evodeploy.machine.environment import environment
from evodeploy.onnx_files import write_onnx
from evodeploy.specs import EngineOptions

HERE = Path(__file__).parent
RESULT = HERE / "results" / "accuracy.json"
PICTURE = HERE.parent / "docs" / "images" / "accuracy.svg"
RUNTIMES = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
SETTINGS = ("train", "test", "batch", "rounds", "minutes", "threads", "busy")


def main() -> None:
    """Measure, write, draw, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--tome", type=Path, metavar="DIR", help="a checkout of facebookresearch/ToMe")
    parser.add_argument("--keep", default="0.7,0.5,0.3,0.2", help="keep ratios; ToMe and fewer pixels at equal work")
    parser.add_argument("--exported", help="keep ratios whose networks run in ONNX Runtime and OpenVINO too: all")
    parser.add_argument("--tome-r", default="11,17", help="r of ToMe to measure besides, for those of equal time")
    parser.add_argument("--distilled", type=Path, nargs="*", metavar="CKPT", help="in place of distilling here")
    parser.add_argument("--minutes", type=float, default=15.0, help="to distill each fast path for; 0: not at all")
    parser.add_argument("--train", type=int, default=1195, help="digits to fit the probe on, of 1195")
    parser.add_argument("--test", type=int, default=599, help="digits to test on, of 599")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20, help="in which every network is timed once")
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
    """Yield the growing document: accuracies, then one runtime after the other, then GPU programs."""
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
        reference = accuracies(entrants, train, test, EngineOptions(threads=usable_cores()), document)
        options = EngineOptions(threads=args.threads)
        yield _loaded(document)
        timed = [entrant for entrant in entrants if not entrant.distilled]  # distilled weights are as fast
        with ExitStack() as stack:
            engines = [stack.enter_context(entrant.torch(options)) for entrant in timed]
            speeds("torch", timed, engines, test[0], reference, document)
        yield _loaded(document)
        chosen = keeps if args.exported is None else tuple(map(float, args.exported.split(",")))
        timed = [entrant for entrant in timed if entrant.keep in (None, *chosen)]
        files = [Path(folder, f"{index}.onnx") for index, _ in enumerate(timed)]
        for entrant, file in zip(timed, files, strict=True):
            write_onnx(entrant.onnx(), file)
        for runtime in ("onnxruntime", "openvino"):
            with ExitStack() as stack:
                engines = [stack.enter_context(open_engine(file, runtime, options)) for file in files]
                speeds(runtime, timed, engines, test[0], reference, document)
            yield _loaded(document)
        for entrant, file in zip(timed, files, strict=True):
            if entrant.programmed:
                document["programs"].append(program(entrant, file))
        yield _loaded(document)


def _distilled(checkpoint: Path, args: argparse.Namespace, folder: Path) -> list[Path]:
    """Return one set of weights for each fast path and all keep ratios, trained on the digits without their labels."""
    if not args.minutes:
        return []
    for name, images in zip(("train", "held"), (side[0] for side in digits(args.train, 50)), strict=True):
        save(folder / name, images)
    paths = []
    for fast_path in ("rest", "merge"):
        paths.append(folder / f"{fast_path}.pth")
        evodeploy.distill(
            checkpoint, folder / "train", paths[-1], elastic=(0.2, 1.0), stages=(4, 8), fast_path=fast_path,
            image_size=224, minutes=args.minutes, val=folder / "held", threads=args.threads,
        )  # fmt: skip
    return paths


def _loaded(document: Document) -> Document:
    """Return the document with the machine's current load added: the mean number of processes that need a core."""
    document["load"].append(round(os.getloadavg()[0], 1))
    return document


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
