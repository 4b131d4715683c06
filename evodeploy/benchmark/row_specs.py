"""The rows of a bench: each engine in each precision, on the model and on its dense twin."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from evodeploy.arguments import check_names
from evodeploy.benchmark.plans import Builds, Plan, Wanted, builder_problem, built_plans, given_plans, wanted_engines
from evodeploy.benchmark.row_spec import Kept, Refusal, Role, RowSpec, unless_fp32, without_tf32
from evodeploy.benchmark.subject import Subject
from evodeploy.benchmark.torch_rows import torch_rows
from evodeploy.engines.opener import RUNTIMES, open_engine
from evodeploy.errors import EvodeployError, MissingExtraError, needs
from evodeploy.graph.flops import flops_of_onnx
from evodeploy.locks import scratch
from evodeploy.machine.driver import driver_problem
from evodeploy.onnx_files import precision_of, read_onnx
from evodeploy.specs import EngineOptions, Precision

if TYPE_CHECKING:
    from evodeploy.models.loaded import LoadedModel

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")


@dataclass(frozen=True)
class _Onnx:
    """An ONNX file of one role: the precision of its weights, if it can be read, and the FLOPs of one image."""

    path: Path
    precision: Precision | None
    flops: float | None


@dataclass(frozen=True)
class _Side:
    """The model or its twin, and everything that its rows are made of, with whether its network and files are random.

    `lacking` is the reason why it has no network or no ONNX file.
    """

    role: Role
    model: LoadedModel | None
    onnx: tuple[_Onnx, ...]
    plans: tuple[Plan, ...]
    flops: float | None
    lacking: str
    random: bool
    random_files: bool


@contextmanager
def row_specs_of(
    subject: Subject,
    engines: Sequence[str],
    precisions: Sequence[str],
    threads: int,
    builds: Builds | None = None,
    tf32: bool = True,
    device: str | None = None,
) -> Iterator[list[RowSpec]]:
    """Yield the rows for `engines` and `precisions`, in their order, those of the model before those of the twin.

    Plans and ONNX files of reduced precision are run unchanged. Missing ONNX files are exported into a folder that
    exists as long as this context. With `builds`, missing plans are built there if there is a GPU. An elastic artefact
    has a row for each keep ratio of the subject; the one at 1.0 is the twin's. `tf32` allows TF32 to all engines that
    compute FP32 on a GPU, or to none.
    """
    check_names("engine", engines, RUNTIMES)
    check_names("precision", precisions, PRECISIONS)
    chosen = cast("tuple[Precision, ...]", tuple(precisions))
    runs_plans = any(RUNTIMES[name].runs == "engine" for name in engines)
    no_plan = "--no-build" if builds is None else (_no_plan(device) if runs_plans else None)
    building = builds if runs_plans and no_plan is None else None
    with scratch() as folder:
        exporting = building is not None or any(_runs_onnx(name) for name in engines)
        sides = [_side(subject, "evo", subject.model, exporting, folder)]
        twin = None if subject.twinless else _twin(subject.model)
        if twin is not None or (subject.model is None and not subject.twinless):
            sides.append(_side(subject, "dense", twin, exporting, folder))
        if building is not None:
            held = [file.precision for side in sides for file in side.onnx if file.precision is not None]
            given = (*subject.plans, *subject.twin_plans)
            wanted = wanted_engines(given, (*chosen, *(precision for precision in held if precision != "fp32")))
            sides = [_with_plans(side, wanted, building, folder) for side in sides]
        how = EngineOptions(threads, device, tf32=tf32)
        rows = [row for side in sides for name in engines for row in _rows(name, side, chosen, how, no_plan)]
        opened = rows if tf32 else [without_tf32(row) for row in rows]
        yield [each for row in opened for each in _at_each_ratio(row, subject)]


def _no_plan(device: str | None) -> str | None:
    """Return why no TensorRT engine can be built and run on `device`, or None if it can."""
    return "a TensorRT engine computes on a GPU only" if device == "cpu" else builder_problem()


def _runs_onnx(engine: str) -> bool:
    return RUNTIMES[engine].runs == "onnx"


def _twin(model: LoadedModel | None) -> LoadedModel | None:
    """Return the dense twin, or None if there is no model or it is dense itself."""
    if model is None or model.info.dense:
        return None
    from evodeploy.models.loaded import reconfigured
    from evodeploy.models.zoo import dense_twin

    return reconfigured(model, dense_twin(model.config))


def _side(subject: Subject, role: Role, model: LoadedModel | None, exporting: bool, folder: Path) -> _Side:
    onnx, plans = (subject.onnx, subject.plans) if role == "evo" else (subject.twin_onnx, subject.twin_plans)
    lacking, random_files = subject.no_model, subject.random and not onnx
    if model is not None and not onnx and exporting:
        try:
            onnx = (_exported(model, folder / f"{role}.onnx"),)
        except EvodeployError as error:  # such as weights too large for one file; PyTorch needs no file
            lacking = str(error)
    files = tuple(_read(path) for path in onnx)
    flops = files[0].flops if files else _counted(model)
    return _Side(role, model, files, given_plans(plans), flops, lacking, subject.random, random_files)


def _with_plans(side: _Side, wanted: Sequence[Wanted], builds: Builds, folder: Path) -> _Side:
    """Return the side, completed with those of the engines in `wanted` that it lacks."""
    had = {(plan.runtime, plan.precision) for plan in side.plans}
    missing = [one for one in wanted if (one.runtime, one.precision) not in had]
    sources = [(file.path, file.precision) for file in side.onnx]
    return dataclasses.replace(side, plans=(*side.plans, *built_plans(side.role, sources, missing, builds, folder)))


def _exported(model: LoadedModel, path: Path) -> Path:
    with needs("export"):
        from evodeploy.exporter.to_onnx import onnx_from_model
        from evodeploy.onnx_files import write_onnx

    write_onnx(onnx_from_model(model), path)
    return path


def _read(path: Path) -> _Onnx:
    try:
        proto = read_onnx(path)
    except MissingExtraError:  # runtimes read the file without this package
        return _Onnx(path, None, None)
    return _Onnx(path, precision_of(proto), flops_of_onnx(proto))


def _counted(model: LoadedModel | None, keep: Kept | None = None) -> float | None:
    """Return the FLOPs of one image, counted on the network, since the graph of an elastic one has no fixed sizes."""
    if model is None:
        return None
    from evodeploy.models.cost import cost_of
    from evodeploy.models.zoo import with_selection

    config = with_selection(model.config, keep.ratios) if keep else model.config
    return 2e9 * cost_of(config).gflops


def _at_each_ratio(row: RowSpec, subject: Subject) -> Iterator[RowSpec]:
    """Yield `row` at each keep ratio of the subject, or unchanged if it is the twin's or cannot be opened."""
    if not subject.keeps or row.role == "dense" or isinstance(row.open, Refusal):
        yield row
        return
    selecting = not all(keep.dense for keep in subject.keeps)
    for keep in subject.keeps:
        role: Role = "dense" if keep.dense and selecting else "evo"
        yield dataclasses.replace(row, role=role, keep=keep, flops=_counted(subject.model, keep))


def _rows(
    name: str, side: _Side, precisions: Sequence[Precision], how: EngineOptions, no_plan: str | None
) -> Iterator[RowSpec]:
    """Yield the rows of one engine on one side, marked if their weights are random."""
    found: list[tuple[bool, Iterable[RowSpec]]]
    if RUNTIMES[name].runs == "checkpoint":
        rows = torch_rows(name, side.role, side.model, precisions, how, side.flops, side.lacking)
        found = [(side.random, rows)]
    elif _runs_onnx(name):
        found = [(side.random_files, _file_rows(name, side.role, file, precisions, how)) for file in side.onnx]
        if not side.onnx:
            found = [(False, [RowSpec(name, side.role, None, "", Refusal(side.lacking))])]
    else:
        found = [(plan.built and side.random_files, _plan_rows(name, side, plan, how)) for plan in side.plans]
        if not side.plans and side.role == "evo":
            why = no_plan or side.lacking
            reason = f"no engine is given or found next to its ONNX file, and none is built: {why}"
            found = [(False, [RowSpec(name, side.role, None, "", Refusal(reason))])]
    yield from (dataclasses.replace(row, random=random) for random, rows in found for row in rows)


def _plan_rows(name: str, side: _Side, plan: Plan, how: EngineOptions) -> Iterator[RowSpec]:
    if plan.path is None:
        yield RowSpec(plan.runtime, side.role, plan.precision, plan.artefact, Refusal(plan.reason))
        return
    file = _Onnx(plan.path, plan.precision, side.flops)
    yield from (dataclasses.replace(row, engine=plan.runtime) for row in _file_rows(name, side.role, file, (), how))


def _file_rows(
    name: str, role: Role, file: _Onnx, precisions: Sequence[Precision], how: EngineOptions
) -> Iterator[RowSpec]:
    """Yield the rows of one file: in each precision that its engine has an option for, with and without CUDA graphs."""
    honours = RUNTIMES[name].honours
    row = partial(RowSpec, name, role, artefact=file.path.name, flops=file.flops)
    if file.precision not in (None, "fp32") or not precisions:
        asked: list[Precision | None] = [None]
    elif "precision" in honours:
        asked = [unless_fp32(precision) for precision in precisions]
    elif "fp32" in precisions:
        asked = [None]
    else:
        reason = f"{name} computes an FP32 file in FP32 only, which is not among the precisions asked for"
        yield row(precision="fp32", open=Refusal(reason))
        return
    tf32 = how.tf32 if "tf32" in honours else None
    for precision in asked:
        for graph in (False, True) if "cuda_graph" in honours and driver_problem() is None else (False,):
            options = dataclasses.replace(how, precision=precision, cuda_graph=graph, tf32=tf32)
            opened = partial(open_engine, file.path, name, options)
            yield row(precision=precision or file.precision, open=opened, cuda_graph=graph)
