"""Reading the tensors of checkpoint files, in every format that training writes, without running code in them."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from evodeploy.errors import BadFileError, UsageError, needs
from evodeploy.files import check_input, open_regular
from evodeploy.kinds import suffix_of
from evodeploy.models.hub_config import hints_near
from evodeploy.models.layout import Hints, State
from evodeploy.text import brief, one_line, reason

_WHAT = "a checkpoint: .pth, .pt or .safetensors"
_ARCHIVE = b"PK\x03\x04"
_SHOWN = 80  # characters of a tensor's name
_SHARED = 4  # the most tensors, on average, that may share the same numbers, as tied weights do
_COUNT = "num_batches_tracked"  # an integer buffer of training that no network reads
_STATE_KEYS = ("model", "state_dict")
_EMA_KEYS = ("model_ema", "state_dict_ema")  # of DeiT's code and of timm's
_SETTINGS = ("args", "cfg")  # a namespace or a dictionary, as training writes it
_PREFIX = re.compile(r"^(?:module\.|_orig_mod\.)+")


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RawCheckpoint:
    """A checkpoint's tensors under their published names, and the metadata of the training run."""

    state: State
    hints: Hints
    epoch: int | None
    has_ema: bool


def read_checkpoint(path: Path, ema: bool = False) -> RawCheckpoint:
    """Read the tensors of `path` without running any code in the file.

    Supports training checkpoints (`model`, `model_ema`, `args`, …; timm's `state_dict`, `state_dict_ema`), bare state
    dicts, names prefixed by DataParallel or torch.compile, safetensors, and torch's format before 1.6. Raises
    BadFileError for any other file, UsageError if `ema` is set and the file has no averaged weights.
    """
    check_input(path, _WHAT)
    content = _load_safetensors(path) if suffix_of(path) == ".safetensors" else _load_torch(path)
    if not isinstance(content, dict):
        raise BadFileError(f"{path} holds an object of type {type(content).__name__}, expected a dictionary of tensors")
    has_ema = any(isinstance(content.get(key), dict) for key in _EMA_KEYS)
    if ema and not has_ema:
        raise UsageError(f"{path} has no EMA weights ('model_ema' or 'state_dict_ema'): leave out --ema")
    keys = _EMA_KEYS if ema else _STATE_KEYS
    state = next((content[key] for key in keys if isinstance(content.get(key), dict)), content)
    tensors = _tensors(path, state, content)
    epoch = content.get("epoch")
    return RawCheckpoint(tensors, _hints(content, path), epoch if isinstance(epoch, int) else None, has_ema)


def _hints(content: dict[Any, Any], path: Path) -> Hints:
    """Read the hints in the training run's settings, and in a hub's files next to the checkpoint.

    The settings have priority, except for preprocessing. A name that neither states is read from `arch`.
    """
    near, arch = hints_near(path), content.get("arch")
    if near.model is None and isinstance(arch, str):
        near = dataclasses.replace(near, model=arch)
    for name in _SETTINGS:
        settings = content.get(name)
        settings = vars(settings) if isinstance(settings, argparse.Namespace) else settings
        if isinstance(settings, dict) and not any(isinstance(value, Tensor) for value in settings.values()):
            hints = Hints.from_args(settings)
            said = {name: value for name, value in vars(hints).items() if value not in (None, ())}
            return dataclasses.replace(near, **said | {"stated": (*near.stated, *hints.stated)})
    return near


def _tensors(path: Path, state: dict[Any, Any], content: dict[Any, Any]) -> State:
    """Return the tensors of `state` under names without prefixes, floating-point ones in FP32; raises BadFileError."""
    tensors: State = {}
    for key, value in state.items():
        name = brief(str(key), _SHOWN)
        if not isinstance(value, Tensor):
            known = brief(", ".join(sorted(map(str, content))[:6]))
            raise BadFileError(
                f"{path} is not a checkpoint: '{name}' is of type {type(value).__name__}, not a tensor ({known})"
            )
        own = _PREFIX.sub("", str(key))
        if own in tensors:
            raise BadFileError(f"{path} holds '{name}' twice, with a prefix and without: remove one of them")
        _check_tensor(path, name, value)
        tensors[own] = value
    _check_storages(path, tensors)
    wide = [name for name, value in tensors.items() if value.dtype == torch.float64]
    if wide:
        _log.warning("%s: %d tensors are FP64 (%s, …): they become FP32", path, len(wide), brief(wide[0], _SHOWN))
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def _check_tensor(path: Path, name: str, value: Tensor) -> None:
    """Raise BadFileError unless the tensor is a dense one of floating-point numbers in memory."""
    kind = (
        "quantized" if value.is_quantized
        else "nested" if value.is_nested
        else "sparse" if value.layout != torch.strided
        else "without data (meta)" if value.is_meta
        else str(value.dtype).removeprefix("torch.") if not value.is_floating_point() and not name.endswith(_COUNT)
        else None
    )  # fmt: skip
    if kind is not None:
        raise BadFileError(f"{path}: the tensor '{name}' is {kind}, expected floating numbers: save FP32 weights")


def _check_storages(path: Path, tensors: State) -> None:
    """Raise BadFileError if tensors claim more than the file holds: a copy of such a view could fill any memory."""
    stored = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in tensors.values()}
    claimed = 0
    for name, value in tensors.items():
        size, held = value.numel() * value.element_size(), value.untyped_storage().nbytes()
        if size > held:
            raise BadFileError(f"{path}: the tensor '{brief(name, _SHOWN)}' claims {size} bytes and holds {held}")
        claimed += size
    if claimed > _SHARED * sum(stored.values()):
        raise BadFileError(
            f"{path}: {len(tensors)} tensors claim {claimed} bytes of {sum(stored.values())} in the file"
        )


def _load_safetensors(path: Path) -> Any:
    with needs("export"):
        from safetensors.torch import load_file
    try:
        return load_file(path)
    except Exception as error:  # safetensors' own error type is private
        raise BadFileError(f"{path} is not a readable safetensors file: {reason(error)}") from error


def _load_torch(path: Path) -> Any:
    try:
        with (
            open_regular(path, _WHAT) as file,
            torch.serialization.safe_globals([argparse.Namespace]),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # about old or unknown formats: real problems raise errors
            _check_archive(file)
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise any error: from the unpickler, the zip reader, struct, …
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise BadFileError(
                f"{path} wants to create a Python object of class {brief(refused[1], _SHOWN)}, which could run code: "
                "only tensors, plain values and argparse.Namespace are loaded; save a state dict instead"
            ) from error
        why = one_line(str(error).rpartition("WeightsUnpickler error:")[2], type(error).__name__)
        raise BadFileError(f"{path} is damaged or not a PyTorch checkpoint ({brief(why, 160)})") from error


def _check_archive(file: BinaryIO) -> None:
    """Raise ValueError for an archive that unpacks to more than the file holds, or whose checksums are wrong.

    If all checksums are zero, they are not checked: `torch.serialization.set_crc32_options(False)` leaves them out.
    """
    size = os.fstat(file.fileno()).st_size
    archived = file.read(len(_ARCHIVE)) == _ARCHIVE  # the same test as in PyTorch
    file.seek(0)
    if not archived:  # the format before 1.6
        return
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > size:
            raise ValueError(f"{unpacked} bytes packed into {size}, expected an archive as torch.save writes it")
        checked = any(entry.CRC for entry in archive.infolist())
        damaged = archive.testzip() if checked else None
    if damaged is not None:
        raise ValueError(f"the checksum of '{damaged}' in it is wrong")
    file.seek(0)
