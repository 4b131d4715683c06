"""Images in every form that callers may pass: paths, bytes of a file, places in larger files, arrays, tensors."""

from __future__ import annotations

import abc
import io
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from evodeploy.arrays import Array, DLPack, as_array
from evodeploy.errors import BadFileError, InputError, UsageError
from evodeploy.files import open_regular
from evodeploy.text import reason

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
# Formats that Pillow decodes by itself: for EPS, for example, it would start Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
UPLOADED = ("JPEG", "PNG", "WEBP", "TIFF")  # the formats that services accept
UPLOADED_BYTES, UPLOADED_PIXELS = 16 << 20, 50_000_000  # default limits of an image that a service accepts
LARGEST_ASPECT = 10_000  # of the longer side to the shorter
MOST_SCANS = 100  # in a JPEG file that a service accepts, the same as in libtiff; ordinary files have ten
MOST_EXIF = 16  # EXIF blocks in such a file: Pillow copies all earlier ones for each; ordinary files have one

# A JPEG marker that is followed by its length: no restart marker, fill byte or byte of a scan.
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")


class StoredImage(abc.ABC):
    """An image inside a larger file. Its text names the place. Threads may share it."""

    __slots__ = ()

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """Size of the image in bytes if it is known, else the size of the file that contains it."""

    @property
    @abc.abstractmethod
    def place(self) -> tuple[str, int]:
        """The file that contains it and the position there, which identify the image."""

    @abc.abstractmethod
    def read(self) -> bytes:
        """Return the bytes of the image file. Raises BadFileError if they cannot be read."""


ImageLike: TypeAlias = "Image.Image | os.PathLike[str] | str | bytes | StoredImage | Array | DLPack"
Images: TypeAlias = "ImageLike | Iterable[ImageLike]"


def open_image(source: ImageLike) -> Image.Image:
    """Return a Pillow image from a path, bytes, a place in a larger file, a Pillow image, an array or a CPU tensor.

    Arrays and tensors are (H, W), (H, W, 3), (H, W, 4), whose alpha is dropped, or with the channels first, as in
    torchvision, (3, H, W). Values are uint8, or floats from 0 to 1, which are rounded to the 256 levels of an image
    file. Raises UsageError if there is no such file, BadFileError if it is not a readable image (broken, truncated,
    with one side far longer than the other, or larger than Pillow's limit of 178.9 megapixels), InputError for other
    arrays and for tensors that are not in host memory.
    """
    if isinstance(source, os.PathLike):
        source = Path(source)
    name = "the image" if isinstance(source, (bytes, Image.Image)) else source
    if isinstance(source, StoredImage):
        source = source.read()
    if not isinstance(source, (str, bytes, Path, Image.Image)):
        array = as_array(source)
        if not isinstance(array, np.ndarray):
            raise InputError(
                f"an image is of type {type(source).__name__}, expected a path, bytes, a Pillow image or an array"
            )
        return Image.fromarray(_bytes_of(array))
    try:
        if isinstance(source, Image.Image):
            source.load()  # it may be a file that was opened but not yet read
            return source
        file = io.BytesIO(source) if isinstance(source, bytes) else open_regular(source, "an image")
        with file, Image.open(file, formats=FORMATS) as image:
            check_sides(image.size)
            image.load()
            opened: Image.Image = image
            return opened
    except UsageError:  # there is no such file
        raise
    except UnidentifiedImageError as error:
        raise BadFileError(f"{name} is not a readable image of {', '.join(FORMATS)}") from error
    except Exception as error:  # decoders raise errors of any type for bytes that are not an image
        why = getattr(error, "strerror", None) or reason(error)
        raise BadFileError(f"{name} is not a readable image: {why}") from error


def check_sides(sides: tuple[int, int]) -> None:
    """Raise BadFileError if one side of an image is too long for the other."""
    if max(sides) > LARGEST_ASPECT * min(sides):
        raise BadFileError(
            f"the image has {sides[0]} x {sides[1]} pixels, expected one side to be {LARGEST_ASPECT} times the other "
            "at most"
        )


def check_scans(body: bytes) -> None:
    """Raise BadFileError for a JPEG file of more than `MOST_SCANS`: each scan passes over all pixels, even if empty.

    Only the markers that libjpeg would find are counted, not every pair of bytes that looks like one.
    """
    if not body.startswith(b"\xff\xd8") or body.count(b"\xff\xda") <= MOST_SCANS:
        return
    scans, place = 0, 2
    while (found := _MARKER.search(body, place)) and found[0] != b"\xff\xd9":  # the end of the image
        scans += found[0] == b"\xff\xda"
        if scans > MOST_SCANS:
            raise BadFileError(f"the image has more than {MOST_SCANS} scans: save it as a JPEG that is not progressive")
        place = found.end() + int.from_bytes(body[found.end() : found.end() + 2], "big")


def check_exif(body: bytes) -> None:
    """Raise BadFileError for a JPEG file of more than `MOST_EXIF` EXIF blocks."""
    if body.startswith(b"\xff\xd8") and body.count(b"Exif\0\0") > MOST_EXIF:
        raise BadFileError(f"the image has more than {MOST_EXIF} EXIF blocks: save it without them")


def _bytes_of(given: Array) -> NDArray[np.uint8]:
    array = given
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] not in (3, 4):
        array = np.ascontiguousarray(array.transpose(1, 2, 0))
    if array.ndim in (2, 3) and array.shape[2:] in ((), (3,), (4,)) and array.size:
        if array.dtype == np.uint8:
            return array
        if array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:  # false if there is a NaN
            scaled: NDArray[np.uint8] = np.rint(array.astype(np.float64) * 255).astype(np.uint8)
            return scaled
    values = f", values from {given.min():g} to {given.max():g}" if given.dtype.kind == "f" and given.size else ""
    raise InputError(
        f"an image array is {given.dtype} {given.shape}{values}, expected (height, width[, 3 or 4]) or "
        "(3, height, width) in uint8 or in floats from 0 to 1; tensors that are already prepared go to predict_logits"
    )
