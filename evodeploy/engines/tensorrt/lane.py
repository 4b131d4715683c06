"""What one caller computes with on a GPU."""

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

CHUNK = 4 << 20  # bytes of images that are copied to page-locked memory, and from there to the GPU, at a time


@dataclass(frozen=True)
class Buffer:
    """A tensor of the largest batch, on the GPU and in page-locked memory of the host."""

    spec: TensorSpec
    host: Array
    device: Any

    def of(self, shape: tuple[int, ...]) -> Array:
        """Return the beginning of the host's memory as an array of `shape`, as densely as the GPU writes it."""
        count = math.prod(shape)
        return self.host.reshape(-1)[:count].reshape(shape)


# Given the addresses of all tensors by name, that of the memory to compute in (0 where there is none) and the stream.
MakeLauncher = Callable[[dict[str, int], int, int], Launcher]


class Lane:
    """A stream, memory for the largest batch, and a launcher: one batch at a time goes in, is computed, comes out."""

    def __init__(self, device: Device, tensors: Tensors, largest: int, scratch: int, launcher: MakeLauncher) -> None:
        """All memory is taken here, `scratch` bytes of it for the computing.

        Raises OutOfMemoryError where there is not enough, with nothing kept.
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
        """Start copying a batch to the GPU, to be computed with `keep` tokens; `images` may change afterwards."""
        self.batch, self._keep = len(images), keep
        bytes_each = self._input.host[0].nbytes
        at_a_time = max(1, CHUNK // bytes_each)
        for first in range(0, self.batch, at_a_time):
            some = slice(first, min(first + at_a_time, self.batch))
            np.copyto(self._input.host[some], images[some])  # while the chunk before is on its way
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
        """Start the whole way of a batch, to the GPU and back; `collect` waits for its end."""
        self.load(images, keep)
        self.launch()
        self.unload()

    def collect(self) -> dict[str, Array]:
        """Wait for all that was started; the outputs by name, the caller's to keep."""
        self.stream.synchronize()
        return {buffer.spec.name: self._computed(buffer).copy() for buffer in self._outputs}

    def close(self) -> None:
        """Wait for what is under way, and free everything."""
        self._held.close()

    def _computed(self, buffer: Buffer) -> Array:
        """Where the host has an output of the batch, or will have it."""
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
            self._device.lost()  # if it is, there is nothing to wait for

    def _drop_stream(self) -> None:
        stream, self.stream = self.stream, None
        self._device.release(stream)
