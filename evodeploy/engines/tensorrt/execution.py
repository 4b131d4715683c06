"""Launching a plan on a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from evodeploy.engines.tensorrt.plan import Plan, choose_profile
from evodeploy.specs import TensorSpec


class Launcher(Protocol):
    """Puts the computing of a batch, whose tensors lie at fixed addresses, into a stream."""

    def launch(self, batch: int) -> None:
        """Start computing the first `batch` images of the input's memory; does not wait."""

    def close(self) -> None:
        """Free what it holds on the GPU."""


class Execution:
    """Launches through one execution context, which gets a new shape whenever the batch changes."""

    def __init__(self, plan: Plan, spec: TensorSpec, addresses: Mapping[str, int], scratch: int, stream: int) -> None:
        """`spec` is the input's; `addresses` are those of all inputs and outputs by name.

        `scratch` is the address of the memory to compute in, which other executions on this stream may have too.
        """
        self._plan, self._spec, self._stream = plan, spec, stream
        self._batch = 0
        self._context = plan.new_context(scratch)
        for name, address in addresses.items():
            self._done(self._context.set_tensor_address(name, address), f"takes no address for '{name}'")

    def launch(self, batch: int) -> None:
        """See Launcher; raises InputError where no profile takes `batch`, RuntimeFailedError with TensorRT's reason."""
        self._plan.listen()
        if batch != self._batch:
            self._reshape(batch)
        self._done(self._context.execute_async_v3(self._stream), f"could not start a batch of {batch}")

    def close(self) -> None:
        """See Launcher."""
        with self._plan.device.quiet:
            self._context = None

    def _reshape(self, batch: int) -> None:
        profile = choose_profile(self._plan.profiles, batch)
        self._batch = 0  # should it fail halfway
        if self._context.active_optimization_profile != profile:
            switched = self._context.set_optimization_profile_async(profile, self._stream)
            self._done(switched, f"could not switch to profile {profile}")
        shaped = self._context.set_input_shape(self._spec.name, (batch, *self._spec.shape[1:]))
        self._done(shaped, f"takes no batch of {batch}")
        self._batch = batch

    def _done(self, succeeded: bool, otherwise: str) -> None:
        if not succeeded:
            raise self._plan.failure(otherwise)
