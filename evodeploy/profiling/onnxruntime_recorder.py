"""ONNX Runtime's profiler: a trace of events, and the optimized graph."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evodeploy.engines.base import Array
from evodeploy.engines.onnxruntime_engine import OPTIMIZED, OnnxRuntimeEngine
from evodeploy.graph.nodes import users_of
from evodeploy.profiling.recording import Origins, Recorder, Step, serving
from evodeploy.specs import EngineOptions

if TYPE_CHECKING:
    import onnx

_ENDING = "_kernel_time"


class OnnxRuntimeRecorder(Recorder):
    """Runs the file `path`, whose graph is `graph`, on the CPU. `scratch` is a folder for the trace."""

    def __init__(self, path: Path, options: EngineOptions, scratch: Path, graph: onnx.GraphProto) -> None:
        self._scratch, self._graph = scratch, graph
        self.engine: OnnxRuntimeEngine = OnnxRuntimeEngine(path, options, trace=scratch)

    def run(self, images: Array, keep: Sequence[int] | None) -> None:
        """See Recorder."""
        self.engine.run(images, keep)

    def finish(self) -> tuple[list[list[Step]], Origins]:
        """See Recorder."""
        import onnx

        events = json.loads(self.engine.end_trace().read_text(encoding="utf-8"))
        computed = onnx.load(self._scratch / OPTIMIZED, load_external_data=False).graph
        return runs_of(events), origins_of(self._graph, computed)


def runs_of(events: Sequence[Mapping[str, Any]]) -> list[list[Step]]:
    """Return the steps of each run in a trace: the kernels' events between the beginning and the end of the run."""
    kernels = [each for each in events if each["cat"] == "Node" and each["name"].endswith(_ENDING)]
    kernels.sort(key=lambda each: int(each["ts"]))
    begins = [int(each["ts"]) for each in kernels]
    runs = sorted((each for each in events if each["name"] == "model_run"), key=lambda each: int(each["ts"]))
    return [
        [
            Step(each["name"].removesuffix(_ENDING), each["args"]["op_name"], each["dur"] / 1e6)
            for each in kernels[bisect_left(begins, run["ts"]) : bisect_right(begins, run["ts"] + run["dur"])]
        ]
        for run in runs
    ]


def origins_of(graph: onnx.GraphProto, computed: onnx.GraphProto) -> Origins:
    """Return the nodes of `graph` that each node of `computed`, ONNX Runtime's optimized graph, comes from.

    A fused node computes all nodes between its inputs and its outputs, which keep their names. Nodes of `computed`
    without a name get one, because events name them by a number that the graph does not contain.
    """
    for index, node in enumerate(computed.node):
        node.name = node.name or f"nameless {index}"
    kept = {node.name for node in computed.node}
    giving = {name: node for node in graph.node for name in node.output}
    made_of: dict[str, tuple[str, ...]] = {}
    for node in computed.node:
        found: dict[str, None] = {}
        waiting = [name for name in node.output if name in giving]
        while waiting:
            source = giving.get(waiting.pop())
            if source is None or source.name in found or (source.name in kept and source.name != node.name):
                continue
            found[source.name] = None
            waiting += [value for value in source.input if value not in node.input]
        if not found and any(node.name == other.name for other in graph.node):
            found[node.name] = None
        if found:
            made_of[node.name] = tuple(each.name for each in graph.node if each.name in found)
    reading = users_of(computed.node)
    users = {node.name: [user.name for name in node.output for user in reading[name]] for node in computed.node}
    return Origins(made_of, serving(users, made_of))
