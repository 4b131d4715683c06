"""The overhead of a service over its engine: `python benchmarks/serving.py [ARTEFACT] [--seconds N] [--no-ray]`.

Measures the engine alone; engine and decoding together without a service (the bound: `Predictor.stream` on the same
JPEG); then `evodeploy serve` in one process and on Ray, with requests over 16 connections by `evodeploy.load_test`,
once while a replica is killed. All run on the same cores, including the client. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import evodeploy
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.load_testing.pictures import noise
from evodeploy.machine.cores import usable_cores
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import named
from evodeploy.onnx_files import write_onnx
from evodeploy.preprocess import as_input, random_pictures
from evodeploy.specs import EngineOptions

MODEL, ENGINE, CONNECTIONS, BATCH = "evo_deit_small_patch16_224", "openvino", 16, 8


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("artefact", nargs="?", type=Path)
    arguments.add_argument("--seconds", type=float, default=15.0)
    arguments.add_argument("--no-ray", action="store_true")
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        artefact = asked.artefact or Path(folder, "m.onnx")
        if asked.artefact is None:
            write_onnx(onnx_from_model(random_model(named(MODEL))), artefact)
        bound = _together(artefact, asked.seconds)
        print("| | img/s | of the bound | p50 | p90 | p99 | answers |\n|---|---|---|---|---|---|---|")
        alone = _alone(artefact, asked.seconds)
        print(f"| the engine alone, batches of {BATCH} | {alone:.1f} | {alone / bound:.0%} | | | | |")
        print(f"| engine and decoding, batches of {BATCH}: the bound | {bound:.1f} | | | | | |", flush=True)
        for batch in (1, BATCH, 2 * BATCH):
            _row(artefact, f"one process, batches of {batch}", ["--max-batch", batch], False, asked.seconds, bound)
        if not asked.no_ray:
            options = ["--max-batch", BATCH, "--replicas", 2]
            for kill in (False, True):
                what = f"Ray, 2 replicas, batches of {BATCH}{', one killed' if kill else ''}"
                _row(artefact, what, options, kill, asked.seconds, bound)
        after = _together(artefact, asked.seconds)
        print(f"| the bound again | {after:.1f} | {after / bound:.0%} | | | | |")


def _alone(artefact: Path, seconds: float) -> float:
    with evodeploy.open_engine(artefact, ENGINE, EngineOptions(threads=usable_cores())) as engine:
        assert engine.info is not None
        images = as_input(random_pictures(engine.info, BATCH), engine.info)
        engine.run(images)
        began, runs = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            engine.run(images)
            runs += 1
        return BATCH * runs / (time.perf_counter() - began)


def _together(artefact: Path, seconds: float) -> float:
    with evodeploy.load(artefact, ENGINE, threads=usable_cores()) as predictor:
        predictor.predict([noise()] * BATCH)
        began, done = time.perf_counter(), 0
        for _ in predictor.stream(itertools.repeat(noise()), batch=BATCH):
            done += 1
            if time.perf_counter() - began > seconds:
                break
        return done / (time.perf_counter() - began)


def _row(artefact: Path, what: str, options: list[object], kill: bool, seconds: float, bound: float) -> None:
    port = 8017
    command = [sys.executable, "-m", "evodeploy", "serve", artefact, "--engine", ENGINE, "--port", port, *options]
    service = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert service.stdout is not None
    try:
        if not service.stdout.readline():
            sys.exit("the service does not start: try the same `evodeploy serve` by hand")
        if kill:
            threading.Timer(seconds / 3, _kill).start()
        url = f"http://127.0.0.1:{port}"
        (load,) = evodeploy.load_test(url, connections=CONNECTIONS, seconds=seconds).loads
    finally:
        service.send_signal(signal.SIGINT)
        service.wait()
    rate = len(load.answered) / load.seconds
    answers = ", ".join(f"{count} × {status}" for status, count in load.answers.items())
    times = " | ".join(f"{(load.quantile(share) or 0) * 1000:.0f} ms" for share in (0.5, 0.9, 0.99))
    print(f"| {what} | {rate:.1f} | {rate / bound:.0%} | {times} | {answers} |", flush=True)


def _kill() -> None:
    listing = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    os.kill(next(int(line.split()[0]) for line in listing.splitlines() if "ServeReplica:" in line), signal.SIGKILL)


if __name__ == "__main__":
    main()
