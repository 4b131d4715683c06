"""Deploy files: how to run an artefact, in a file next to it, `deploy.toml`, which `evodeploy sweep` writes.

schema = 1
artefact = "chosen.onnx"  # in the file's folder or below
sha256 = "…"
engine = "openvino"
precision = "bf16"        # optional, like device, cuda_graph, tf32 and keep_ratio
keep_ratio = 0.35         # of an elastic artefact, for runs that ask for none; [0.5, 0.3] for two stages

[measured]                # machine and speed: for people, no program reads it
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evodeploy.engines.base import Engine
from evodeploy.errors import BadFileError, InputError, UsageError
from evodeploy.files import open_regular, sha256
from evodeploy.kinds import is_deploy_file, kind_of
from evodeploy.schema import (
    Rule,
    SchemaError,
    boolean,
    document,
    matching,
    number,
    one_of,
    record,
    sequence,
    text,
    whole,
)
from evodeploy.specs import NO_METADATA, EngineOptions, Precision
from evodeploy.text import printable, reason

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = 1
BYTES = 65_536  # limit on a file's size
BEGINS = "# Written by evodeploy sweep"  # kinds.DEPLOY recognizes the file by it


@dataclass(frozen=True)
class DeployFile:
    """The engine and options for the artefact at the path `artefact`, which lies below the file's folder.

    None and False leave the choice to the caller that opens it. A `keep_ratio` of None leaves it to the artefact;
    otherwise it is the share of tokens that an elastic one keeps, in all stages or in each. `measured` is what the
    sweep found.
    """

    schema: int
    artefact: str
    sha256: str
    engine: str
    precision: Precision | None = None
    device: str | None = None
    cuda_graph: bool = False
    tf32: bool | None = None
    keep_ratio: float | tuple[float, ...] | None = None
    measured: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def under(self, options: EngineOptions) -> EngineOptions:
        """Return `options`, completed with the values of the file for options left at their defaults."""
        stated = {name: getattr(self, name) for name in ("precision", "device", "cuda_graph", "tf32")}
        empty = EngineOptions()
        left = {name: value for name, value in stated.items() if getattr(options, name) == getattr(empty, name)}
        return dataclasses.replace(options, **left)

    def to_toml(self) -> str:
        """Return the content of the file."""
        values = dataclasses.asdict(self)
        measured = values.pop("measured")
        lines = [f"{BEGINS}: predict, serve, eval and bench take it, and evodeploy.load.", *_lines(values)]
        return "\n".join([*lines, "", "[measured]", *_lines(measured), ""])


def _ratios(value: Any, field: str) -> float | tuple[float, ...]:
    ratio = number(0, 1, above=True)
    return sequence(ratio, 1, 64)(value, field) if isinstance(value, list) else ratio(value, field)


_DEPLOY_FILE = record(
    DeployFile,
    strict=True,
    schema=whole(SCHEMA, SCHEMA),
    artefact=matching(
        r"(?![/\\]|.*(?:^|/)\.\.(?:/|$))[^\x00-\x1f\\]{1,300}", "a relative path below the file's folder"
    ),
    sha256=matching("[0-9a-f]{64}", "a SHA-256 in hexadecimal"),
    engine=text(100, least=1),
    precision=one_of("fp32", "fp16", "bf16"),
    device=text(100, least=1),
    cuda_graph=boolean(),
    tf32=boolean(),
    keep_ratio=Rule("a number above 0, up to 1, or a list of them", _ratios),
    measured=document({}),
)


def read_deploy_file(path: Path) -> DeployFile:
    """Read the deploy file `path`, but not its artefact. Raises UsageError if unreadable, BadFileError if invalid."""
    with open_regular(path, "a deploy file", BYTES) as file:
        data = file.read(BYTES + 1)
    try:
        found = _DEPLOY_FILE(tomllib.loads(data.decode()))
        kind_of(found.artefact)
    except (ValueError, RecursionError, SchemaError, UsageError) as error:
        raise BadFileError(f"{path} is not a deploy file as `evodeploy sweep` writes it: {reason(error)}") from error
    return found


def artefact_of(path: Path) -> Path:
    """Return the artefact that the deploy file `path` names, unchecked. Any other path is returned unchanged."""
    return path.parent / read_deploy_file(path).artefact if is_deploy_file(path) else path


def checked_artefact(path: Path, stated: DeployFile) -> Path:
    """Return the artefact of the deploy file `path`. Raises BadFileError if its content has changed."""
    artefact = path.parent / stated.artefact
    if sha256(artefact) != stated.sha256:
        raise BadFileError(
            f"{artefact} is not the file that {path} was written for (its SHA-256 differs): copy both from one sweep"
        )
    return artefact


def at_stated_ratio(engine: Engine, path: Path, stated: DeployFile) -> Engine:
    """Give `engine` the keep ratio that the deploy file `path` states, as the default for runs that ask for none.

    If the artefact is not elastic, or does not support that ratio, closes the engine and raises BadFileError.
    """
    if stated.keep_ratio is None:
        return engine
    try:
        if engine.info is None:
            raise InputError(f"it {NO_METADATA}")
        engine.info.keep_of(stated.keep_ratio)
        engine.info = dataclasses.replace(engine.info, keep_ratios=engine.info.ratios_of(stated.keep_ratio))
    except InputError as error:
        engine.close()
        raise BadFileError(f"{path} states a keep ratio that {stated.artefact} does not have: {error}") from error
    return engine


def _lines(values: Mapping[str, Any]) -> list[str]:
    """Return the values other than None as TOML, which writes their types the same as JSON."""
    return [
        f"{name} = {json.dumps(printable(value) if isinstance(value, str) else value, ensure_ascii=False)}"
        for name, value in values.items()
        if value is not None
    ]
