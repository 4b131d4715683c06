"""TensorRT's profiler: the time of each layer of a plan."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from evodeploy.engines.base import Array
from evodeploy.engines.tensorrt.runner import TensorRtEngine
from evodeploy.profiling.recording import Origins, Recorder, Step
from evodeploy.specs import EngineOptions

_FUSED = re.compile(r"\s*\+\s*|\s*\|\|\s*|\.\.\.|,\s*")
_WRAPPED = re.compile(r"^(?:\{?ForeignNode|PWN|Reformatting CopyNode for \w+ Tensor \d+ (?:to|from))\s*[\[(]?\s*")


class TensorRtRecorder(Recorder):
    """Runs the plan `path`. A launch waits for its end, and records no CUDA graph."""

    def __init__(self, path: Path, options: EngineOptions) -> None:
        self._runs: list[list[Step]] = []
        self._current: list[Step] = []
        self.engine: TensorRtEngine = TensorRtEngine(path, options, watch=self._take)

    def run(self, images: Array, keep: Sequence[int] | None) -> None:
        """See Recorder."""
        self._current.clear()
        self.engine.run(images, keep)
        self._runs.append(list(self._current))

    def finish(self) -> tuple[list[list[Step]], Origins]:
        """See Recorder."""
        names = {step.name for run in self._runs for step in run}
        return self._runs, Origins({name: nodes_in(name) for name in names})

    def _take(self, name: str, milliseconds: float) -> None:
        self._current.append(Step(name, "", milliseconds / 1e3))


def nodes_in(layer: str) -> tuple[str, ...]:
    """Return the nodes in the name of a `layer`: a and b for `a + b`, `PWN(a, b)` and `{ForeignNode[a...b]}`."""
    return tuple(filter(None, (each.strip(" ])}") for each in _FUSED.split(_WRAPPED.sub("", layer)))))
