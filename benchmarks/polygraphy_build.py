"""Our engine compared with Polygraphy's: `pip install polygraphy; python benchmarks/polygraphy_build.py [MODEL]`.

Both build the same FP16 ONNX file with TensorRT for RTX, for SM89, with one profile of 1 to 64 images, in separate
processes, in turn. Prints a Markdown table: the time of a build, the size of its plan and the kernels that the GPU
would run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.graph.precision import reduced_from_onnx
from evodeploy.inspection.program import read_program
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import named
from evodeploy.onnx_files import write_onnx

ROUNDS = 5


def main() -> None:
    """Print the table."""
    model = random_model(named(sys.argv[1] if len(sys.argv) > 1 else "evo_deit_small_patch16_224"))
    side = model.config.image_size
    shapes = {kind: f"images:[{batch},3,{side},{side}]" for kind, batch in (("min", 1), ("opt", 32), ("max", 64))}
    polygraphy = next(
        (path for folder in (sysconfig.get_path("scripts"), *os.get_exec_path())
         if (path := Path(folder, "polygraphy")).exists()), None,
    )  # fmt: skip
    if polygraphy is None:
        sys.exit("polygraphy is not installed: pip install polygraphy")
    commands = {
        "evodeploy": [
            "-m", "evodeploy", "build-engine", "m.onnx", "-o", "evodeploy.engine", "--runtime", "tensorrt-rtx",
            "--target", "sm89", "--max-batch", "64", "--force",
        ],
        "Polygraphy": [
            str(polygraphy), "convert", "m.onnx", "--convert-to", "trt", "-o", "Polygraphy.engine", "--strongly-typed",
            "--compute-capabilities", "8.9", *(part for kind, shape in shapes.items()
            for part in (f"--trt-{kind}-shapes", shape)),
        ],
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    environment = {**os.environ, "POLYGRAPHY_USE_TENSORRT_RTX": "1"}
    with tempfile.TemporaryDirectory() as folder:
        write_onnx(reduced_from_onnx(onnx_from_model(model), "fp16").model, Path(folder, "m.onnx"))
        for _ in range(ROUNDS):
            for name, command in commands.items():
                began = time.perf_counter()
                subprocess.run([sys.executable, *command], cwd=folder, env=environment, check=True, capture_output=True)
                seconds[name].append(time.perf_counter() - began)
        print("| tool | seconds, median of 5 | plan | kernels |\n|---|---|---|---|")
        for name in commands:
            plan = Path(folder, f"{name}.engine")
            program = read_program(plan)
            kernels = "?" if program is None else f"{program.total}, {program.attentions} fused attentions"
            took, size = statistics.median(seconds[name]), plan.stat().st_size / 1e6
            print(f"| {name} | {took:.1f} | {size:.1f} MB | {kernels} |")


if __name__ == "__main__":
    main()
