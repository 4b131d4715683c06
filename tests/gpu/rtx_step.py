"""TensorRT for RTX on a GPU that it has no name for: it builds for sm80; what its runtime says of that is kept."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from gpu.facts import NotRunError, need_gpu, need_pycuda, of_this_process

from evodeploy.machine.driver import architecture

SAMPLE = Path(__file__).parents[2] / "sample"


def rtx() -> Any:
    """The module; raises NotRunError."""
    need_gpu()
    try:
        return importlib.import_module("tensorrt_rtx")
    except Exception as error:  # bindings without their libraries raise OSError, ImportError or others
        raise NotRunError(str(error)) from error


def built(folder: Path) -> Path:
    """An engine of the sample for sm80."""
    from evodeploy.builder.engine import build_engine
    from evodeploy.builder.request import BuildRequest
    from evodeploy.exporter.pipeline import export

    onnx, plan = folder / "digits.onnx", folder / "digits.engine"
    checkpoint = Path(shutil.copy(SAMPLE / "digits.pth", folder))
    export(checkpoint, onnx)
    build_engine(BuildRequest(onnx, plan, "fp16", ((1, 4, 8),), "tensorrt-rtx", ("sm80",)))
    return plan


def refusal(plan: Path) -> str:
    """What evodeploy says of `plan` on a GPU that it was not built for; nothing on sm80."""
    from evodeploy.engines.opener import open_engine
    from evodeploy.errors import UnavailableError

    need_pycuda()
    try:
        open_engine(plan).close()
    except UnavailableError as error:
        assert "was built for sm80" in str(error), error
        return str(error)
    assert architecture() == "sm80"
    return ""


def main() -> None:
    """Run all checks."""
    facts, trt = of_this_process(), None
    with facts.check("tensorrt_for_rtx_is_here") as found:
        trt = rtx()
        found["version"] = trt.__version__
    if trt is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        plan: list[Path] = []
        with facts.check("an_engine_for_sm80_is_built"):
            plan.append(built(Path(folder)))
        if not plan:
            return
        with facts.check("evodeploy_refuses_it_elsewhere") as found:
            found["message"] = refusal(plan[0])
        with facts.check("what_its_runtime_says") as found:
            from evodeploy.engines.tensorrt.flavour import Flavour
            from evodeploy.engines.tensorrt.log import shared_logger

            lines: list[str] = []
            logger, relay = shared_logger(Flavour("tensorrt-rtx", trt))
            with relay.to(lambda severity, message: lines.append(f"{severity}: {message}")):
                engine = trt.Runtime(logger).deserialize_cuda_engine(plan[0].read_bytes())
            found |= {"opened": engine is not None, "log": lines[-20:]}


if __name__ == "__main__":
    main()
