"""The Python function that measures the time of an artefact's nodes."""

from __future__ import annotations

import dataclasses
import logging
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evodeploy.arguments import checked
from evodeploy.benchmark.measure.interleaved import SETTLE
from evodeploy.datasets.sources import images_of
from evodeploy.engines.base import Array, Engine
from evodeploy.engines.deploy_file import artefact_of
from evodeploy.engines.opener import open_engine, resolved, runtime_for
from evodeploy.errors import UsageError
from evodeploy.graph.parts import KINDS, Part, main_part, part_of, parts_of
from evodeploy.images import Images
from evodeploy.kinds import is_deploy_file
from evodeploy.locks import scratch
from evodeploy.onnx_files import read_onnx, save_onnx
from evodeploy.preprocess import as_input, pictures, random_pictures
from evodeploy.profiling.record import NodeTime, Profile
from evodeploy.profiling.recording import Origins, Recorder, Step
from evodeploy.specs import NO_METADATA, EngineOptions

if TYPE_CHECKING:
    import onnx

_log = logging.getLogger(__name__)

RUNS = 20
MOST_RUNS = 1000  # ONNX Runtime's trace ends after a million events
WARM_UPS = 3  # runs of each engine that are not counted


@checked
def profile(
    artefact: str | os.PathLike[str],
    *,
    engine: str | None = None,
    options: EngineOptions | None = None,
    batch: int = 1,
    keep_ratio: float | Sequence[float] | None = None,
    other_ratio: float | Sequence[float] | None = None,
    runs: int = RUNS,
    images: Images | None = None,
) -> Profile:
    """Measure the time of each node of `artefact` in a run, with the profiler of its runtime.

    `artefact` is an ONNX file or a TensorRT engine. The runtime is `engine`, by default the first that fits: ONNX
    Runtime on the CPU, OpenVINO or TensorRT. It runs `batch` of `images`, by default random ones, `runs` times with the
    profiler and `runs` times without, in turn, in separate sessions. An elastic artefact keeps the tokens of
    `keep_ratio`. With `other_ratio` it also runs at that ratio, in turn: see `Profile.other`.

    Raises UsageError for a runtime whose profiler is not supported, and for options that the runtime lacks; InputError
    for a batch size or keep ratios that the artefact does not support; also the errors of `open_engine`.
    """
    options = options or EngineOptions()
    if not 1 <= runs <= MOST_RUNS:
        raise UsageError(f"runs is {runs}, expected 1 to {MOST_RUNS}")
    if batch < 1:
        raise UsageError(f"batch is {batch}, expected 1 or more")
    path = resolved(artefact)
    assert isinstance(path, Path)  # `checked` refuses modules
    if is_deploy_file(path):
        artefact = artefact_of(path)
        raise UsageError(f"{path} is a deploy file, expected an ONNX file or a TensorRT engine: profile {artefact}")
    name = runtime_for(path, engine, options)
    if name not in ("onnxruntime", "openvino", "tensorrt"):
        raise UsageError(
            f"profiles of the engine '{name}' are not supported: expected onnxruntime or openvino with an "
            "ONNX file, or tensorrt with an engine file"
        )
    if options.cuda_graph:
        raise UsageError("a CUDA graph is one launch, whose layers have no times of their own: leave out cuda_graph")
    asked = [keep_ratio] if other_ratio is None else [keep_ratio, other_ratio]
    if runs * len(asked) > MOST_RUNS:
        raise UsageError(f"runs is {runs}, expected 1 to {MOST_RUNS // len(asked)} at each of two keep ratios")
    first, *others = _profiles(path, name, options, batch, asked, runs, images)
    return dataclasses.replace(first, other=others[0]) if others else first


def _profiles(
    path: Path,
    name: str,
    options: EngineOptions,
    batch: int,
    asked: Sequence[float | Sequence[float] | None],
    runs: int,
    images: Images | None,
) -> list[Profile]:
    """Return a profile at each of the keep ratios `asked`, None for the artefact's own. Their runs take turns."""
    with scratch() as folder:
        parts: dict[str, Part] | None = None
        opened: Path = path
        recorder: Recorder
        if name == "tensorrt":
            from evodeploy.profiling.tensorrt_recorder import TensorRtRecorder

            recorder = TensorRtRecorder(path, options)
        else:
            opened, graph = named(path, folder)
            parts = parts_of(graph)
            recorder = _of_onnx(name, opened, options, folder, graph)
        with recorder.engine, open_engine(opened, name, options) as plain:
            array = _input(plain, batch, images)
            info = plain.info
            if info is None and any(ratio is not None for ratio in asked):
                raise UsageError(f"{path} {NO_METADATA}; leave the keep ratio out")
            keeps = [None if info is None or ratio is None else info.keep_of(ratio) for ratio in asked]
            elastic = info is not None and info.elastic
            ratios = [info.ratios_of(ratio) if info is not None and elastic else () for ratio in asked]
            _log.info("profiling %s in %s, %d runs", path, name, runs * len(asked))
            seconds = _run(plain, recorder, array, keeps, runs)
            recorded, origins = recorder.finish()
    found = []
    for index, (whole, traced) in enumerate(seconds):
        nodes = tuple(node_times(recorded[index :: len(asked)][WARM_UPS:], origins, parts))
        said = {each for node in nodes for each in node.made_of}
        unnamed = tuple(each for each in parts or () if each not in said)
        found.append(Profile(path, name, plain.device, batch, ratios[index], runs, whole, traced, nodes, unnamed))
    return found


def named(path: Path, folder: Path) -> tuple[Path, onnx.GraphProto]:
    """Return the ONNX file `path` and its graph, or a copy with unique node names if it lacks them.

    Raises BadFileError as `read_onnx` does.
    """
    model = read_onnx(path)
    seen: set[str] = set()
    changed = False
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.name or node.op_type}_{index}"
            while node.name in seen:
                node.name += "_"
            changed = True
        seen.add(node.name)
    if not changed:
        return path, model.graph
    copy = folder / "named.onnx"
    save_onnx(model, copy)
    return copy, model.graph


def _of_onnx(name: str, path: Path, options: EngineOptions, folder: Path, graph: onnx.GraphProto) -> Recorder:
    if name == "openvino":
        from evodeploy.profiling.openvino_recorder import OpenVinoRecorder

        return OpenVinoRecorder(path, options, graph)
    from evodeploy.profiling.onnxruntime_recorder import OnnxRuntimeRecorder

    return OnnxRuntimeRecorder(path, options, folder, graph)


def _input(engine: Engine, batch: int, images: Images | None) -> Array:
    """Return `batch` images as input of the engine. Too few images are repeated; by default they are random."""
    spec = engine.inputs[0]
    if engine.info is not None:
        info = engine.info
        if images is None:
            return as_input(random_pictures(info, batch), info)
        given = pictures(images_of(images)[:batch], info)
        return as_input(given[np.arange(batch) % len(given)], info)
    if images is not None:
        raise UsageError(f"the artefact {NO_METADATA}; leave the images out to run it on random numbers")
    shape = (batch, *(size or 1 for size in spec.shape[1:]))
    return np.random.default_rng(0).random(shape, np.float32).astype(spec.dtype)


def _run(
    plain: Engine, recorder: Recorder, images: Array, keeps: Sequence[Sequence[int] | None], runs: int
) -> list[tuple[float, float]]:
    """Run both engines at each of `keeps` in turn.

    Returns for each the median seconds of a run without and with the profiler, excluding warm-ups.
    """
    turns: list[tuple[Callable[..., object], Sequence[int] | None]] = [
        (run, keep) for keep in keeps for run in (plain.run, recorder.run)
    ]
    seconds: list[list[float]] = [[] for _ in turns]
    for _ in range(WARM_UPS + runs):
        for (run, keep), taken in zip(turns, seconds, strict=True):
            time.sleep(SETTLE)
            start = time.perf_counter()
            run(images, keep)
            taken.append(time.perf_counter() - start)
    medians = [statistics.median(taken[WARM_UPS:]) for taken in seconds]
    return list(zip(medians[::2], medians[1::2], strict=True))


def node_times(runs: Sequence[Sequence[Step]], origins: Origins, parts: Mapping[str, Part] | None) -> list[NodeTime]:
    """Return the median time of each step over `runs`. Calls with the same name in one run are added up.

    `parts` are those of the graph's nodes. Without them a node's part is derived from its name.
    """

    def of(node: str) -> Part:
        return part_of(node) if parts is None else parts[node]

    operators = {step.name: step.operator for run in runs for step in run}
    seconds = {name: [0.0] * len(runs) for name in operators}
    calls = {name: [0] * len(runs) for name in operators}
    for index, run in enumerate(runs):
        for step in run:
            seconds[step.name][index] += step.seconds
            calls[step.name][index] += 1
    found = []
    for name, operator in operators.items():
        part = _part(name, operator, origins, of)
        made_of = tuple(sorted(origins.made_of.get(name, ()), key=lambda each: KINDS.index(of(each).kind)))
        median = statistics.median(seconds[name])
        found.append(NodeTime(name, operator, part.module, part.block, part.kind, made_of, median, max(calls[name])))
    return found


def _part(name: str, operator: str, origins: Origins, of: Callable[[str], Part]) -> Part:
    """Return the part of a step: that of its nodes, or else of the step it serves, with its own kind if it has one."""
    found = main_part(map(of, origins.made_of.get(name, ())))
    if found is not None:
        return found
    own = part_of(name.replace("/", "."), operator)  # the runtime's own name, which contains no module
    served = main_part(map(of, origins.made_of.get(origins.serves.get(name, ""), ())))
    if served is None:
        return Part("", "", own.kind)
    kind = own.kind if served.block and own.kind != "other" else served.kind
    return Part(served.module, served.block, kind)
