"""What a service makes of its engine under load: `python benchmarks/load_test.py [ARTEFACT] [--seconds N]`.

The engine alone (batch 8, as many threads as the service's), then `evodeploy serve` with batches of 1, 8 and 16, asked
by 16 connections, each waiting for its answer, with a JPEG of 500 by 375 pixels; once more while a replica is killed.
Client and service share the machine. Prints a Markdown table: every request is counted, by what it was answered.
"""

from __future__ import annotations

import argparse
import collections
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import numpy as np
from photographs import crops

from evodeploy.engines.opener import open_engine
from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.machine.cores import usable_cores
from evodeploy.models.checkpoint import random_model
from evodeploy.models.zoo import named
from evodeploy.onnx_files import write_onnx
from evodeploy.preprocess import as_input, random_pictures
from evodeploy.specs import EngineOptions

MODEL, ENGINE, CONNECTIONS, PORT = "evo_deit_small_patch16_224", "openvino", 16, 8017


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("artefact", nargs="?", type=Path)
    arguments.add_argument("--seconds", type=float, default=15.0)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        artefact = asked.artefact or Path(folder, "m.onnx")
        if asked.artefact is None:
            write_onnx(onnx_from_model(random_model(named(MODEL))), artefact)
        bare = _bare(artefact, asked.seconds)
        print("| | img/s | of the engine alone | p50 | p90 | p99 | answers |\n|---|---|---|---|---|---|---|")
        print(f"| the engine alone, batch 8 | {bare:.1f} | | | | | |", flush=True)
        for replicas, batch, kill in ((1, 1, False), (1, 8, False), (1, 16, False), (2, 8, False), (2, 8, True)):
            _row(artefact, replicas, batch, kill, asked.seconds, bare)


def _bare(artefact: Path, seconds: float) -> float:
    with open_engine(artefact, ENGINE, EngineOptions(threads=usable_cores())) as engine:
        assert engine.info is not None
        images = as_input(random_pictures(engine.info, 8), engine.info)
        engine.run(images)
        began, runs = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            engine.run(images)
            runs += 1
        return 8 * runs / (time.perf_counter() - began)


def _row(artefact: Path, replicas: int, batch: int, kill: bool, seconds: float, bare: float) -> None:
    command = [sys.executable, "-m", "evodeploy", "serve", artefact, "--engine", ENGINE, "--replicas", replicas]
    command += ["--max-batch", batch, "--port", PORT]
    service = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(service)
        taken, answers, lasted = _load(seconds, kill)
    finally:
        service.send_signal(signal.SIGINT)
        service.wait()
    rate = answers[200] / lasted
    told = ", ".join(f"{count} × {status}" for status, count in answers.most_common())
    p50, p90, p99 = (f"{value * 1000:.0f} ms" for value in np.quantile(taken, (0.5, 0.9, 0.99)))
    what = f"{replicas} replica{'s' if replicas > 1 else ''}, batches of {batch}{', one killed' if kill else ''}"
    print(f"| {what} | {rate:.1f} | {rate / bare:.0%} | {p50} | {p90} | {p99} | {told} |", flush=True)


def _load(seconds: float, kill: bool) -> tuple[list[float], collections.Counter[int | str], float]:
    file = io.BytesIO()
    crops(1, size=500)[0].crop((0, 0, 500, 375)).save(file, "JPEG", quality=90)
    taken: list[float] = []
    answers: collections.Counter[int | str] = collections.Counter()
    began = time.perf_counter()

    def ask() -> None:
        with httpx.Client(timeout=120) as client:
            while time.perf_counter() - began < seconds:
                start = time.perf_counter()
                try:
                    status: int | str = client.post(_address("/v1/predict"), content=file.getvalue()).status_code
                except httpx.HTTPError as error:
                    status = type(error).__name__
                taken.append(time.perf_counter() - start)
                answers[status] += 1

    threads = [threading.Thread(target=ask) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    if kill:
        time.sleep(seconds / 3)
        told = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
        os.kill(next(int(line.split()[0]) for line in told.splitlines() if "ServeReplica:" in line), signal.SIGKILL)
    for thread in threads:
        thread.join()
    return taken, answers, time.perf_counter() - began


def _wait(service: subprocess.Popen[bytes]) -> None:
    while service.poll() is None:
        try:
            if httpx.get(_address("/v2/health/ready")).status_code == 200:
                httpx.get(_address("/v2/models/x"))
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    sys.exit("the service does not start: try the same `evodeploy serve` by hand")


def _address(path: str) -> str:
    return f"http://127.0.0.1:{PORT}{path}"


if __name__ == "__main__":
    main()
