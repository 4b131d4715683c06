"""Serve many threads with one engine: `python threads.py ckpt.onnx cat.jpg dog.jpg …`."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import evodeploy

with evodeploy.load(sys.argv[1], max_batch=16, max_wait=0.005) as predictor:

    def handle(path: str) -> str:
        """Handle one request: its thread waits, and the engine runs waiting requests together."""
        prediction = predictor.submit(Path(path).read_bytes()).result()
        return f"{prediction.label.name}  (one of {prediction.timing.batch})"

    with ThreadPoolExecutor(32) as callers:
        for path, answer in zip(sys.argv[2:], callers.map(handle, sys.argv[2:]), strict=True):
            print(path, answer)
