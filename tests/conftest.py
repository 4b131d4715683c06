from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import SMALL

from evodeploy.locks import locked
from evodeploy.models.layouts import to_published
from evodeploy.models.random_weights import random_model
from evodeploy.models.saving import save_checkpoint

torch.set_num_threads(1)  # networks this small only wait for their threads


@pytest.fixture(scope="session")
def small():
    """A loaded model small enough to export in seconds, both stages selecting 32 of 64 tokens."""
    return random_model(SMALL, seed=3)


@pytest.fixture(scope="session")
def small_state(small):
    return to_published(SMALL, small.module.state_dict())


@pytest.fixture(scope="session")
def small_checkpoint(small, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.pth"
    save_checkpoint(small, path)
    return path


@pytest.fixture(scope="session")
def small_onnx(small_checkpoint, tmp_path_factory) -> Path:
    """The small model exported with its selections as outputs."""
    return exported(small_checkpoint, tmp_path_factory.mktemp("onnx") / "small.onnx")


@pytest.fixture(scope="session")
def small_elastic(small_checkpoint, tmp_path_factory) -> Path:
    """The same as an elastic artefact, from a tenth of the tokens to all."""
    return exported(small_checkpoint, tmp_path_factory.mktemp("elastic") / "elastic.onnx", (0.1, 1.0))


@pytest.fixture(scope="session")
def digits_onnx(tmp_path_factory) -> Path:
    """The network of the sample, which reads digits."""
    sample = Path(__file__).parents[1] / "sample"
    return exported(sample / "digits.pth", tmp_path_factory.mktemp("digits") / "digits.onnx")


def exported(checkpoint, path, elastic=None):
    from evodeploy.exporter.to_onnx import onnx_from_model
    from evodeploy.models.checkpoint import load_checkpoint
    from evodeploy.models.loaded import with_elastic
    from evodeploy.onnx_files import write_onnx

    model = load_checkpoint(checkpoint)
    write_onnx(onnx_from_model(with_elastic(model, elastic) if elastic else model, tokens=True), path)
    return path


@pytest.fixture
def small_images() -> np.ndarray:
    return np.random.default_rng(5).standard_normal((3, 3, 64, 64), dtype=np.float32)


@pytest.fixture
def logged(caplog):
    """The lines that evodeploy logs during the test, at INFO or above unless the test sets another level."""
    caplog.set_level(logging.INFO, "evodeploy")
    return Lines(caplog)


class Lines(Sequence[str]):
    """The messages that caplog holds by now."""

    def __init__(self, caplog):
        self._caplog = caplog

    def __getitem__(self, index):
        return self._caplog.messages[index]

    def __len__(self):
        return len(self._caplog.messages)


@pytest.fixture
def cli(capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""
    from evodeploy.cli import app

    def run(*args: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            app([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


@pytest.fixture(scope="session")
def libraries(pytestconfig, tmp_path_factory):
    """The folders of pycuda and of the shim's libcuda.so.1; pycuda is compiled once for this checkout."""
    if shutil.which("g++") is None:
        pytest.skip("pycuda comes as source, and here is no g++ to compile it")
    from cuda_shim.build import build_pycuda, build_shim

    kept = pytestconfig.cache.mkdir("cuda-shim")
    with locked(kept / "lock", wait=True):  # tests run in two processes
        pycuda = build_pycuda(kept)
    folder = tmp_path_factory.mktemp("shim")
    build_shim(pycuda, folder)
    return pycuda, folder


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("here is no Chromium: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def unreadable(monkeypatch):
    """Make a folder one that cannot be listed, also for root."""
    listed = os.scandir

    def make(folder: Path) -> None:
        def scandir(path: str = "."):
            if os.path.realpath(path) == os.path.realpath(folder):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
            return listed(path)

        monkeypatch.setattr(os, "scandir", scandir)

    return make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Let one of two processes send the other what a test logged, also names that are not UTF-8."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report
