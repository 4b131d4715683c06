"""TensorRT's lean runtime in our context refuses what is no plan, with its reason, and the process continues."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path

from cuda_shim.plans import write_exact, write_plan
from gpu.facts import NotRunError, need_gpu, need_pycuda, of_this_process

from evodeploy.engines.opener import open_engine
from evodeploy.errors import RuntimeFailedError
from evodeploy.machine.driver import architecture

CONTENTS = {"garbage": b"no plan at all " * 100, "zeros": bytes(4096), "head_of_a_plan": b"ftrt" + bytes(60)}


def version() -> str:
    """The lean runtime's; raises NotRunError."""
    need_gpu()
    need_pycuda()
    try:
        return str(importlib.import_module("tensorrt_lean").__version__)
    except Exception as error:  # bindings without their libraries raise OSError, ImportError or others
        raise NotRunError(str(error)) from error


def refusal(content: bytes, release: str, folder: Path) -> str:
    """What is said of a plan with that content."""
    onnx, path = write_exact(folder / "exact.onnx"), folder / "bad.engine"
    write_plan(
        path, onnx, content=content.decode(), runtime_version=release, version_compatible=True,
        architecture=architecture(),
    )  # fmt: skip
    try:
        open_engine(path, "tensorrt").close()
    except RuntimeFailedError as error:
        return str(error)
    raise AssertionError("it was opened")


def main() -> None:
    """Run all checks."""
    facts = of_this_process()
    release = ""
    with facts.check("the_lean_runtime_is_here") as found:
        found["version"] = release = version()
    for name, content in CONTENTS.items() if release else ():
        with facts.check(f"{name}_is_refused") as found, tempfile.TemporaryDirectory() as folder:
            found["message"] = refusal(content, release, Path(folder))
            assert "cannot load the plan" in found["message"], found["message"]
            assert "gave no reason" not in found["message"], found["message"]


if __name__ == "__main__":
    main()
