"""Checkpoint files: their tensors, read in every form that training leaves them in, without running anything."""

from __future__ import annotations

import argparse
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evodeploy.errors import BadFileError, UsageError, needs
from evodeploy.files import check_input
from evodeploy.models.hub_config import hints_beside
from evodeploy.models.layout import Hints, State

_STATE_KEYS = ("model", "state_dict")
_PREFIX = re.compile(r"^(?:module\.|_orig_mod\.)+")


@dataclass(frozen=True)
class RawCheckpoint:
    """A checkpoint file's tensors under their published names, and what the training run said about itself."""

    state: State
    hints: Hints
    epoch: int | None
    has_ema: bool


def read_checkpoint(path: Path, ema: bool = False) -> RawCheckpoint:
    """Read the tensors of `path`; nothing in the file is run.

    Takes a training checkpoint (`model`, `model_ema`, `args`, …), a bare state dict, one under `state_dict`, names
    prefixed by DataParallel or torch.compile, safetensors, and torch's format before 1.6. Raises BadFileError where
    the file is none of these, UsageError where `ema` asks for a copy that is not there.
    """
    check_input(path, "a checkpoint: .pth, .pt or .safetensors")
    content = _load_safetensors(path) if path.suffix == ".safetensors" else _load_torch(path)
    if not isinstance(content, dict):
        raise BadFileError(f"{path} holds a {type(content).__name__}, expected a dictionary of tensors")
    has_ema = isinstance(content.get("model_ema"), dict)
    if ema and not has_ema:
        raise UsageError(f"{path} has no EMA weights ('model_ema'): leave out --ema")
    keys = ("model_ema",) if ema else _STATE_KEYS
    state = next((content[key] for key in keys if isinstance(content.get(key), dict)), content)
    tensors: State = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            known = ", ".join(sorted(map(str, content))[:6])
            raise BadFileError(f"{path} is no checkpoint: '{name}' is a {type(value).__name__}, not a tensor ({known})")
        tensors[_PREFIX.sub("", str(name))] = value.float() if value.is_floating_point() else value
    args = content.get("args")
    hints = Hints.from_args(vars(args)) if isinstance(args, argparse.Namespace) else hints_beside(path)
    epoch = content.get("epoch")
    return RawCheckpoint(tensors, hints, epoch if isinstance(epoch, int) else None, has_ema)


def _load_safetensors(path: Path) -> Any:
    with needs("export"):
        from safetensors.torch import load_file
    try:
        return load_file(path)
    except Exception as error:  # safetensors' own error type is private
        raise BadFileError(f"{path} is not a readable safetensors file: {error}") from error


def _load_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on formats that are old, or none at all: what matters is raised
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises nearly anything: the unpickler, the zip reader, struct, …
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise BadFileError(
                f"{path} wants to create a Python object of class {refused[1]}, which could run code: only tensors, "
                "plain values and argparse.Namespace are loaded; save a state dict instead"
            ) from error
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
        raise BadFileError(f"{path} is damaged or not a PyTorch checkpoint ({reason.splitlines()[0][:160]})") from error
