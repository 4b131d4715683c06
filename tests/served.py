"""What the tests of serving share: an engine in this process behind the service's endpoints."""

from __future__ import annotations

import asyncio
import collections
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import tritonclient.http
from prometheus_client.parser import text_string_to_metric_families

from evodeploy.engines.base import run_all
from evodeploy.serving.backend import Answer

PICTURE = Path(__file__).parents[1] / "sample" / "images" / "digit-7-0.png"
NAME = "evo_deit_test"  # of the models of `small_onnx`


class Direct:
    """Computes in this process, without batching; waits at `gate` before each run."""

    def __init__(self, engine):
        self._engine = engine
        self.info, self.inputs, self.outputs, self.engine = engine.info, engine.inputs, engine.outputs, engine.name
        self.budget = None
        self.arrived = 0
        self.gate = threading.Event()
        self.gate.set()

    def check(self, images, asked):
        for ratio in (asked.keep_ratio, asked.least_keep_ratio):
            if ratio is not None:
                self.info.keep_of(ratio)

    async def run(self, images, asked):
        self.check(len(images), asked)
        self.arrived += 1
        while not self.gate.is_set():
            await asyncio.sleep(0.01)
        keep = None if asked.keep_ratio is None else self.info.keep_of(asked.keep_ratio)
        return Answer(
            await asyncio.to_thread(run_all, self._engine, images, 32, keep), self.info.ratios_of(asked.keep_ratio)
        )


class Load:
    """Threads that ask on and on, and what they were answered."""

    def __init__(self, url, threads=8):
        self.answers = collections.Counter()
        self._stop, data = threading.Event(), PICTURE.read_bytes()

        def ask():
            with httpx.Client(timeout=60) as client:
                while not self._stop.is_set():
                    try:
                        status = client.post(f"{url}/v1/predict", content=data).status_code
                    except httpx.HTTPError as error:
                        status = type(error).__name__
                    self.answers[status] += 1

        self._threads = [threading.Thread(target=ask) for _ in range(threads)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def started(*arguments, cwd=None, **changes):
    """The process of the command, in a group of its own; pipes hold what it says."""
    return subprocess.Popen(
        [sys.executable, "-m", "evodeploy", *map(str, arguments)],
        env={**os.environ, **changes},
        cwd=cwd,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )


def logits(address, images):
    """What the service at `address` answers to a client of Triton."""
    with tritonclient.http.InferenceServerClient(address) as triton:
        given = tritonclient.http.InferInput("images", images.shape, "FP32")
        given.set_data_from_numpy(images)
        return triton.infer(NAME, [given]).as_numpy("logits")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition):
    while not condition():
        time.sleep(0.005)


def value(client, name, **labels):
    """What the service's metrics say."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    pytest.fail(f"no {name} {labels} in {answer.text}")
