"""The state of a training that can be interrupted: a single file next to the output, replaced as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from evodeploy.errors import BadFileError, UsageError
from evodeploy.files import open_regular
from evodeploy.models.saving import write_tensors
from evodeploy.text import reason

SCHEMA = 1


@dataclass
class Progress:
    """The progress of a training: steps, seconds and images so far, and the smoothed figures of the last steps."""

    step: int = 0
    seconds: float = 0.0
    images: int = 0
    micro_batch: int = 0
    loss: float = 0.0
    agreement: float = 0.0


@dataclass
class State:
    """The state of a training: its `task`, which must be the same to resume, its quality `before`, and its tensors."""

    task: dict[str, Any]
    progress: Progress = field(default_factory=Progress)
    before: list[dict[str, Any]] = field(default_factory=list)
    tensors: dict[str, Any] = field(default_factory=dict)  # state dicts of student, average, optimizer, scaler


def write_state(state: State, path: Path) -> None:
    """Replace the file `path` by `state`. The change is atomic: a reader sees either the earlier state or this one."""
    content = {"schema": SCHEMA, "progress": vars(state.progress)}
    content |= {"task": state.task, "before": state.before, "tensors": state.tensors}
    write_tensors(content, path)


def read_state(path: Path, task: dict[str, Any]) -> State:
    """Read the state of `task` in `path`, without running any code in the file.

    Raises BadFileError if it is not a state, UsageError if it belongs to another training.
    """
    try:
        with open_regular(path, "the state of a distillation") as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
        known = State(content["task"], Progress(**content["progress"]), content["before"], content["tensors"])
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']}, expected {SCHEMA}")
    except UsageError:
        raise
    except Exception as error:  # a damaged file can raise any error
        raise BadFileError(
            f"{path} is not the state of a distillation ({reason(error)}): remove it, or pass --force without --resume "
            "to start over"
        ) from error
    changed = [name for name in task if known.task.get(name) != task[name]]
    if changed:
        raise UsageError(
            f"{path} belongs to another distillation ({', '.join(changed)} changed): pass the same options, "
            "or --force without --resume to start over"
        )
    return known
