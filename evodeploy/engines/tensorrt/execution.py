"""Launches of a plan on a stream."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from evodeploy.engines.base import Array
from evodeploy.engines.tensorrt.plan import Plan, choose_profile
from evodeploy.errors import RuntimeFailedError
from evodeploy.specs import TensorSpec

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Tensors:
    """The inputs and outputs of a plan: `images`, `keep` if it is elastic, and the outputs.

    `longest` is the highest number of tokens of any stage. It bounds an output axis whose length depends on the run.
    """

    images: TensorSpec
    keep: TensorSpec | None
    outputs: tuple[TensorSpec, ...]
    longest: int = 0


class Launcher(Protocol):
    """Enqueues the computation of a batch, whose tensors have fixed addresses, in a stream."""

    def launch(self, batch: int, keep: tuple[int, ...] = ()) -> Shapes:
        """Start computing the first `batch` images of the input's memory, with `keep` tokens. Does not wait.

        Returns the shapes of the outputs whose length depends on `keep`.
        """

    def close(self) -> None:
        """Free what it holds on the GPU."""


class Execution:
    """Launches through one execution context, which is reshaped whenever the batch or `keep` changes.

    The numbers of kept tokens lie in separate page-locked memory. TensorRT reads them there on the host when a launch
    is enqueued, and they must not change before it is done. They change only when the stream is idle, because a lane
    computes one batch at a time. Those that a CUDA graph was recorded with never change.
    """

    def __init__(self, plan: Plan, tensors: Tensors, addresses: Mapping[str, int], scratch: int, stream: int) -> None:
        """Prepare an execution context; `addresses` are those of the images and of all outputs, by name.

        `scratch` is the address of the working memory, which other executions on this stream may share.
        """
        self._plan, self._tensors, self._stream = plan, tensors, stream
        self._shaped: tuple[int, tuple[int, ...]] | None = None
        self._shapes: Shapes = {}
        self._keep: Array | None = None
        with contextlib.ExitStack() as stack:
            if tensors.keep is not None:
                self._keep = plan.device.page_locked((tensors.keep.shape[0] or 1,), tensors.keep.dtype)
                stack.callback(plan.device.release, self._keep.base)
            self._context = plan.new_context(scratch)
            stack.callback(self._drop_context)
            for name, address in addresses.items():
                self._address(name, address)
            self._held = stack.pop_all()

    def launch(self, batch: int, keep: tuple[int, ...] = ()) -> Shapes:
        """See Launcher. Raises InputError if no profile takes `batch`, RuntimeFailedError with TensorRT's reason."""
        self._plan.listen()
        if (batch, keep) != self._shaped:
            self._reshape(batch, keep)
        self._done(self._context.execute_async_v3(self._stream), f"could not start a batch of {batch}")
        return self._shapes

    @property
    def shapes(self) -> Shapes:
        """The shapes that the last launch returned."""
        return self._shapes

    def close(self) -> None:
        """See Launcher."""
        self._held.close()

    def _reshape(self, batch: int, keep: tuple[int, ...]) -> None:
        profile = choose_profile(self._plan.profiles, batch)
        self._shaped = None  # in case it fails halfway
        if self._context.active_optimization_profile != profile:
            switched = self._context.set_optimization_profile_async(profile, self._stream)
            self._done(switched, f"could not switch to profile {profile}")
        images = self._tensors.images
        shaped = self._context.set_input_shape(images.name, (batch, *images.shape[1:]))
        self._done(shaped, f"takes no batch of {batch}")
        if self._tensors.keep is not None and self._keep is not None:
            self._keep[:] = keep
            self._address(self._tensors.keep.name, self._keep.ctypes.data)  # set again, so that TensorRT reads it again
            lengthy = (spec.name for spec in self._tensors.outputs if None in spec.shape[1:])
            self._shapes = {name: self._shape(name, batch) for name in lengthy}
        self._shaped = batch, keep

    def _shape(self, name: str, batch: int) -> tuple[int, ...]:
        """Return the current shape of an output. Raises RuntimeFailedError if it exceeds the allocated memory."""
        shape = tuple(map(int, self._context.get_tensor_shape(name)))
        if shape[:1] != (batch,) or not all(0 <= size <= self._tensors.longest for size in shape[1:]):
            raise RuntimeFailedError(
                f"{self._plan.flavour} gives output '{name}' the shape {shape}, expected a batch of {batch} and at "
                f"most {self._tensors.longest} tokens: build the engine again"
            )
        return shape

    def _address(self, name: str, address: int) -> None:
        self._done(self._context.set_tensor_address(name, address), f"takes no address for '{name}'")

    def _drop_context(self) -> None:
        with self._plan.device.quiet:
            self._context = None

    def _done(self, succeeded: bool, otherwise: str) -> None:
        if not succeeded:
            raise self._plan.failure(otherwise)
