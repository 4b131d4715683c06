"""A case of tests/cuda_shim/cases.py or of driver_cases.py, in this process: `python on_driver.py CASE PLAN ONNX`.

On the shim a case is what it is there. On a real driver the fake TensorRT launches kernels of its own on the lane's
stream and addresses, and what only the shim can count, such as live objects, equals whatever is expected: the memory
that is in use is measured by cases of its own.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
from typing import Any
from unittest import mock

LIBRARY = ctypes.CDLL  # which is replaced while the fake is imported
VERSIONS = {"tensorrt": "10.13.0.35", "tensorrt_rtx": "1.7.1.116"}


class Uncounted:
    """A number that nobody knows: true, whatever it is compared with."""

    def _true(self, other: object) -> bool:
        return True

    __eq__ = __ge__ = __gt__ = __le__ = __lt__ = _true
    __hash__ = None  # type: ignore[assignment]


class Driver:
    """The real driver's library, and those functions of the shim that mean something there."""

    def __init__(self, name: str) -> None:
        self._library = LIBRARY(name)
        self.misuse: list[str] = []
        self.kernels: Any = None
        self._played = {
            "shim_live": _Function(lambda kind: Uncounted()),
            "shim_bytes": _Function(Uncounted),
            "shim_report": _Function(lambda line: self.misuse.append(line.decode())),
            "shim_holds": _Function(lambda kind, address, size: kind != 0),  # nobody knows: as it should be
            "shim_translate": _Function(lambda address, size: None),
        }

    def __getattr__(self, name: str) -> Any:
        if name.startswith("shim_"):
            return self._played.setdefault(name, _Function(_only_played))
        return getattr(self._library, name)


class _Function:
    """A function that takes ctypes' attributes."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


def _only_played(*arguments: Any) -> None:
    raise AssertionError("only the shim can do this: leave the case out on a real driver")


def is_shim() -> bool:
    """Whether libcuda.so.1 is tests/cuda_shim's."""
    return hasattr(ctypes.CDLL("libcuda.so.1"), "shim_live")


def play_on_driver() -> None:
    """Import the fake TensorRT so that it computes on a real GPU."""
    import numpy  # noqa: F401  (before the driver's library is replaced: these load libraries too)
    import onnxruntime  # noqa: F401

    with mock.patch("ctypes.CDLL", Driver):
        import fake_tensorrt
    from gpu.kernels import Kernels

    class Context(fake_tensorrt.ExecutionContext):  # type: ignore[misc]
        """Launches, for each output, the kernel of its name."""

        wrong_address = False
        wait_ns = 0  # where it is not 0, a launch only waits so long

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            if fake_tensorrt.cuda.kernels is None:
                fake_tensorrt.cuda.kernels = Kernels(fake_tensorrt.cuda)

        def _start(self, stream: int) -> bool:
            kernels = fake_tensorrt.cuda.kernels
            if Context.wait_ns:
                return bool(kernels.launch("wait", stream, 1, [ctypes.c_uint64(Context.wait_ns)]) == 0)
            (batch, channels, *rest) = self.shape
            pixels = rest[0] * rest[1]
            session = self.engine.session
            source = 16 if Context.wrong_address else self.addresses[session.get_inputs()[0].name]
            statuses = []
            for spec in session.get_outputs():
                count = batch * pixels * (1 if spec.name == "best" else channels)
                arguments = [ctypes.c_uint64(source), ctypes.c_uint64(self.addresses[spec.name]),
                             ctypes.c_uint32(count), ctypes.c_uint32(pixels)]  # fmt: skip
                statuses.append(kernels.launch(spec.name, stream, count, arguments))
            return not any(statuses) or self._fails(f"Error Code 1: Cuda Driver (a launch returned {statuses})")

    fake_tensorrt.ExecutionContext = Context
    atexit.register(_report_misuse, fake_tensorrt.cuda.misuse)


def _report_misuse(misuse: list[str]) -> None:
    for line in misuse:
        print(f"misuse: {line}", flush=True)
    if misuse:
        os._exit(9)


def main() -> None:
    """Run the case that the command line names."""
    real = not is_shim()
    if real:
        play_on_driver()
    import fake_tensorrt

    name = "tensorrt_rtx" if sys.argv[1].startswith("rtx") else "tensorrt"
    sys.modules[name] = fake_tensorrt.as_module(name, VERSIONS[name])
    from cuda_shim import cases
    from gpu import driver_cases

    case = getattr(driver_cases, sys.argv[1], None) or getattr(cases, sys.argv[1])
    case()


if __name__ == "__main__":
    main()
