"""The overhead of this project's Python over the runtime's own call: `python benchmarks/python_layer.py [MODEL]`.

At batch 8, in turn: ONNX Runtime's `InferenceSession.run` and OpenVINO's `InferRequest.infer`, each compared with the
engine with the same file and settings, whose `run` also checks its input and names its outputs. Prints a Markdown
table.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
from in_turn import interleaved

from evodeploy.benchmark.measure.interleaved import Budget
from evodeploy.benchmark.measure.intervals import median_interval
from evodeploy.engines.opener import open_engine
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.machine.cores import usable_cores
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import named
from evodeploy.onnx_files import write_onnx
from evodeploy.specs import EngineOptions

BATCH = 8


def main() -> None:
    """Print the table."""
    model = random_model(named(sys.argv[1] if len(sys.argv) > 1 else "evo_deit_small_patch16_224"))
    side, threads = model.config.image_size, usable_cores()
    images = np.random.default_rng(0).standard_normal((BATCH, 3, side, side), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.onnx")
        write_onnx(onnx_from_model(model), path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        properties = {
            "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads,
        }  # fmt: skip
        request = openvino.Core().compile_model(path, "CPU", properties).create_infer_request()
        bare = {
            "onnxruntime": lambda images: session.run(None, {"images": images}),
            "openvino": lambda images: request.infer([images], share_inputs=True, share_outputs=True),
        }
        ours = {name: open_engine(path, name, EngineOptions(threads)).run for name in bare}
        timings = interleaved([*bare.values(), *ours.values()], images, Budget(seconds=20, rounds=40, precision=0))
    print("| runtime | its own call | evodeploy | ratio, 95 % interval |")
    print("|---|---|---|---|")
    for name, alone, engine in zip(bare, timings[:2], timings[2:], strict=True):
        pairs = zip(engine.samples, alone.samples, strict=True)
        ratio = median_interval([mine / theirs for mine, theirs in pairs])
        times = f"{alone.median * 1e3:.1f} ms | {engine.median * 1e3:.1f} ms"
        print(f"| {name} | {times} | {ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f}) |")


if __name__ == "__main__":
    main()
