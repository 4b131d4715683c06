"""What INT8 gains, and what it and FP8 cost: `python benchmarks/quantized.py [--seconds N] [--threads N]`.

Speed: Evo-DeiT-S with random weights at batch 8, PyTorch eager in FP32 and ONNX Runtime and OpenVINO in FP32 and
INT8, interleaved; ratios of medians with 95 % intervals. Cost: the sample, calibrated on training pictures as
`evodeploy export --int8` does, on all its held-out pictures, against PyTorch in FP32. Prints two Markdown tables.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

import numpy as np
from in_turn import interleaved

from evodeploy.benchmark.measure.interleaved import Budget
from evodeploy.benchmark.measure.intervals import ratio_of_medians
from evodeploy.compare.agreement import agreement
from evodeploy.compare.tolerance import TOLERANCES
from evodeploy.engines.base import run_all
from evodeploy.engines.opener import open_engine
from evodeploy.engines.torch_network import torch_engine
from evodeploy.exporter.pipeline import export
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.graph.quantization import quantized_from_onnx
from evodeploy.machine.cores import usable_cores
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import named
from evodeploy.onnx_files import write_onnx
from evodeploy.preprocess import as_input, random_pictures
from evodeploy.specs import EngineOptions, Quantized

SAMPLE = Path(__file__).parents[1] / "sample"
MODEL = "evo_deit_small_patch16_224"
BATCH = 8
RUNTIMES = ("onnxruntime", "openvino")
KINDS: tuple[Quantized | None, ...] = (None, "int8", "fp8")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="What INT8 gains and what it costs.")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each candidate")
    parser.add_argument("--threads", type=int, default=usable_cores())
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(speed(Path(folder), args.seconds, args.threads))
        print()
        print(cost(Path(folder)))


def speed(folder: Path, seconds: float, threads: int) -> str:
    """How many times as fast as PyTorch eager each runtime is in each precision."""
    model = random_model(named(MODEL))
    proto = onnx_from_model(model)
    calibration = as_input(random_pictures(model.info, 16), model.info)
    protos = {"FP32": proto, "INT8": quantized_from_onnx(proto, calibration).model}
    images = as_input(random_pictures(model.info, BATCH, seed=1), model.info)
    options = EngineOptions(threads=threads)
    rows, engines = [("PyTorch eager", "FP32", "–")], [torch_engine(model, options=options)]
    for kind, each in protos.items():
        path = folder / f"{kind}.onnx"
        write_onnx(each, path)
        rows += [(runtime, kind, f"{path.stat().st_size / 1e6:.0f} MB") for runtime in RUNTIMES]
        engines += [open_engine(path, runtime, options) for runtime in RUNTIMES]
    with contextlib.ExitStack() as stack:
        for engine in engines:
            stack.enter_context(engine)
        timings = interleaved([engine.run for engine in engines], images, Budget(seconds, rounds=20, precision=0.01))
    lines = [
        f"Evo-DeiT-S, random weights, batch {BATCH}, {threads} threads, {len(timings[0].samples)} rounds",
        "",
        "| engine | precision | file | img/s | PyTorch eager = 1 |",
        "|---|---|---|---|---|",
    ]
    for row, timing in zip(rows, timings, strict=True):
        ratio = ratio_of_medians(timings[0].samples, timing.samples)
        times = f"{ratio.value:.2f} ({ratio.low:.2f}–{ratio.high:.2f})" if timing is not timings[0] else "1"
        lines.append(f"| {' | '.join(row)} | {BATCH / timing.median:.1f} | {times} |")
    return "\n".join(lines)


def cost(folder: Path) -> str:
    """Accuracy, top-1 and tokens of the sample exported in 8 bits, compared with FP32."""
    sys.path.insert(0, str(SAMPLE))
    from digits import split, write_training

    write_training(folder / "training")
    held = split()[1]
    images, labels = held.images.numpy(), held.labels.numpy()
    with open_engine(SAMPLE / "digits.pth", tokens=True) as torch:
        expected = run_all(torch, images)
    lines = [
        f"The sample, {len(images)} held-out digits",
        "",
        "| engine | precision | file | accuracy | same top-1 | cosine, worst and median | tokens agreeing | errors |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        path = folder / f"sample-{kind}.onnx"
        calibration = folder / "training" if kind else None
        export(SAMPLE / "digits.pth", path, tokens=True, precision=kind or "fp32", images=calibration)
        for runtime in RUNTIMES:
            with open_engine(path, runtime) as engine:
                assert engine.info is not None
                got = run_all(engine, images)
                grid = engine.info.image_size // engine.info.patch_size
            verdict = agreement(expected, got, TOLERANCES[kind or "fp32"], grid)
            logits = verdict.logits
            cells = (
                runtime,
                (kind or "fp32").upper(),
                f"{path.stat().st_size / 1e6:.2f} MB",
                f"{np.mean(got['logits'].argmax(axis=1) == labels):.2%}",
                f"{logits.top1:.2%}",
                f"{logits.min_cosine:.5f} {logits.median_cosine:.5f}",
                " ".join(f"{each.agreement:.2%}" for each in verdict.selections),
                str(sum(each.errors for each in verdict.selections)),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
