"""Lanes: the stream, memory and launcher with which one caller computes on a GPU."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from evodeploy.engines.base import Array
from evodeploy.engines.tensorrt.cuda import Device
from evodeploy.engines.tensorrt.execution import Launcher, Shapes, Tensors
from evodeploy.specs import TensorSpec

CHUNK = 4 << 20  # bytes of images copied at a time to page-locked memory, and from there to the GPU


@dataclass(frozen=True)
class Buffer:
    """A tensor of the largest batch size, on the GPU and in page-locked host memory."""

    spec: TensorSpec
    host: Array
    device: Any

    def of(self, shape: tuple[int, ...]) -> Array:
        """Return the beginning of the host memory as an array of `shape`, packed as the GPU writes it."""
        count = math.prod(shape)
        return self.host.reshape(-1)[:count].reshape(shape)


# Takes the addresses of all tensors by name, the address of the working memory (0 if there is none) and the stream.
MakeLauncher = Callable[[dict[str, int], int, int], Launcher]


class Lane:
    """A stream, memory for the largest batch, and a launcher. It processes one batch at a time."""

    def __init__(self, device: Device, tensors: Tensors, largest: int, scratch: int, launcher: MakeLauncher) -> None:
        """Allocate all memory, `scratch` bytes of it as working memory.

        Raises OutOfMemoryError if there is not enough, and then keeps nothing.
        """
        self._device, self._driver = device, device.driver
        self.batch = 0
        self._keep: tuple[int, ...] = ()
        self._shapes: Shapes = {}
        with contextlib.ExitStack() as stack:
            self.stream = device.stream()
            stack.callback(self._drop_stream)
            self._input, *self._outputs = (
                self._buffer(stack, spec, largest, tensors.longest) for spec in (tensors.images, *tensors.outputs)
            )
            addresses = {buffer.spec.name: int(buffer.device) for buffer in (self._input, *self._outputs)}
            workspace = self._memory(stack, scratch) if scratch else 0
            self._launcher = launcher(addresses, int(workspace), self.stream.handle)
            stack.callback(self._launcher.close)
            stack.callback(self._finish)
            self._held = stack.pop_all()

    def load(self, images: Array, keep: tuple[int, ...] = ()) -> None:
        """Start copying a batch to the GPU, to be computed with `keep` tokens. `images` may change afterwards."""
        self.batch, self._keep = len(images), keep
        bytes_each = self._input.host[0].nbytes
        at_a_time = max(1, CHUNK // bytes_each)
        for first in range(0, self.batch, at_a_time):
            some = slice(first, min(first + at_a_time, self.batch))
            np.copyto(self._input.host[some], images[some])  # while the previous chunk is being transferred
            target = int(self._input.device) + first * bytes_each
            self._driver.memcpy_htod_async(target, self._input.host[some], self.stream)

    def launch(self) -> None:
        """Start computing the batch that was loaded last."""
        self._shapes = self._launcher.launch(self.batch, self._keep)

    def unload(self) -> None:
        """Start copying the outputs back."""
        for buffer in self._outputs:
            self._driver.memcpy_dtoh_async(self._computed(buffer), buffer.device, self.stream)

    def start(self, images: Array, keep: tuple[int, ...] = ()) -> None:
        """Start copying a batch to the GPU, computing it and copying the outputs back. `collect` waits for the end."""
        self.load(images, keep)
        self.launch()
        self.unload()

    def collect(self) -> dict[str, Array]:
        """Wait for everything that was started. Returns the outputs by name, as copies that the caller may keep."""
        self.stream.synchronize()
        return {buffer.spec.name: self._computed(buffer).copy() for buffer in self._outputs}

    def close(self) -> None:
        """Wait for the work in progress, and free everything."""
        self._held.close()

    def _computed(self, buffer: Buffer) -> Array:
        """Return the host memory that holds an output of the batch, or will hold it."""
        shape = self._shapes.get(buffer.spec.name)
        return buffer.host[: self.batch] if shape is None else buffer.of(shape)

    def _buffer(self, stack: contextlib.ExitStack, spec: TensorSpec, largest: int, longest: int) -> Buffer:
        shape = (largest, *(longest if size is None else size for size in spec.shape[1:]))
        host = self._device.page_locked(shape, spec.dtype)
        stack.callback(self._device.release, host.base)
        return Buffer(spec, host, self._memory(stack, host.nbytes))

    def _memory(self, stack: contextlib.ExitStack, size: int) -> Any:
        memory = self._device.memory(size)
        stack.callback(self._device.release, memory)
        return memory

    def _finish(self) -> None:
        try:
            self.stream.synchronize()
        except self._driver.Error:
            self._device.lost()  # a lost device has no work to wait for

    def _drop_stream(self) -> None:
        stream, self.stream = self.stream, None
        self._device.release(stream)
