"""Launching a plan on a stream, each time anew or as a CUDA graph recorded once for each batch size."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from evodeploy.engines.tensorrt.cuda import Device
from evodeploy.engines.tensorrt.plan import Plan, choose_profile
from evodeploy.errors import RuntimeFailedError, needs
from evodeploy.specs import TensorSpec


class Launcher(Protocol):
    """Puts the computing of a batch, whose tensors lie at fixed addresses, into a stream."""

    def launch(self, batch: int) -> None:
        """Start computing the first `batch` images of the input's memory; does not wait."""

    def close(self) -> None:
        """Free what it holds on the GPU."""


class Execution:
    """Launches through one execution context, which is told a new shape whenever the batch changes."""

    def __init__(self, device: Device, plan: Plan, spec: TensorSpec, addresses: Mapping[str, int], stream: int) -> None:
        """`spec` is the input's; `addresses` are those of all inputs and outputs on `device`, by name."""
        self._plan, self._spec, self._stream = plan, spec, stream
        self._batch = 0
        self._context = plan.new_context()
        if self._context is None:
            if device.free_memory() < plan.context_bytes:
                raise device.out_of_memory(plan.context_bytes)
            raise plan.failure("makes no execution context")
        for name, address in addresses.items():
            self._done(self._context.set_tensor_address(name, address), f"takes no address for '{name}'")

    def launch(self, batch: int) -> None:
        """See Launcher; raises InputError where no profile takes `batch`, RuntimeFailedError with TensorRT's reason."""
        if batch != self._batch:
            self._reshape(batch)
        self._done(self._context.execute_async_v3(self._stream), f"could not start a batch of {batch}")

    def close(self) -> None:
        """See Launcher."""
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


class RecordedExecution:
    """Replays CUDA graphs, one for each batch size that was launched: one call instead of one for each kernel.

    A graph holds for as long as the context that it was recorded from is left alone, so each has a context of its own.
    """

    def __init__(self, execution: Callable[[], Execution], stream: int) -> None:
        with needs("tensorrt"):
            from cuda.bindings import driver

        self._driver, self._new, self._stream = driver, execution, stream
        self._executions: list[Execution] = []
        self._graphs: dict[int, Any] = {}

    def launch(self, batch: int) -> None:
        """See Launcher; the first launch of a batch size takes the time to record it. Raises as Execution does."""
        if batch in self._graphs:
            self._call(self._driver.cuGraphLaunch, self._graphs[batch], self._stream)
            return
        execution = self._new()
        self._executions.append(execution)  # even if recording fails: its first launch is under way
        execution.launch(batch)  # computes, and lets TensorRT set up what cannot be recorded
        self._graphs[batch] = self._recorded(execution, batch)

    def close(self) -> None:
        """See Launcher."""
        for graph in self._graphs.values():
            self._driver.cuGraphExecDestroy(graph)
        for execution in self._executions:
            execution.close()

    def _recorded(self, execution: Execution, batch: int) -> Any:
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL  # others may allocate meanwhile
        with contextlib.ExitStack() as after:
            self._call(self._driver.cuStreamBeginCapture, self._stream, mode)
            try:
                execution.launch(batch)
            finally:
                graph = self._call(self._driver.cuStreamEndCapture, self._stream)
                after.callback(self._driver.cuGraphDestroy, graph)
            return self._call(self._driver.cuGraphInstantiate, graph, 0)

    def _call(self, function: Callable[..., Any], *arguments: object) -> Any:
        status, *results = function(*arguments)
        if status != self._driver.CUresult.CUDA_SUCCESS:
            raise RuntimeFailedError(f"the CUDA graph failed: {function.__name__} returned {status.name}")
        return results[0] if results else None
