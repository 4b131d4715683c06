"""The files with images that a path names: it may be a folder, a glob, braces, a list of paths or a file."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from evodeploy.errors import BadFileError, UsageError
from evodeploy.files import check_folder, check_input, entries_below
from evodeploy.images import IMAGE_SUFFIXES
from evodeploy.kinds import suffix_of
from evodeploy.text import brief

CONTAINERS = (".tar", ".parquet")  # files that contain many images
EXPANDED = 100_000  # names into which braces may expand
EXPECTED = "expected a folder, a glob, an image, a .parquet file, a webdataset .tar or a .txt list of paths"

_KNOWN = {*IMAGE_SUFFIXES, *CONTAINERS}
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")
_COMPRESSED = re.compile(r".*\.(tgz|tar\.(gz|bz2|xz|zst))", re.IGNORECASE)


def files_of(given: str, left_out: Callable[[str], bool] | None = None) -> Iterator[str]:
    """Yield every image file, tar and Parquet file that `given` names, in no particular order.

    The paths in a list (.txt, one per line) are relative to its folder, and need not exist. A pattern only includes
    lists if it ends with .txt itself. Entries of folders and patterns for which `left_out` is true are skipped. Raises
    UsageError if `given` does not exist, holds no such files or is not one, or if a folder cannot be read.
    """
    if not given:
        raise UsageError(f"the name of an input is empty: {EXPECTED}")
    path, shown = Path(given), brief(given)
    if path.is_dir():
        found = [entry for entry in entries_below(path) if suffix_of(entry) in _KNOWN]
        found = [entry for entry in found if not (left_out and left_out(entry))]
        if not found:
            kinds = ", ".join(sorted(IMAGE_SUFFIXES))
            raise UsageError(f"{shown} holds no images: expected {kinds}, .parquet or .tar")
        yield from found
    elif not os.path.lexists(path) and (expanded := _expanded(given)) != [given]:
        for each in expanded:
            yield from files_of(each, left_out)
    elif not os.path.lexists(path) and glob.has_magic(given):
        left = () if suffix_of(given) == ".txt" else (".txt",)
        matched = [match for match in _matches(given) if suffix_of(match) not in left and not Path(match).is_dir()]
        matched = [match for match in matched if not (left_out and left_out(match))]
        if not matched:
            raise UsageError(f"nothing matches {shown}: expected a pattern of image, .parquet or .tar files")
        for match in matched:
            yield from [str(Path(match))] if suffix_of(match) in _KNOWN else files_of(match)
    elif suffix_of(path) == ".txt":
        yield from _listed(path)
    elif suffix_of(path) in _KNOWN:
        check_input(path, "an image, a Parquet file or a tar")
        yield str(path)
    elif not path.exists():
        raise UsageError(f"{shown} does not exist ({EXPECTED})")
    elif _COMPRESSED.fullmatch(path.name):
        raise UsageError(f"{shown} is compressed, so its images cannot be read one by one: unpack it to a .tar")
    else:
        raise UsageError(f"cannot recognise {shown}: {EXPECTED}")


def common_folder(files: list[str]) -> Path:
    """Return the folder that contains all `files`."""
    return Path(os.path.commonpath({os.path.dirname(file) for file in files}))  # noqa: PTH120 - for many files


def _listed(path: Path) -> Iterator[str]:
    check_input(path, "a list of images, one path a line")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeError as error:
        raise BadFileError(f"{path} is not a list of paths in UTF-8: {error}") from error
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise BadFileError(
                f"{path} is not a list of paths: line {number} holds a NUL character, which no file name has"
            )
    yield from (str(path.parent / line) for line in lines if line.strip())


def _expanded(pattern: str) -> list[str]:
    """Expand each `{000..003}` and `{a,b}` in `pattern`, like a shell. Raises UsageError for too many names."""
    choices: list[list[str]] = []
    total, end = 1, 0
    for found in _BRACES.finditer(pattern):
        numbers = _RANGE.fullmatch(found[1])
        if numbers:
            first, last = int(numbers[1]), int(numbers[2])
            count = abs(last - first) + 1
        else:
            count = found[1].count(",") + 1
        total *= count
        if total > EXPANDED:
            raise UsageError(f"the braces of {brief(pattern)} expand to more than {EXPANDED} names: name fewer")
        step = 1 if not numbers or first <= last else -1
        padded = numbers and any(len(each) > 1 and each.startswith("0") for each in numbers.groups())
        width = max(map(len, numbers.groups())) if numbers and padded else 0
        written = [f"{n:0{width}}" for n in range(first, last + step, step)] if numbers else None
        choices += [[pattern[end : found.start()]], written or (found[1].split(",") if count > 1 else [found[0]])]
        end = found.end()
    return ["".join(parts) for parts in itertools.product(*choices, [pattern[end:]])]


def _matches(pattern: str) -> list[str]:
    """Return what `pattern` matches. Raises UsageError if a folder on its way cannot be read.

    `glob` itself skips such a folder silently, and its images would be missing.
    """
    parts = Path(pattern).parts
    for index, part in enumerate(parts):
        for ahead in range(index, index + 1 + (part == "**")) if glob.has_magic(part) else ():
            start = os.path.join(*parts[:ahead], "") if ahead else "."  # noqa: PTH118 - its end says that it is a folder
            for folder in _glob(start):
                check_folder(folder)
    return _glob(pattern)


def _glob(pattern: str) -> list[str]:
    return glob.glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
