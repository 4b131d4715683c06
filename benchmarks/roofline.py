"""Upper bounds on the speed of a model and its dense twin on six cards: `python benchmarks/roofline.py [MODEL]`.

Both are built as FP16 engines of TensorRT for RTX; no GPU is needed. Prints the Markdown tables of
docs/howto/choose-a-gpu.md. TensorRT for RTX builds nothing for the H100, which is shown with the same kernels.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from evodeploy.builder.engine import build_engine
from evodeploy.builder.request import BuildRequest
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.inspection.roofline.bound import Bound, bound
from evodeploy.inspection.roofline.cards import CARDS, Card
from evodeploy.inspection.roofline.plan import PlanWork, plan_work
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import ModelConfig, dense_twin, named
from evodeploy.onnx_files import write_onnx

SIX = ("l4", "a10", "a100", "l40s", "4090", "h100")
BATCHES = (1, 8, 64, 256)
COMPARED = (1, 256)


def work_of(config: ModelConfig, folder: Path) -> PlanWork:
    """Return the work of an FP16 engine of `config`, with random weights, for batches of 1 to 256."""
    onnx = folder / "model.onnx"
    write_onnx(onnx_from_model(random_model(config)), onnx)
    plan = folder / f"{len(list(folder.iterdir()))}.engine"
    request = BuildRequest(onnx, plan, "fp16", ((1, 32, 256),), "tensorrt-rtx", ("sm80", "sm86", "sm89"))
    build_engine(request)
    return plan_work(plan, BATCHES)


def tables(evo: PlanWork, dense: PlanWork) -> Iterator[str]:
    """Yield both tables, line by line."""
    yield "| img/s | " + " | ".join(f"batch {batch}" for batch in BATCHES) + " | launching, batch 1 |"
    yield "|---" * (len(BATCHES) + 2) + "|"
    for card in map(CARDS.__getitem__, SIX):
        found = [each[0] for each in _bounds(card, evo, evo)]
        launching = f"{found[0].launching * 1e3:.2f} ms, {found[0].launching / found[0].least:.1f} times the bound"
        yield f"| {card.title} | " + " | ".join(map(_both, found)) + f" | {launching} |"
    yield ""
    parts = [f"{what}, batch {batch}" for batch in COMPARED for what in ("Evo", "dense", "Evo / dense")]
    yield "| img/s | " + " | ".join(parts) + " |"
    yield "|---" * (len(parts) + 1) + "|"
    for card in map(CARDS.__getitem__, SIX):
        pairs = [pair for pair in _bounds(card, evo, dense) if pair[0].batch in COMPARED]
        yield f"| {card.title} | " + " | ".join(_compared(*pair) for pair in pairs) + " |"


def _bounds(card: Card, *works: PlanWork) -> list[tuple[Bound, ...]]:
    each = [[bound(network, card, tf32=True) for network in work.networks] for work in works]
    return list(zip(*each, strict=True))


def _both(found: Bound) -> str:
    return f"{found.batch / found.least:,.0f} / {found.batch / found.uncached:,.0f}"


def _compared(evo: Bound, dense: Bound) -> str:
    gain = f"{dense.least / evo.least:.2f} / {dense.uncached / evo.uncached:.2f}"
    return f"{_both(evo)} | {_both(dense)} | {gain}"


if __name__ == "__main__":
    config = named(sys.argv[1] if len(sys.argv) > 1 else "evo_deit_small_patch16_224")
    with tempfile.TemporaryDirectory() as folder:
        model, twin = (work_of(each, Path(folder)) for each in (config, dense_twin(config)))
        for work, name in ((model, config.name), (twin, "its dense twin")):
            largest = work.networks[-1]
            operations = sum(kernel.operations for kernel in largest.kernels) / largest.batch / 1e9
            moved = sum(kernel.moved for kernel in largest.kernels) / largest.batch / 1e6
            print(
                f"{name}: {work.record.runtime} {work.record.runtime_version}, {len(largest.kernels)} kernels, "
                f"{operations:.2f} GFLOP and {moved:.1f} MB an image at batch {largest.batch}, "
                f"weights {work.weights / 1e6:.1f} MB"
            )
        print("", *tables(model, twin), sep="\n")
