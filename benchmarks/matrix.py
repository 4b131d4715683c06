"""Every published model through every step: `python benchmarks/matrix.py [MODEL …]`.

For each model, with random weights, in stage-wise and layer-wise mode: export with token outputs, ONNX Runtime against
PyTorch at batches 1, 3 and 8, OpenVINO against PyTorch, an FP16 engine by TensorRT for RTX. Prints a Markdown table.
The exit code is 1 if a step failed. Golden files are covered by the tests: `make test`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from evodeploy.builder.engine import build_engine
from evodeploy.builder.request import BuildRequest
from evodeploy.compare.export import clear_pictures, verify_export
from evodeploy.compare.parity import Check, compare
from evodeploy.engines.openvino_engine import OpenVinoEngine
from evodeploy.errors import EvodeployError
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.models.loaded import LoadedModel
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import ZOO, with_selection
from evodeploy.onnx_files import write_onnx
from evodeploy.preprocess import as_input

HEADINGS = ("model", "selection", "nodes", "ONNX Runtime", "OpenVINO", "FP16 engine", "seconds")


def main() -> None:
    """Run the matrix."""
    failed = False
    print("| " + " | ".join(HEADINGS) + " |\n|" + "---|" * len(HEADINGS), flush=True)
    for name in sys.argv[1:] or ZOO:
        for selection in ("stage", "layer"):
            start = time.perf_counter()
            model = random_model(with_selection(ZOO[name], selection=selection))
            cells, passed = steps(model)
            failed = failed or not passed
            row = (name, selection, *cells, f"{time.perf_counter() - start:.0f}")
            print("| " + " | ".join(row) + " |", flush=True)
    sys.exit(1 if failed else 0)


def steps(model: LoadedModel) -> tuple[list[str], bool]:
    """Return the cells of one row, and whether everything passed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        proto = onnx_from_model(model, tokens=True)
        write_onnx(proto, path)
        checks = list(verify_export(model, path))
        pictures, expected = clear_pictures(model, 3)
        with OpenVinoEngine(path) as openvino:
            others = list(compare(expected, openvino, as_input(pictures, model.info)))
        try:
            request = BuildRequest(path, path.with_suffix(".engine"), precision="fp16", runtime="tensorrt-rtx")
            record = build_engine(request)
            engine, built = f"{record.plan_bytes / 1e6:.1f} MB", True
        except EvodeployError as error:
            engine, built = str(error), False
    passed = built and all(check.passed for check in (*checks, *others))
    return [str(len(proto.graph.node)), summary(checks), summary(others), engine], passed


def summary(checks: list[Check]) -> str:
    """Return the number of passed checks, and the largest error of the logits."""
    error = max(check.error for check in checks if check.output == "logits")
    return f"{sum(check.passed for check in checks)}/{len(checks)} ({error:.0e})"


if __name__ == "__main__":
    main()
