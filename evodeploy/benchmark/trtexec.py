"""Command lines of trtexec that measure the same as the TensorRT rows of a bench."""

from __future__ import annotations

import importlib.metadata
import itertools
import logging
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evodeploy.artefacts import family_of
from evodeploy.benchmark.entrants import DEPTHS
from evodeploy.benchmark.keep_ratios import Ratios, kept_by
from evodeploy.benchmark.measure.interleaved import BATCHES, Budget
from evodeploy.benchmark.row_spec import Kept
from evodeploy.benchmark.subject import sources_of, without_deploy_files
from evodeploy.benchmark.usual import tf32_of
from evodeploy.engines.gate import LAUNCHES
from evodeploy.engines.opener import Source
from evodeploy.engines.tensorrt.plan import choose_profile
from evodeploy.engines.tensorrt.sidecar import PlanRecord, keep_profile, profiles_for, read_sidecar
from evodeploy.errors import InputError, UsageError
from evodeploy.kinds import kind_of
from evodeploy.onnx_files import info_of, input_spec, read_onnx
from evodeploy.specs import KEEP, ModelInfo, TensorSpec

_log = logging.getLogger(__name__)

RTX_TOOL = "tensorrt_rtx"
NEWEST = 11  # major version of TensorRT, assumed if none is installed


@dataclass(frozen=True)
class Line:
    """The identity of a row, and its command, or the reason why there is none."""

    artefact: str
    batch: int
    transfers: str
    in_flight: int
    cuda_graph: bool
    command: str
    reason: str = ""
    keep: Kept | None = None

    def __str__(self) -> str:
        """Return text for a shell: a comment that identifies the row, then the command."""
        more = (", CUDA graph" if self.cuda_graph else "") + (f", {self.keep}" if self.keep else "")
        row = f"# {self.artefact}, batch {self.batch}, transfers {self.transfers}, {self.in_flight} in flight{more}"
        return f"{row}: {self.reason}" if self.reason else f"{row}\n{self.command}"


def trtexec_lines(
    artefacts: Source | Sequence[Source] | None = None,
    *,
    batches: Sequence[int] = BATCHES,
    seconds: float = 5.0,
    tf32: bool | None = None,
) -> list[Line]:
    """Return a line for each row of the engines in `artefacts`, or if there are none, of the ONNX files to build.

    Engines next to the ONNX file that they were built from are included. By default the artefacts are the newest export
    of the current folder. Raises UsageError if there are neither engines nor ONNX files.
    """
    budget = Budget(seconds, min_seconds=min(1.0, seconds))
    sources, stated = without_deploy_files(sources_of(artefacts))
    tf32 = tf32_of(tf32, stated)
    keeps = [each.keep_ratio for each in stated if each.keep_ratio is not None]
    paths = [source for source in sources if isinstance(source, Path)]
    onnx = [path for path in paths if kind_of(path) == "onnx"]
    engines = [path for path in paths if kind_of(path) == "engine"]
    engines = engines or [built for path in onnx for built in family_of(path).engines]
    found = [line for path in engines for line in lines_of_engine(path, batches, budget, keeps)]
    if not engines:
        found = [line for path in onnx for line in lines_of_onnx(path, batches, budget, keeps, tf32=tf32)]
    if not found:
        raise UsageError("--print-trtexec prints lines for engines or ONNX files, got none: name some")
    if any(line.command.startswith(RTX_TOOL) for line in found):
        _log.info(
            f"TensorRT for RTX has its own tool, {RTX_TOOL}. NVIDIA publishes no list of its options: those not "
            "in its documentation are assumed to be trtexec's"
        )
    return found


def lines_of_engine(path: Path, batches: Sequence[int], budget: Budget, keeps: Ratios = ()) -> Iterator[Line]:
    """Yield one line for each row of the plan `path`, with the options of the TensorRT that built it.

    An elastic plan runs at `keeps`, or else at its own keep ratios, and at 1.0.
    """
    record = read_sidecar(path)
    major = int(record.runtime_version.partition(".")[0])
    rtx = record.runtime == "tensorrt-rtx"
    for batch, kept in itertools.product(batches, _kept(record.model, keeps)):
        try:
            shapes = _shapes(record.inputs[0], batch, "shapes", kept.tokens if kept else ())
            loaded = [f"--loadEngine={path}", *shapes, *_opening(record, batch)]
        except InputError as error:
            yield Line(path.name, batch, "any", 1, False, "", str(error), kept)
            continue
        for transfers, in_flight, graph in _rows():
            how = _rtx_options if rtx else _options_of_10 if major < 11 else _options_of_11
            words = [RTX_TOOL if rtx else "trtexec", *loaded, *how(transfers, in_flight, graph), *_length(budget)]
            yield Line(path.name, batch, transfers, in_flight, graph, shlex.join(words), keep=kept)


def lines_of_onnx(
    path: Path, batches: Sequence[int], budget: Budget, keeps: Ratios = (), *, tf32: bool
) -> Iterator[Line]:
    """Yield the same for an ONNX file without engines: trtexec builds it, in the precision that it holds.

    FP32 products may be TF32 if `tf32` allows it.
    """
    model = read_onnx(path)
    info, spec, major = info_of(model), input_spec(model), _installed_major()
    keep = keep_profile(info)
    for profile, kept in itertools.product(profiles_for(batches), _kept(info, keeps)):
        batch, fixed = profile.opt, spec.shape[0]
        if fixed not in (None, batch):
            reason = f"the file has a fixed batch of {fixed}: export it with --batch dynamic for another"
            yield Line(path.name, batch, "any", 1, False, "", reason, kept)
            continue
        low, best, high = (keep.min, keep.opt, keep.max) if keep else ((), (), ())
        shapes = (
            ("minShapes", profile.min, low),
            ("optShapes", batch, best),
            ("maxShapes", profile.max, high),
            ("shapes", batch, kept.tokens if kept else ()),
        )
        built = [
            f"--onnx={path}",
            *(word for option, size, tokens in shapes for word in _shapes(spec, size, option, tokens)),
        ]
        if major < 11:
            built.append("--stronglyTyped")
        if not tf32:
            built.append("--noTF32")
        for transfers, in_flight, graph in _rows():
            how = _options_of_10 if major < 11 else _options_of_11
            words = ["trtexec", *built, *how(transfers, in_flight, graph), *_length(budget)]
            yield Line(path.name, batch, transfers, in_flight, graph, shlex.join(words), keep=kept)


def _kept(info: ModelInfo | None, stated: Ratios) -> tuple[Kept | None, ...]:
    """Return what the rows of a bench keep by default; None for a static artefact, whose ratios are fixed."""
    return kept_by(info, {}, None, stated) or (None,)


def _rows() -> Iterator[tuple[str, int, bool]]:
    """Yield the columns in which the rows of an engine differ: transfers, batches in flight, CUDA graph."""
    for graph in (False, True):
        for transfers in ("included", "resident"):
            for in_flight in (1, *DEPTHS):
                yield transfers, in_flight, graph


def _shapes(spec: TensorSpec, batch: int, option: str, keep: tuple[int, ...] = ()) -> list[str]:
    """Return the option for a batch that keeps `keep` tokens. For a shape tensor trtexec takes the values as its shape.

    A fixed batch is left out, because trtexec refuses it.
    """
    sizes = {} if spec.shape[0] is not None else {spec.name: (batch, *spec.shape[1:])}
    if keep:
        sizes[KEEP] = keep
    words = [f"{name}:{'x'.join(map(str, shape))}" for name, shape in sizes.items()]
    return [f"--{option}={','.join(words)}"] if words else []


def _opening(record: PlanRecord, batch: int) -> list[str]:
    """Return the options that choose the profile and allow a portable plan to run its code. Raises InputError."""
    index = choose_profile(record.profiles, batch)
    profile = [f"--useProfile={index}"] if len(record.profiles) > 1 else []
    return [*profile, "--versionCompatible"] if record.version_compatible else profile


def _streams(transfers: str, in_flight: int) -> list[str]:
    """Return the options for the number of batches in flight.

    trtexec has an execution context for each of its streams. With transfers it keeps two batches in each, so that
    copies and computation overlap, unless --exposeDMA is given.
    """
    if transfers == "resident":
        return [f"--infStreams={in_flight}"]
    return ["--infStreams=1"] if in_flight == 2 else [f"--infStreams={in_flight}", "--exposeDMA"]


def _options_of_10(transfers: str, in_flight: int, graph: bool) -> list[str]:
    """Return the options of TensorRT 10. Transfers and blocking waits are its default, graphs are not."""
    resident = ["--noDataTransfers"] if transfers == "resident" else []
    replayed = ["--useCudaGraph"] if graph else []
    return [*resident, *_streams(transfers, in_flight), *replayed, "--useSpinWait"]


def _options_of_11(transfers: str, in_flight: int, graph: bool) -> list[str]:
    """Return the options of TensorRT 11. Graphs and spinning are its default, transfers are not."""
    copied = ["--includeDataTransfers"] if transfers == "included" else []
    launched = [] if graph else ["--noCudaGraph"]
    return [*copied, *_streams(transfers, in_flight), *launched]


def _rtx_options(transfers: str, in_flight: int, graph: bool) -> list[str]:
    """Return the options of trtexec 10, except for graphs, and with kernels compiled for the shape before timing."""
    strategy = f"--rtxCudaGraphStrategy={'wholeGraph' if graph else 'disable'}"
    return [*_options_of_10(transfers, in_flight, graph=False), strategy, "--specializeStrategyDS=eager"]


def _length(budget: Budget) -> list[str]:
    milliseconds = budget.warmup_seconds * 1e3
    return [f"--warmUp={milliseconds:g}", f"--duration={budget.seconds:g}", f"--avgRuns={LAUNCHES}"]


def _installed_major() -> int:
    for name in ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"):
        try:
            return int(importlib.metadata.version(name).partition(".")[0])
        except importlib.metadata.PackageNotFoundError:
            continue
    return NEWEST
