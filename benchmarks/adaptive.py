"""The effect of a latency target: `python benchmarks/adaptive.py [--seconds N] [--minutes N] [--smoke]`.

A DINOv2 ViT-S/14 that reads handwritten digits, served by three processes of `evodeploy serve`: dense, with half of the
tokens, and adaptive, which has a target for the latency. The dense server's capacity is measured first. Then
`evodeploy.load_test` sends requests to each at 0.5 to 3 times that rate, at random times that do not depend on answers.
The three take turns at each rate. Pictures are labelled, so answers have an accuracy, measured on 599 digits that
nothing was trained on. The servers with fewer tokens run weights that were distilled for all keep ratios; the dense one
runs the original weights.

Writes a JSON document, updated after each rate, and a picture; prints a Markdown table. With `--show` it only prints
and draws the results of an earlier run. Networks are kept in `--folder` for further runs.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import adaptive_report
import numpy as np
import real_weights
import torch
from digits_probe import SIZE, chunks, digits, fitted_probe
from labelled_sets import save
from photographs import tensors

import evodeploy
from evodeploy.evaluation.statistics import wilson
from evodeploy.files import replacing
from evodeploy.load_testing.records import QUANTILES, Load
from evodeploy.machine.cores import usable_cores
from evodeploy.machine.environment import environment

HERE = Path(__file__).parent
RESULT = HERE / "results" / "adaptive.json"
PICTURE = HERE.parent / "docs" / "images" / "adaptive.svg"
FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)  # relative to the dense capacity
CONNECTIONS = 16  # for the measurement of the capacity
STAGES = (2, 5, 8)  # early, for 2.5 times the dense throughput at the lowest keep ratio; stages 4 and 8 give 2 times
LEAST = 0.2  # the lowest keep ratio of the distillation
STATIC = 0.5  # the keep ratio of the server without a target
Document = dict[str, Any]


class Networks(NamedTuple):
    """Three artefacts, and the folder of pictures for the requests, with a subfolder for each class."""

    dense: Path
    static: Path
    elastic: Path
    pictures: Path


def main() -> None:
    """Measure, write, draw, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--seconds", type=float, default=30.0, help="of each server at each rate")
    parser.add_argument(
        "--target", type=float, default=500.0, help="milliseconds in which 99 of 100 are to be answered"
    )
    parser.add_argument("--low", type=float, default=LEAST, help="the least keep ratio of the adaptive server")
    parser.add_argument("--minutes", type=float, default=12.0, help="to distill for; 0: the weights as they are")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--folder", type=Path, help="where networks are kept; by default nowhere")
    parser.add_argument("--smoke", action="store_true", help="the bundled small network, two rates, a second each")
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--show", action="store_true", help="print and draw what --output holds; measure nothing")
    args = parser.parse_args()
    if args.show:
        document = json.loads(args.output.read_text(encoding="utf-8"))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            folder = args.folder or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            networks = sample_networks(folder, args.low) if args.smoke else trained_networks(folder, args)
            for document in run(networks, args, (1.0, 2.0) if args.smoke else FACTORS):
                _write(args.output, json.dumps(document, indent=1, allow_nan=False) + "\n")
                print(f"wrote {args.output}, {len(document['points'])} points", file=sys.stderr, flush=True)
    _write(args.picture, adaptive_report.as_svg(document) + "\n")
    print("\n".join(adaptive_report.table(document)))


def run(networks: Networks, args: argparse.Namespace, factors: tuple[float, ...]) -> Iterator[Document]:
    """Yield the growing document, rate by rate."""
    seconds = 1.0 if args.smoke else args.seconds
    target = ["--target-p99", args.target, "--keep-ratio", f"{args.low:g}:1"]
    document: Document = {
        "schema": 1,
        "environment": dataclasses.asdict(environment(usable_cores())),
        "load": [os.getloadavg()[0]],
        "engine": args.engine,
        "seconds": seconds,
        "target": args.target / 1000,
        "minutes": args.minutes,
        "capacity": [],
        "points": [],
    }
    with contextlib.ExitStack() as stack:
        urls = {
            "dense": stack.enter_context(served(networks.dense, args.engine)),
            f"keep {STATIC:g}": stack.enter_context(served(networks.static, args.engine)),
            "adaptive": stack.enter_context(served(networks.elastic, args.engine, *target)),
        }

        def asked(name: str, **how: Any) -> Load:
            (load,) = evodeploy.load_test(
                urls[name], images=networks.pictures, labels=True, seconds=seconds, target=args.target / 1000, **how
            ).loads
            return load

        def measure_capacity() -> None:
            load = asked("dense", connections=CONNECTIONS)
            document["capacity"].append(len(load.answered) / load.seconds)

        measure_capacity()
        capacity = document["capacity"][0]
        for turn, factor in enumerate(factors):
            names = list(urls)
            for name in names[turn % 3 :] + names[: turn % 3]:
                load = asked(name, rates=(factor * capacity,), seed=turn)
                document["points"].append({"server": name, "factor": factor} | _figures(load))
            yield document
        measure_capacity()
    document["load"].append(os.getloadavg()[0])
    yield document


def _figures(load: Load) -> Document:
    right, known = sum(each.right is True for each in load.answered), len(load.answered)
    return {
        "rate": load.rate,
        "requests": len(load.outcomes),
        "answered": known,
        "refused": load.refused,
        "failed": load.failed,
        "in_time": load.in_time,
        "keep_ratio": load.keep_ratio,
        "accuracy": load.accuracy,
        "interval": wilson(right, known) if known else None,
        "latency": {name: load.quantile(share) for name, share in QUANTILES.items()},
    }


@contextlib.contextmanager
def served(artefact: Path, engine: str, *options: object) -> Iterator[str]:
    """Start a server in a separate process, and yield its address."""
    command = [
        sys.executable,
        "-m",
        "evodeploy",
        "serve",
        artefact,
        "--engine",
        engine,
        "--port",
        0,
        "--json",
        *options,
    ]
    service = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    try:
        written = "".join(iter(service.stdout.readline, "}\n"))
        if not written.startswith("{"):
            sys.exit(f"the server of {artefact} does not start")
        yield json.loads(written + "}")["address"]
    finally:
        service.send_signal(signal.SIGINT)
        service.communicate()


def sample_networks(folder: Path, low: float) -> Networks:
    """Return the networks of the bundled checkpoint, which is too small for the tokens to matter."""
    sys.path.insert(0, str(HERE.parent / "sample"))
    from digits import write_held_out

    write_held_out(folder / "pictures")
    source = HERE.parent / "sample" / "digits.pth"
    return _exported(source, source, folder, low, None)


def trained_networks(folder: Path, args: argparse.Namespace) -> Networks:
    """Return the networks of DINOv2 with a classifier of digits, original and distilled; existing files are reused."""
    dense, elastic = folder / "digits.pth", folder / "elastic.pth"
    if not dense.exists():
        with replacing(dense) as draft:
            torch.save(classifier(folder), draft)
    if not args.minutes:
        elastic = dense
    elif not elastic.exists():
        print(f"distilling for {args.minutes:g} minutes", file=sys.stderr, flush=True)
        evodeploy.distill(
            dense, folder / "train", elastic, elastic=(LEAST, 1.0), stages=STAGES, image_size=SIZE,
            minutes=args.minutes, val=folder / "held",
        )  # fmt: skip
    names = folder / "names.txt"
    names.write_text("".join(f"{name}\n" for name in range(10)))
    return _exported(dense, elastic, folder, args.low, names)


def classifier(folder: Path) -> dict[str, torch.Tensor]:
    """Return DINOv2 with a linear probe of its dense training features as head. Also writes all pictures."""
    checkpoint = real_weights.checkpoint(folder / "dinov2_small.pth")
    (train, labels), (test, test_labels) = digits(1195, 599)
    for name, images, classes in (
        ("train", train, labels),
        ("pictures", test, test_labels),
        ("held", test[::12], None),
    ):
        save(folder / name, images, classes)
    features = folder / "features.onnx"
    evodeploy.export(checkpoint, features, keep_ratio=1.0, image_size=SIZE, force=True)
    with evodeploy.open_engine(features, "openvino") as engine:
        found = np.concatenate([engine.run(tensors(chunk))["features"] for chunk in chunks(train, 20)])
    scale, linear = fitted_probe(found, labels).best_estimator_
    weight = linear.coef_ / scale.scale_
    bias = linear.intercept_ - weight @ scale.mean_
    head = {"classifier.weight": weight, "classifier.bias": bias}
    state = torch.load(checkpoint, weights_only=True)
    return state | {name: torch.from_numpy(value.astype(np.float32)) for name, value in head.items()}


def _exported(dense: Path, elastic: Path, folder: Path, low: float, names: Path | None) -> Networks:
    networks = Networks(*(folder / f"{name}.onnx" for name in ("dense", "static", "elastic")), folder / "pictures")
    where: dict[str, Any] = {} if names is None else {"stages": STAGES, "image_size": SIZE}
    more = {"class_names": names, "force": True} | where
    evodeploy.export(dense, networks.dense, keep_ratio=1.0, **more)
    evodeploy.export(elastic, networks.static, keep_ratio=STATIC, **more)
    evodeploy.export(elastic, networks.elastic, elastic=(low, 1.0), **more)
    return networks


def _write(path: Path, text: str) -> None:
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
