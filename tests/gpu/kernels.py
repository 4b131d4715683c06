"""The kernels of kernels.ptx on a real GPU, through the driver's library alone."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PTX = Path(__file__).with_name("kernels.ptx")
THREADS = 256  # of a block


class Kernels:
    """Made while the GPU's context is current; `cuda` is the driver's library."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._module = ctypes.c_void_p()
        status = cuda.cuModuleLoadData(ctypes.byref(self._module), PTX.read_bytes() + b"\0")
        if status:
            raise RuntimeError(f"the driver does not take {PTX.name}: error {status}")
        self._functions: dict[str, ctypes.c_void_p] = {}

    def launch(self, name: str, stream: int, threads: int, arguments: Sequence[Any]) -> int:
        """Put `name` into `stream`, one thread for each of `threads`; the driver's status."""
        blocks = -(-threads // THREADS)
        sizes = (blocks, 1, 1, min(threads, THREADS), 1, 1, 0)
        values = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))
        return int(
            self._cuda.cuLaunchKernel(
                self._function(name), *map(ctypes.c_uint, sizes), ctypes.c_void_p(stream), values, None
            )
        )

    def _function(self, name: str) -> ctypes.c_void_p:
        if name not in self._functions:
            found = ctypes.c_void_p()
            status = self._cuda.cuModuleGetFunction(ctypes.byref(found), self._module, name.encode())
            if status:
                raise RuntimeError(f"{PTX.name} has no {name}: error {status}")
            self._functions[name] = found
        return self._functions[name]
