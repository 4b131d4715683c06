"""The cost of holding every keep ratio in one file: `python benchmarks/elastic.py [--help]`.

Evo-DeiT-S and Evo-LeViT-128S at batch 8. Static files at four keep ratios are compared with one elastic file run at
each of them, in ONNX Runtime in FP32, and in OpenVINO in FP32 and BF16; in OpenVINO also with the elastic file opened
at one keep ratio (`fixed_keep`). Those of one ratio run in turn. In the column *changing* those of all ratios run in
turn, so that the elastic engine has another ratio at each run. All files are opened three times, because the place of
an engine's memory changes its throughput by up to 5 %. Prints a Markdown table of images per second and of the
throughput relative to the static file's, by rounds, with 95 % intervals: below 1 the static file is faster. The keep
ratio 1.0 is the dense network. Weights are random. Writes a JSON document after each runtime. Run it on a quiet
machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from in_turn import interleaved

from evodeploy.benchmark.measure.interleaved import Budget, RunTimes
from evodeploy.benchmark.measure.intervals import median_interval
from evodeploy.engines.base import Array, Engine
from evodeploy.engines.opener import open_engine
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.files import replacing
from evodeploy.machine.cores import usable_cores
from evodeploy.machine.environment import environment
from evodeploy.models.loaded import LoadedModel, with_elastic
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import named, with_selection
from evodeploy.onnx_files import write_onnx
from evodeploy.specs import EngineOptions, Precision

MODELS = ("evo_deit_small_patch16_224", "EvoLeViT_128S")
RATIOS = (0.3, 0.5, 0.7, 1.0)
RUNTIMES: tuple[tuple[str, Precision], ...] = (("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"))
BATCH = 8
OPENINGS = 3
ROUNDS = 18  # at least, of all openings together
RESULT = Path(__file__).parent / "results" / "elastic.json"
Run = Callable[[Array], object]


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=RESULT, help="the JSON document")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--minutes", type=float, default=8, help="of timing; exports and warm-ups take two more")
    parser.add_argument("--threads", type=int, default=usable_cores())
    args = parser.parse_args()
    names = args.models.split(",")
    seconds = 60 * args.minutes / len(names) / len(RUNTIMES)
    document: dict[str, Any] = {
        "settings": {"batch": BATCH, "ratios": RATIOS, "minutes": args.minutes, "rounds": ROUNDS},
        "environment": dataclasses.asdict(environment(args.threads)),
        "rows": [],
    }
    print("| model | runtime | keep ratio | static img/s | elastic img/s | elastic / static | fixed | changing |")
    print("|---|---|---|---|---|---|---|---|")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            files = _exported(name, Path(folder))
            for runtime, precision in RUNTIMES:
                options = EngineOptions(args.threads, precision=None if precision == "fp32" else precision)
                rows = list(_rows(files, runtime, options, seconds))
                document["rows"] += [{"model": name, "runtime": runtime, "precision": precision} | row for row in rows]
                _write(args.output, document)
                for row in rows:
                    print(_line(name, f"{runtime} {precision.upper()}", row), flush=True)


def _exported(name: str, folder: Path) -> list[Path]:
    """Write a static file at each keep ratio, and the elastic one. Returns the paths."""
    config = named(name)
    statics = [random_model(with_selection(config, (ratio,))) for ratio in RATIOS]
    models: list[LoadedModel] = [*statics, with_elastic(random_model(config), (0.1, 1.0))]
    files = [folder / f"{index}.onnx" for index, _ in enumerate(models)]
    for model, file in zip(models, files, strict=True):
        write_onnx(onnx_from_model(model), file)
    return files


def _rows(files: Sequence[Path], runtime: str, options: EngineOptions, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield a row for each keep ratio: runs at this ratio, and of all ratios in turn, over several openings."""
    samples: dict[tuple[float, str], list[float]] = defaultdict(list)
    for opening in range(OPENINGS):
        with ExitStack() as stack:
            budget = partial(_budget, seconds / OPENINGS)
            for key, times in _timed(stack, files, runtime, options, budget, opening % 2 == 1):
                samples[key] += times.samples
    for ratio in RATIOS:
        found = {name: times for (each, name), times in samples.items() if each == ratio}
        row: dict[str, Any] = {"keep_ratio": ratio, "rounds": len(found["static"])}
        row |= {
            name: BATCH / statistics.median(found[name]) for name in ("static", "elastic", "fixed") if name in found
        }
        for name, base in (("elastic", "static"), ("fixed", "static"), ("changing", "in turn")):
            if name in found:
                row[f"{name}_over_static"] = _over(found[base], found[name])
        yield row


def _timed(
    stack: ExitStack,
    files: Sequence[Path],
    runtime: str,
    options: EngineOptions,
    budget: Callable[[float, int], Budget],
    elastic_first: bool,
) -> Iterator[tuple[tuple[float, str], RunTimes]]:
    """Yield the timings of one opening. The order of opening alternates, since the place of memory matters."""

    def opened(path: Path, how: EngineOptions = options) -> Engine:
        return stack.enter_context(open_engine(path, runtime, how))

    order = (files[-1], *files[:-1]) if elastic_first else files
    engines = {path: opened(path) for path in order}
    elastic = engines[files[-1]]
    assert elastic.info is not None
    side = elastic.info.image_size
    images = np.random.default_rng(0).standard_normal((BATCH, 3, side, side), dtype=np.float32)
    ways: dict[tuple[float, str], Run] = {}
    for ratio, path in zip(RATIOS, files, strict=False):
        own: dict[str, Run] = {
            "static": engines[path].run,
            "elastic": partial(elastic.run, keep=elastic.info.keep_of(ratio)),
        }
        ways |= {(ratio, "in turn"): own["static"], (ratio, "changing"): own["elastic"]}
        if runtime == "openvino":
            own["fixed"] = opened(files[-1], dataclasses.replace(options, fixed_keep=ratio)).run
        timings = interleaved(list(own.values()), images, budget(0.6 / len(RATIOS), len(own)))
        yield from zip(((ratio, name) for name in own), timings, strict=True)
    yield from zip(ways, interleaved(list(ways.values()), images, budget(0.4, len(ways))), strict=True)


def _budget(seconds: float, share: float, runs: int) -> Budget:
    """Return the budget of each of the `runs`, which together have a `share` of the seconds."""
    each = share * seconds / runs
    return Budget(each, ROUNDS // OPENINGS, precision=0.01, min_seconds=min(1.0, each))


def _over(static: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Return the throughput relative to the static file's, by rounds."""
    gained = median_interval([alone / ours for alone, ours in zip(static, other, strict=True)])
    return {"value": gained.value, "low": gained.low, "high": gained.high}


def _line(model: str, runtime: str, row: dict[str, Any]) -> str:
    ratios = [row.get(f"{name}_over_static") for name in ("elastic", "fixed", "changing")]
    said = [f"{ratio['value']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})" if ratio else "–" for ratio in ratios]
    cells = (model, runtime, row["keep_ratio"], f"{row['static']:.1f}", f"{row['elastic']:.1f}", *said)
    return f"| {' | '.join(map(str, cells))} |"


def _write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        draft.write_text(json.dumps(document, allow_nan=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
