"""Webdataset tars: samples of files that share a key, read at their place in the tar without unpacking."""

from __future__ import annotations

import io
import logging
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from evodeploy.datasets.examples import Example, Label
from evodeploy.errors import BadFileError
from evodeploy.files import open_regular
from evodeploy.images import IMAGE_SUFFIXES, StoredImage
from evodeploy.schema import read_json
from evodeploy.text import brief, reason

_log = logging.getLogger(__name__)

IMAGES = ("jpg", "jpeg", "png", "webp")
LABELS = ("cls", "json", "txt")
LARGEST_IMAGE = 1 << 28  # bytes
LARGEST_LABEL = 1 << 20
_HEADER = 1 << 20  # bytes of a long name or of a pax header
_BLOCK = 512
_PICTURES = tuple(IMAGE_SUFFIXES)
_AFTER = 1 << 18  # bytes after the end of a tar that must not belong to another
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # the first bytes of gzip, bzip2, xz and zstd
_WHAT = "a webdataset tar"


@dataclass(frozen=True, slots=True)
class Member(StoredImage):
    """An image of `length` bytes at `offset` of a tar. Each read opens the tar, so threads may share it."""

    tar: Path
    name: str
    offset: int
    length: int

    @property
    def size(self) -> int:
        """Bytes of the image."""
        return self.length

    @property
    def place(self) -> tuple[str, int]:
        """The tar, and the offset in it."""
        return str(self.tar.resolve()), self.offset

    def read(self) -> bytes:
        """Return the bytes of the image. Raises BadFileError if the tar has become shorter."""
        with open_regular(self.tar, _WHAT) as file:
            data = os.pread(file.fileno(), self.length, self.offset)
        if len(data) < self.length:
            raise BadFileError(f"{self} is cut short: the tar has changed since it was listed")
        return data

    def __str__(self) -> str:
        return f"{self.tar}/{self.name}"


def tar_examples(path: Path, root: Path) -> list[Example]:
    """Return the images and labels that `members_of` finds; their names begin with the tar's path below `root`."""
    prefix = path.relative_to(root).as_posix()
    return [Example(f"{prefix}/{image.name}", image, label) for image, label in members_of(path)]


def members_of(path: Path, labelled: bool = True) -> list[tuple[Member, Label | None]]:
    """Return the images of a tar in its order, each with the label of its sample if `labelled` is true.

    The files of a sample share their name up to the first dot: an image (jpg, jpeg, png or webp) and its label, in
    `cls` or `txt`, or in `json` as "label" (or "cls"). Text that is a whole number becomes one. A warning gives the
    number of samples that are left out because they have no image. Raises BadFileError if the tar is damaged or
    truncated, for links, devices and sparse files, for images and labels of absurd size, and for two of one key.
    """
    images: dict[str, Member] = {}
    labels: dict[str, Label] = {}
    others: set[str] = set()  # keys of files that are not read: images such as x.mask.png or x.bmp, or labels
    known = (*IMAGES, *LABELS) if labelled else IMAGES
    with _opened(path) as file:
        for name, offset, size in _members(path, file):
            folder, _, base = name.rpartition("/")
            stem, _, extension = base.partition(".")
            key, extension = f"{folder}/{stem}", extension.lower()
            if base.startswith("."):
                continue
            if extension not in known:
                if extension in LABELS or f".{extension}".endswith(_PICTURES):
                    others.add(key)
                continue
            member, limit = Member(path, name, offset, size), LARGEST_IMAGE if extension in IMAGES else LARGEST_LABEL
            where = brief(str(member))
            if size > limit:
                raise BadFileError(f"{where} has {size} bytes, expected at most {limit}")
            if extension in IMAGES:
                if key in images:
                    raise BadFileError(f"{where} is a second image with the same key as {brief(images[key].name)}")
                images[key] = member
            else:
                label = _label(member, os.pread(file.fileno(), size, offset), extension)
                if label is not None and labels.setdefault(key, label) != label:
                    raise BadFileError(
                        f"{where} says {brief(str(label), 60)}, but another file with the same key gives another label"
                    )
    if not images:
        raise BadFileError(f"{path} holds no images: expected names that end with {', '.join(IMAGES)}")
    if left := {key for keys in (others, labels) for key in keys if key not in images}:
        _log.warning(
            f"{len(left)} samples of {path} are left out, such as '{brief(min(left).lstrip('/'), 100)}': they "
            f"have no image, whose name must be a key, one dot, and {', '.join(IMAGES)}"
        )
    return [(image, labels.get(key)) for key, image in images.items()]


class _Bounded(io.BufferedReader):
    """A file that is read in small parts only: the length of a header in the tar is not trusted."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _HEADER:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        return super().read(size)


def _opened(path: Path) -> _Bounded:
    raw = cast("io.BufferedReader", open_regular(path, _WHAT)).detach()
    return _Bounded(cast("io.FileIO", raw))


def _members(path: Path, file: _Bounded) -> Iterator[tuple[str, int, int]]:
    """Yield name, offset and size of each regular file."""
    end = os.fstat(file.fileno()).st_size
    if os.pread(file.fileno(), 5, 0).startswith(_COMPRESSED):
        raise BadFileError(f"{path} is compressed, so its images cannot be read one by one: unpack it to a tar")
    place = 0
    try:
        if os.pread(file.fileno(), _BLOCK, 0) != bytes(_BLOCK):  # Python 3.10 cannot read an empty tar
            with tarfile.open(fileobj=file, mode="r:") as archive:
                yield from _regular(path, archive, end)
                place = archive.offset
    except (tarfile.TarError, ValueError, OverflowError, OSError, RecursionError) as error:
        raise BadFileError(f"{path} is not a readable tar: {reason(error)}") from error
    file.seek(min(place, end))
    if file.read(_BLOCK) != bytes(_BLOCK):  # tarfile stops at a damaged header as if it were the end
        raise BadFileError(f"{path} is damaged or cut short at byte {place}: create it again")
    if file.read(_AFTER).strip(b"\0"):
        raise BadFileError(f"{path} has more after its end at byte {place}, like tars joined by cat: create it again")


def _regular(path: Path, archive: tarfile.TarFile, end: int) -> Iterator[tuple[str, int, int]]:
    """Yield the same as `_members`, from the open `archive`. Raises BadFileError for other files, or beyond `end`."""
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # otherwise it would keep each
        if member.isdir():
            continue
        where = brief(f"{path}/{member.name}")
        if not member.isreg() or member.issparse():
            kind = "sparse" if member.issparse() else "a link, a device or a pipe"
            raise BadFileError(f"{where} is {kind}, expected regular files alone: pack them again")
        if member.size < 0 or member.offset_data + member.size > end:
            raise BadFileError(f"{where} claims {member.size} bytes, more than {path} has: it is cut short")
        yield member.name, member.offset_data, member.size


def _label(member: Member, data: bytes, extension: str) -> Label | None:
    try:
        if extension != "json":
            text = data.decode("utf-8").strip()
            return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text or None
        values = read_json(data.decode("utf-8"))
    except ValueError as error:
        raise BadFileError(f"{brief(str(member))} is not a label: {reason(error)}") from error
    label = values.get("label", values.get("cls")) if isinstance(values, dict) else values
    if label is None or isinstance(label, str) or type(label) is int:
        return label
    raise BadFileError(f'{brief(str(member))} has a label that is neither a whole number nor text: expected "label": 3')
