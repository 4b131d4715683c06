"""What on_driver.py does on a real driver, on the shim: its kernels are played by the host, in the stream's order.

So it is tried, without a GPU, how the driver's library is replaced and what kernels are launched with; not the PTX.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from gpu import on_driver

FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

shim = ctypes.CDLL("libcuda.so.1")
shim.shim_translate.restype = ctypes.c_void_p
shim.shim_translate.argtypes = (ctypes.c_size_t, ctypes.c_size_t)
shim.cuLaunchHostFunc.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
kept: list[Any] = []  # functions that a stream or a graph may still call


class PlayedDriver(on_driver.Driver):
    """The shim, with the calls that load and launch kernels."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._names = [""]  # by the number of a function

    def cuModuleLoadData(self, module: Any, text: bytes) -> int:  # noqa: N802
        """The driver's: the text must end as C's do."""
        return 0 if text.endswith(b"\0") else 1

    def cuModuleGetFunction(self, function: Any, module: Any, name: bytes) -> int:  # noqa: N802
        """The driver's."""
        self._names.append(name.decode())
        function._obj.value = len(self._names) - 1
        return 0

    def cuLaunchKernel(self, function: Any, *arguments: Any) -> int:  # noqa: N802
        """The driver's."""
        (blocks, _, _, threads, _, _, _, stream, values, _) = arguments
        kinds = (ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32)
        source, target, count, pixels = (
            kind.from_address(place).value for kind, place in zip(kinds, values, strict=True)
        )
        if blocks.value * threads.value < count:
            return 1
        name = self._names[function.value]
        played = FUNCTION(lambda _: KERNELS[name](source, target, count, pixels))
        kept.append(played)
        return int(shim.cuLaunchHostFunc(stream, ctypes.cast(played, ctypes.c_void_p), None))


def memory(address: int, dtype: Any, count: int) -> Any:
    """That much of the device's memory; the shim reports what is not there."""
    size = count * np.dtype(dtype).itemsize
    where = shim.shim_translate(address, size)
    return np.frombuffer((ctypes.c_char * size).from_address(where), dtype)


def logits(source: int, target: int, count: int, pixels: int) -> None:
    """As in kernels.ptx."""
    memory(target, np.float32, count)[:] = memory(source, np.float32, count) * np.float32(2) + np.float32(1)


def scaled(source: int, target: int, count: int, pixels: int) -> None:
    """As in kernels.ptx."""
    memory(target, np.float16, count)[:] = memory(source, np.float16, count) * np.float16(2)


def best(source: int, target: int, count: int, pixels: int) -> None:
    """As in kernels.ptx, with its arithmetic."""
    images, channels = memory(source, np.float16, 3 * count), memory(target, np.int64, count)
    for i in range(count):
        first = i + 2 * (i // pixels) * pixels
        channels[i] = images[first : first + 2 * pixels + 1 : pixels].argmax()


KERNELS = {"logits": logits, "scaled": scaled, "best": best}

if __name__ == "__main__":
    on_driver.Driver = PlayedDriver  # type: ignore[misc]
    on_driver.is_shim = lambda: False
    on_driver.main()
