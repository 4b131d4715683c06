"""OpenVINO's counters, and the graph that it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evodeploy.engines.base import Array
from evodeploy.engines.openvino_engine import OpenVinoEngine
from evodeploy.profiling.recording import Origins, Recorder, Step, serving
from evodeploy.specs import EngineOptions

if TYPE_CHECKING:
    import onnx

_ORIGINS = "originalLayersNames"


class OpenVinoRecorder(Recorder):
    """Runs the file `path`, whose graph is `graph`."""

    def __init__(self, path: Path, options: EngineOptions, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._runs: list[list[Step]] = []
        self.engine: OpenVinoEngine = OpenVinoEngine(path, options, counting=True)

    def run(self, images: Array, keep: Sequence[int] | None) -> None:
        """See Recorder."""
        self.engine.run(images, keep)
        self._runs.append([Step(*each) for each in self.engine.times()])

    def finish(self) -> tuple[list[list[Step]], Origins]:
        """See Recorder."""
        names = {node.name: node.name for node in self._graph.node}
        names |= {value: node.name for node in self._graph.node for value in node.output if value not in names}
        made_of: dict[str, tuple[str, ...]] = {}
        users: dict[str, list[str]] = {}
        for layer in self.engine.compiled_graph().get_ordered_ops():
            name = layer.get_friendly_name()
            facts = layer.get_rt_info()
            said = facts[_ORIGINS].astype(str) if _ORIGINS in facts else ""
            found = tuple(dict.fromkeys(names[each] for each in said.split(",") if each in names))
            if found:
                made_of[name] = found
            users[name] = [
                reader.get_node().get_friendly_name() for port in layer.outputs() for reader in port.get_target_inputs()
            ]
        return self._runs, Origins(made_of, serving(users, made_of))
