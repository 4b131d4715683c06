"""The gain of token selection in PyTorch on a GPU: `python benchmarks/gpu_evo_over_dense.py [-o FILE]`.

Each model of the paper's table is compared with its dense twin: random weights, which are as fast, in true FP16,
compiled and replayed as CUDA graphs, at batch 1 to 256, with and without the copies to the GPU and back. The twins take
turns. FILE is written after each batch size, in the form of `gpu-results-*.json`, so that `evodeploy bench --compare`
can read the results of an interrupted run. By default it is benchmarks/results/gpu-evo-over-dense-GPU.json. Prints a
Markdown table.

Compiling takes most of the time and no GPU, so `--jobs` processes compile first and fill PyTorch's cache. What does not
fit into `--limit` seconds is left out, with a message.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from evodeploy.benchmark.measure.interleaved import Budget
from evodeploy.benchmark.report.report import Report
from evodeploy.benchmark.row import Row
from evodeploy.benchmark.row_spec import RowSpec
from evodeploy.benchmark.row_specs import row_specs_of
from evodeploy.benchmark.subject import Subject, subject_of
from evodeploy.benchmark.timed_rows import timed_rows
from evodeploy.errors import EvodeployError
from evodeploy.files import replacing
from evodeploy.machine.cores import usable_cores
from evodeploy.machine.environment import environment

RESULTS = Path(__file__).parent / "results"
MODELS = (
    "evo_deit_small_patch16_224", "evo_deit_tiny_patch16_224", "evo_deit_base_patch16_224", "EvoLeViT_256",
    "EvoLeViT_128S", "EvoLeViT_384", "EvoLeViT_192", "EvoLeViT_128",
)  # fmt: skip
BATCHES = (1, 8, 32, 128, 256)
ENGINE = "torch-compile-reduce-overhead"
SLOWER = 1.5  # expected duration of a batch size, relative to the longest so far


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of the measurement. `end` is a time of time.time()."""

    models: tuple[str, ...] = MODELS
    batches: tuple[int, ...] = BATCHES
    engine: str = ENGINE
    precision: str = "fp16"
    seconds: float = 0.5
    jobs: int = 0
    threads: int = dataclasses.field(default_factory=usable_cores)
    end: float = float("inf")


def measured(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield the growing bench of each model after each batch size. Ends before `settings.end`."""
    machine = environment(settings.threads)
    budget = Budget(settings.seconds, min_seconds=min(0.2, settings.seconds))
    longest = 0.0
    for name in settings.models:
        subject = subject_of([], name)
        rows: tuple[Row, ...] = ()
        _compile_first(name, settings)
        for batch in settings.batches:
            start = time.time()
            if start + SLOWER * longest > settings.end:
                print(f"left out for want of time: {name} from batch {batch} on, and what follows", file=sys.stderr)
                return
            with row_specs_of(subject, [settings.engine], [settings.precision], settings.threads) as specs:
                rows = (*rows, *timed_rows(specs, [batch], budget))
            longest = max(longest, time.time() - start)
            yield Report(subject, machine, budget, rows, {}).to_dict()


def _compile_first(name: str, settings: Settings) -> None:
    """Let other processes compile `name` for each batch size and role, to fill PyTorch's cache for this one."""
    if not settings.jobs:
        return
    seconds = max(1.0, settings.end - time.time()) if settings.end != float("inf") else None

    def run(what: tuple[int, str]) -> None:
        batch, role = what
        command = [sys.executable, __file__, "--compile", role, "--models", name, "--batches", str(batch)]
        command += ["--engine", settings.engine, "--precision", settings.precision]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return
        if done.returncode:
            print(f"compiling {name} ({role}) at batch {batch}: {done.stderr[-500:]}", file=sys.stderr)

    with ThreadPoolExecutor(settings.jobs) as pool:
        list(pool.map(run, [(batch, role) for batch in settings.batches for role in ("evo", "dense")]))


def compile_one(settings: Settings, role: str) -> None:
    """Run one batch of each size, to compile it."""
    subject: Subject = subject_of([], settings.models[0])
    with row_specs_of(subject, [settings.engine], [settings.precision], 1) as specs:
        chosen: RowSpec = next(spec for spec in specs if spec.role == role)
        with chosen.open() as engine:
            shape = [size or 1 for size in engine.inputs[0].shape[1:]]
            for batch in settings.batches:
                engine.run(np.zeros((batch, *shape), engine.inputs[0].dtype))


def table(benches: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield Markdown: the throughput of both at each batch size, their ratio, and the joules per image."""
    yield "| model | batch | copies | Evo, img/s | dense, img/s | Evo over dense | J an image, Evo and dense |"
    yield "|---|---|---|---|---|---|---|"
    for document in benches:
        rows = [row for row in document["results"] if row["status"] != "unavailable"]
        for row in rows:
            twin = next((other for other in rows if _twins(row, other)), None)
            if row["model"] != "evo" or twin is None or row["over_dense"] is None:
                continue
            ratio, both = row["over_dense"], (row, twin)
            speeds = " | ".join(f"{one['images_per_second']['value']:.0f}" for one in both)
            joules = ", ".join(_joules(one["joules_per_image"]) for one in both)
            wrong = " WRONG" if row["status"] == "wrong" else ""
            yield (
                f"| {document['model']['name']} | {row['batch']} | {row['transfers']} | {speeds} "
                f"| {ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}){wrong} | {joules} |"
            )


def _joules(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _twins(row: dict[str, Any], other: dict[str, Any]) -> bool:
    return other["model"] == "dense" and all(
        row[key] == other[key] for key in ("batch", "transfers", "in_flight", "engine")
    )


def default_output() -> Path:
    """Return a file named after the GPU, or the processor."""
    machine = environment(1)
    name = machine.gpus[0].name if machine.gpus else machine.processor
    return RESULTS / f"gpu-evo-over-dense-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.json"


def write(path: Path, benches: Sequence[dict[str, Any]]) -> None:
    """Write all benches so far, in the format of a GPU run's results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        draft.write_text(json.dumps({"benches": list(benches)}, allow_nan=False, indent=1) + "\n", encoding="utf-8")


def _sizes(given: str) -> tuple[int, ...]:
    """Return the batch sizes in a comma-separated list."""
    if not all(re.fullmatch("[1-9][0-9]{0,6}", size) for size in given.split(",")):
        raise argparse.ArgumentTypeError(f"'{given}' is no list of batch sizes, expected some such as 1,8,32")
    return tuple(map(int, given.split(",")))


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--batches", type=_sizes, default=BATCHES, help="such as 1,8,32")
    parser.add_argument("--engine", default=ENGINE)
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each row, at most; from 2 on its energy too")
    parser.add_argument("--jobs", type=int, default=max(1, usable_cores() // 2), help="processes that compile, or 0")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of the CPU")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds in all")
    parser.add_argument("--compile", choices=("evo", "dense"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    models, end = tuple(given.models.split(",")), time.time() + given.limit
    settings = Settings(
        models, given.batches, given.engine, given.precision, given.seconds, given.jobs, given.threads, end
    )
    if given.compile:
        compile_one(settings, given.compile)
        return
    path, benches = given.output or default_output(), dict[str, dict[str, Any]]()
    try:
        for document in measured(settings):
            benches[document["model"]["name"]] = document
            write(path, [*benches.values()])
    except EvodeployError as error:
        parser.error(str(error))
    print("\n".join(table([*benches.values()])))
    print(f"\nwrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
