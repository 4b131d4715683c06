"""Launches of a plan as CUDA graphs: one call for each batch instead of one for each kernel."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from evodeploy.engines.tensorrt.cuda import Device
from evodeploy.engines.tensorrt.execution import Execution, Shapes
from evodeploy.errors import RuntimeFailedError

GRAPHS = 32  # kept by a lane, the most recently used: each holds an execution context

Key = tuple[int, tuple[int, ...]]  # a batch size, and the numbers of kept tokens if the plan is elastic

_log = logging.getLogger(__name__)


class RecordedExecution:
    """Replays CUDA graphs, recorded at the first launch of each batch size and, for an elastic plan, each `keep`.

    A graph is valid as long as the execution context that it was recorded from is unchanged, so each graph has its own.
    If recording fails, batches of that size are launched without a graph, and a warning gives the reason.
    """

    def __init__(
        self, device: Device, execution: Callable[[], Execution], refused: dict[Key, str], stream: int
    ) -> None:
        """Prepare without a graph. `refused` maps what cannot be recorded to the reason; an engine's lanes share it."""
        self._device, self._calls = device, device.calls
        self._new, self._refused, self._stream = execution, refused, stream
        self._recorded: dict[Key, tuple[Any, Execution]] = {}  # the graph used last comes last
        self._free: Execution | None = execution()  # belongs to no graph

    def launch(self, batch: int, keep: tuple[int, ...] = ()) -> Shapes:
        """See Launcher. The first launch of each key also records it. Raises the same errors as Execution."""
        key = batch, keep
        if key in self._recorded:
            graph, execution = self._recorded[key] = self._recorded.pop(key)
            self._call(self._calls.cuGraphLaunch, graph, self._stream)
            return execution.shapes
        execution = self._unused()
        shapes = execution.launch(batch, keep)  # computes, and lets TensorRT do the setup that cannot be recorded
        self._record(execution, key)
        return shapes

    def close(self) -> None:
        """See Launcher."""
        for graph, execution in self._recorded.values():
            self._calls.cuGraphExecDestroy(graph)
            execution.close()
        if self._free is not None:
            self._free.close()

    def _unused(self) -> Execution:
        if self._free is None and len(self._recorded) == GRAPHS:
            self._call(self._calls.cuStreamSynchronize, self._stream)  # the graph may still be computing
            graph, self._free = self._recorded.pop(next(iter(self._recorded)))
            self._calls.cuGraphExecDestroy(graph)
        if self._free is None:
            self._free = self._new()
        return self._free

    def _record(self, execution: Execution, key: Key) -> None:
        with self._device.quiet:
            if key in self._refused:
                return
            try:
                graph = self._captured(execution, key)
            except RuntimeFailedError as error:
                self._refused[key] = str(error)
                _log.warning(
                    "batches of %s run without a CUDA graph, because it cannot be recorded: %s", _said(key), error
                )
                return
        self._recorded[key] = graph, execution
        self._free = None

    def _captured(self, execution: Execution, key: Key) -> Any:
        try:
            return self._captured_once(execution, key)
        except RuntimeFailedError:  # another thread may have disturbed it by waiting for the whole GPU
            return self._captured_once(execution, key)

    def _captured_once(self, execution: Execution, key: Key) -> Any:
        mode = self._calls.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL  # others may allocate meanwhile
        self._call(self._calls.cuStreamBeginCapture, self._stream, mode)
        try:
            execution.launch(*key)
        except BaseException:  # the reason is in TensorRT's log, not in the status of the call that ends the recording
            status, graph = self._calls.cuStreamEndCapture(self._stream)
            if status == self._calls.CUresult.CUDA_SUCCESS:
                self._calls.cuGraphDestroy(graph)
            raise
        graph = self._call(self._calls.cuStreamEndCapture, self._stream)
        try:
            return self._call(self._calls.cuGraphInstantiate, graph, 0)
        finally:
            self._calls.cuGraphDestroy(graph)

    def _call(self, function: Callable[..., Any], *arguments: object) -> Any:
        status, *results = function(*arguments)
        if status != self._calls.CUresult.CUDA_SUCCESS:
            raise RuntimeFailedError(f"the CUDA graph failed: {function.__name__} returned {status.name}")
        return results[0] if results else None


def _said(key: Key) -> str:
    batch, keep = key
    return f"{batch} that keep {', '.join(map(str, keep))} tokens" if keep else str(batch)
