"""The engines, precisions and TF32 setting that a bench uses by default."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from evodeploy.benchmark.plans import builder_problem
from evodeploy.benchmark.subject import Subject
from evodeploy.benchmark.torch_rows import usual_torch
from evodeploy.engines.deploy_file import DeployFile
from evodeploy.engines.device import cuda_index
from evodeploy.engines.opener import RUNTIMES, Runtime
from evodeploy.errors import UsageError
from evodeploy.machine.cpu import has_bf16
from evodeploy.machine.driver import driver_problem
from evodeploy.specs import Precision


def usual_engines(subject: Subject, device: str | None = None, stated: Collection[DeployFile] = ()) -> tuple[str, ...]:
    """Return PyTorch, every installed runtime whose device exists here, and those that run the given plans.

    With a `device`, only runtimes for it are returned. With deploy files, PyTorch and the engines that they state.
    """
    on_gpu = _on_gpu(device)
    if stated:
        return tuple(dict.fromkeys((*usual_torch(on_gpu=on_gpu), *(each.engine for each in stated))))
    plans = bool(subject.plans or subject.twin_plans)
    runtimes = [
        name
        for name, runtime in RUNTIMES.items()
        if runtime.runs != "checkpoint" and (device is None or runtime.on_gpu == on_gpu)
        if (plans and runtime.runs == "engine") or _works(runtime)
    ]
    return (*usual_torch(on_gpu=on_gpu), *runtimes)


def _on_gpu(device: str | None) -> bool:
    """Return whether `device` is a GPU or, if it is None, whether this machine has one. Raises UsageError."""
    return driver_problem() is None if device is None else cuda_index(device) is not None


def _works(runtime: Runtime) -> bool:
    """Return whether it is installed and has its device; for a runtime of engines, whether they can be built here."""
    if runtime.runs == "engine":
        return builder_problem() is None
    return runtime.installed and (not runtime.on_gpu or driver_problem() is None)


def usual_precisions(device: str | None = None, stated: Collection[DeployFile] = ()) -> tuple[Precision, ...]:
    """Return FP32 and a reduced precision: that of the files, else FP16 on a GPU, BF16 on a CPU that supports it."""
    if stated:
        return tuple(dict.fromkeys(("fp32", *(each.precision for each in stated if each.precision))))
    if _on_gpu(device):
        return ("fp32", "fp16")
    return ("fp32", "bf16") if has_bf16() else ("fp32",)


def tf32_of(asked: bool | None, stated: Collection[DeployFile]) -> bool:
    """Return whether FP32 products may be TF32: `asked`, else as deploy files state, else True."""
    return stated_by_all(stated, "tf32") is not False if asked is None else asked


def stated_by_all(stated: Collection[DeployFile], name: str) -> Any:
    """Return the `name` that all deploy files with that setting have in common, or None if none has it.

    Raises UsageError if they differ: a bench has one for all its rows.
    """
    found = sorted({value for each in stated if (value := getattr(each, name)) is not None})
    if len(found) > 1:
        raise UsageError(
            f"the deploy files state {name} {' and '.join(map(str, found))}, expected the same for all rows of "
            f"a bench: choose it with --{name}"
        )
    return found[0] if found else None
