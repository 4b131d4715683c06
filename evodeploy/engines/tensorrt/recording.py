"""Launching a plan as CUDA graphs: one call for each batch instead of one for each kernel."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from evodeploy.engines.tensorrt.cuda import Device
from evodeploy.engines.tensorrt.execution import Execution
from evodeploy.errors import RuntimeFailedError

GRAPHS = 32  # kept by a lane, those used last: each holds an execution context

_log = logging.getLogger(__name__)


class RecordedExecution:
    """Replays CUDA graphs, recorded at the first launch of each batch size.

    A graph holds for as long as the execution context that it was recorded from is left alone, so each has one of its
    own. Where recording fails, batches of that size are launched as without graphs, and a warning says why.
    """

    def __init__(self, device: Device, execution: Callable[[], Execution], refused: set[int], stream: int) -> None:
        """`refused` are the batch sizes that cannot be recorded: the lanes of an engine share what they learn."""
        self._device, self._calls = device, device.calls
        self._new, self._refused, self._stream = execution, refused, stream
        self._recorded: dict[int, tuple[Any, Execution]] = {}  # the graph used last is the last
        self._free: Execution | None = execution()  # of no graph

    def launch(self, batch: int) -> None:
        """See Launcher; the first launch of a batch size takes the time to record it. Raises as Execution does."""
        if batch in self._recorded:
            self._recorded[batch] = self._recorded.pop(batch)
            self._call(self._calls.cuGraphLaunch, self._recorded[batch][0], self._stream)
            return
        execution = self._unused()
        execution.launch(batch)  # computes, and lets TensorRT set up what cannot be recorded
        self._record(execution, batch)

    def close(self) -> None:
        """See Launcher."""
        for graph, execution in self._recorded.values():
            self._calls.cuGraphExecDestroy(graph)
            execution.close()
        if self._free is not None:
            self._free.close()

    def _unused(self) -> Execution:
        if self._free is None and len(self._recorded) == GRAPHS:
            self._call(self._calls.cuStreamSynchronize, self._stream)  # the graph may still compute
            graph, self._free = self._recorded.pop(next(iter(self._recorded)))
            self._calls.cuGraphExecDestroy(graph)
        if self._free is None:
            self._free = self._new()
        return self._free

    def _record(self, execution: Execution, batch: int) -> None:
        with self._device.quiet:
            if batch in self._refused:
                return
            try:
                graph = self._captured(execution, batch)
            except RuntimeFailedError as error:
                self._refused.add(batch)
                _log.warning("batches of %d run without a CUDA graph, for it cannot be recorded: %s", batch, error)
                return
        self._recorded[batch] = graph, execution
        self._free = None

    def _captured(self, execution: Execution, batch: int) -> Any:
        try:
            return self._captured_once(execution, batch)
        except RuntimeFailedError:  # perhaps another thread disturbed it, by waiting for the whole GPU
            return self._captured_once(execution, batch)

    def _captured_once(self, execution: Execution, batch: int) -> Any:
        mode = self._calls.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL  # others may allocate meanwhile
        self._call(self._calls.cuStreamBeginCapture, self._stream, mode)
        try:
            execution.launch(batch)
        except BaseException:  # the reason is TensorRT's, not that of the call that ends the recording
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
