"""Reads documents of benches: a single bench, or the results of a GPU run, which contain several."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from evodeploy.benchmark.report.document import SCHEMA
from evodeploy.errors import BadFileError
from evodeploy.schema import (
    Rule,
    SchemaError,
    boolean,
    document,
    mapping,
    number,
    one_of,
    optional,
    read_json_file,
    sequence,
    text,
    whole,
)
from evodeploy.text import brief

Document = dict[str, Any]

_BYTES = 200_000_000
_WRITER = "what `evodeploy bench -o` writes"
_WORDS = text(300)
_ROW = document(
    {
        "engine": _WORDS,
        "precision": optional(_WORDS),
        "model": _WORDS,
        "device": _WORDS,
        "transfers": _WORDS,
        "cuda_graph": boolean(),
        "in_flight": whole(1, 1000),
        "batch": whole(1, 1_000_000),
        "batch_asked": whole(1, 1_000_000),
        "status": one_of("ok", "wrong", "unavailable"),
    },
    {"keep_ratios": optional(sequence(number(0, 1, above=True), 1, 1000))},
)
_TIMED = document({"samples_ms": sequence(number(0, 1e9, above=True), 1, 10_000_000)})
_DOCUMENT = document(
    {
        "model": document({"name": _WORDS}),
        "environment": document(
            {},
            {
                "gpus": sequence(document({}), 0, 1000),
                "packages": mapping(_WORDS, 1000),
                "variables": mapping(text(10_000), 1000),
            },
        ),
        "results": sequence(Rule("an object", lambda value, field: _row(value, field)), 0, 100_000),
    }
)
_BENCHES = sequence(document({}), 0, 1000)


def read_benches(path: Path) -> list[Document]:
    """Return the benches in `path`, each of another model: a single one, or those in a `gpu-results-*.json`.

    Raises BadFileError if it is neither, is empty, or has another schema version.
    """
    found = read_json_file(path, _WRITER, _BYTES)
    if not isinstance(found, dict) or "benches" not in found:
        return [_read(found, path, "")]
    try:
        benches = _BENCHES(found["benches"], "benches")
    except SchemaError as error:
        raise BadFileError(f"{path} is not what `make test-gpu` writes: {error}") from error
    if not benches:
        raise BadFileError(f"{path} holds no bench: the run ended before the first was complete")
    read = [_read(bench, path, f"benches[{index}]") for index, bench in enumerate(benches)]
    name, count = Counter(bench["model"]["name"] for bench in read).most_common(1)[0]
    if count > 1:
        raise BadFileError(f"{path} holds {count} benches of {name}, expected one of each model")
    return read


def _read(found: Any, path: Path, where: str) -> Document:
    version = found.get("schema") if isinstance(found, dict) else None
    if version != SCHEMA:
        raise BadFileError(f"{path} is of schema {brief(str(version))}, expected {SCHEMA}: run the bench again")
    try:
        return _DOCUMENT(found, where)
    except SchemaError as error:
        raise BadFileError(f"{path} is not {_WRITER}: {error}") from error


def _row(value: Any, field: str) -> Document:
    row = _ROW(value, field)
    return row if row["status"] == "unavailable" else _TIMED(row, field)
