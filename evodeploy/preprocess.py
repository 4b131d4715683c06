"""Preparation of images for a model: the evaluation transform of the published training code."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evodeploy.arrays import Array
from evodeploy.errors import BadFileError, EvodeployError, UsageError
from evodeploy.images import UPLOADED, ImageLike, check_exif, check_scans, check_sides, open_image
from evodeploy.resampling import rows, taps
from evodeploy.specs import Interpolation, ModelInfo, Preprocessing
from evodeploy.tiff import check_tags

_FILTERS: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


_LONG = 100  # above this ratio of the sides, only the part that is kept is resized
HELD = 2 << 30  # bytes of images in memory; as float32 they take four times as much
_AT_ONCE = 1 << 20  # pixels that are converted in one step
_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {  # by the value of the tag
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def prepare(image: Image.Image, info: ModelInfo) -> Array:
    """Return `image` in the form that the model takes, without the batch axis."""
    prepared: Array = as_input(cropped(image, info.image_size, info.preprocessing)[None], info)[0]
    return prepared


def prepare_upload(body: bytes, info: ModelInfo, pixels: int) -> Array:
    """Return an uploaded image file, the bytes `body`, in the form that the model takes, without the batch axis.

    Its size is checked before it is decoded. Raises BadFileError if it has more than `pixels` pixels, if decoding it
    would take much more time or memory than that, or if it is not an image in one of the formats `UPLOADED`.
    """
    try:
        check_exif(body)
        check_tags(body, pixels)
        with Image.open(io.BytesIO(body), formats=UPLOADED) as image:
            size = image.width * image.height
            if size > pixels:
                raise BadFileError(f"the image has {size} pixels, expected {pixels} at most")
            check_scans(body)
            image.load()
        return prepare(image, info)
    except EvodeployError:
        raise
    except Exception as error:  # decoders raise errors of any type for bytes that are not an image
        raise BadFileError(f"the body is not a readable image of {', '.join(UPLOADED)}") from error


def cropped(image: Image.Image, size: int, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return what a model sees of `image`: upright RGB, resized with Pillow, cropped to the centre: (size, size, 3).

    Raises BadFileError if one side is too long for the other, or if the range of its grey levels is not known.
    """
    check_sides(image.size)
    image = _upright(image)
    scaled = _resized(image.size, size, preprocessing)
    left, top = (preprocessing.offset(side, size) for side in scaled)
    if max(scaled) > _LONG * min(scaled):
        return _centre(image, scaled, (left, top), size, preprocessing)
    resized = _rgb(image).resize(scaled, _FILTERS[preprocessing.interpolation])
    kept: NDArray[np.uint8] = np.asarray(resized.crop((left, top, left + size, top + size)))
    return kept


def _centre(
    image: Image.Image, scaled: tuple[int, int], corner: tuple[int, int], size: int, preprocessing: Preprocessing
) -> NDArray[np.uint8]:
    """Return the square of `size` pixels at `corner` of `image` resized to `scaled`, without computing the rest."""
    across, down = (
        taps(side, to, first, size, preprocessing.interpolation)
        for side, to, first in zip(image.size, scaled, corner, strict=True)
    )
    pixels = np.asarray(_rgb(image.crop((across.start, down.start, across.end, down.end))))
    if image.height > image.width and scaled[1] < image.height:  # in this case Pillow begins with the rows
        return _turned(rows(_turned(rows(pixels, down)), across))
    return rows(_turned(rows(_turned(pixels), across)), down)


def _turned(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Swap rows and columns."""
    turned: NDArray[np.uint8] = pixels.swapaxes(0, 1)
    return turned


def _upright(image: Image.Image) -> Image.Image:
    """Return `image` turned as its EXIF data says, or the same object if it needs no turn or the data is unreadable."""
    image.load()
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # for damaged EXIF Pillow raises SyntaxError, ValueError and others; the pixels are intact
        return image
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    """Return `image` in RGB, or the same object if it is RGB already."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _resized(sides: tuple[int, int], size: int, preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the width and height before the crop of an image of `sides`."""
    short, (width, height) = preprocessing.resized(size), sides
    if preprocessing.crop_mode == "squash":
        return short, short
    return (short, int(short * height / width)) if width <= height else (int(short * width / height), short)


def as_input(pictures: NDArray[np.uint8], info: ModelInfo) -> Array:
    """Return the result of `cropped` for N images, (N, size, size, 3), in the form that the model takes.

    That is normalised float32 (N, 3, size, size), or bytes if the model's graph normalises them itself.
    """
    if info.input_format == "uint8":
        return pictures
    if info.input_format == "uint8-nchw":
        return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
    return normalised(pictures, info.preprocessing)


def normalised(pictures: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Convert bytes (N, size, size, 3) to float32 (N, 3, size, size): scale to [0, 1], normalise by mean and std."""
    mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)
    return np.ascontiguousarray(((pictures.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2))


def in_words(info: ModelInfo) -> str:
    """Describe what happens to an image before it is normalised."""
    how, size = info.preprocessing, info.image_size
    side = how.resized(size)
    sides = "both sides" if how.crop_mode == "squash" else "the shorter side"
    crop = "" if how.crop_mode == "squash" and side == size else f", the centre {size} x {size} cropped"
    return f"{sides} resized to {side} ({how.interpolation}){crop}"


def assumption(info: ModelInfo) -> str | None:
    """Return a warning about preprocessing fields that no source states, with the options that set them, or None."""
    assumed = info.preprocessing.assumed
    if not assumed:
        return None
    options = ", ".join(f"--{name.replace('_', '-')}" for name in assumed)
    return (
        f"{', '.join(assumed)}: no source states how images were prepared in training, so ImageNet's usual values are "
        f"assumed; wrong ones cost accuracy that no comparison shows: state them with {options} of `evodeploy export`"
    )


def difference(first: ModelInfo, second: ModelInfo) -> str | None:
    """Return the fields in which two models prepare images differently, with both values, or None if they agree.

    Values of `crop_pct` and `rounding` that give the same pixels at the models' image sizes agree.
    """
    ours, theirs, sizes = first.preprocessing, second.preprocessing, {first.image_size, second.image_size}
    ignored = {"assumed"}
    if all(ours.resized(size) == theirs.resized(size) for size in sizes):
        ignored.add("crop_pct")
        if all(_offsets(ours, size) == _offsets(theirs, size) for size in sizes):
            ignored.add("rounding")
    pairs = {
        each.name: (getattr(ours, each.name), getattr(theirs, each.name))
        for each in dataclasses.fields(ours)
        if each.name not in ignored
    }
    return ", ".join(f"{name} {_shown(a)} and {_shown(b)}" for name, (a, b) in pairs.items() if a != b) or None


def _offsets(preprocessing: Preprocessing, size: int) -> list[int]:
    """Return where the crop begins, on the resized side and, if the aspect ratio is kept, on slightly longer sides."""
    short = preprocessing.resized(size)
    longest = short if preprocessing.crop_mode == "squash" else short + 3  # halves round alike every four pixels
    return [preprocessing.offset(side, size) for side in range(short, longest + 1)]


def _shown(value: object) -> str:
    return f"({', '.join(f'{number:g}' for number in value)})" if isinstance(value, tuple) else f"{value}"


def pictures(images: Sequence[ImageLike], info: ModelInfo) -> NDArray[np.uint8]:
    """Return what a model sees of `images`, all held in memory: (N, size, size, 3).

    Raises the same errors as `open_image`, and UsageError if there are more images than memory should hold.
    """
    shape = (info.image_size, info.image_size, 3)
    most = HELD // math.prod(shape)
    if len(images) > most:
        raise UsageError(
            f"there are {len(images)} images, expected {most} at most of this size, because all are held at once"
        )
    seen = np.empty((len(images), *shape), np.uint8)
    for index, image in enumerate(images):
        seen[index] = cropped(open_image(image), info.image_size, info.preprocessing)
    return seen


def random_pictures(info: ModelInfo, count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return noise in place of `count` images: (count, size, size, 3), the same for the same seed."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return generator.integers(0, 256, (count, info.image_size, info.image_size, 3), np.uint8)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Convert grey levels of 16 bits or floats to 8 bits: Pillow's own conversion clips everything above 255 to white.

    Levels from 0 to 65535 are divided by 257, floats from 0 to 1 multiplied by 255, and rounded; others are refused.
    """
    most, factor = (1.0, 255.0) if image.mode == "F" else (65535.0, 1 / 257)
    levels = np.empty((image.height, image.width), np.uint8)
    step = max(1, _AT_ONCE // image.width)
    for top in range(0, image.height, step):
        band = image.crop((0, top, image.width, min(top + step, image.height)))
        values = np.asarray(band, np.float64)
        if not (values.min() >= 0 and values.max() <= most):  # also true if there is a NaN
            raise BadFileError(
                f"the image has grey levels from {values.min():g} to {values.max():g}, expected 0 to {most:g} in "
                f"Pillow's mode '{image.mode}': save it with 8 bits"
            )
        levels[top : top + step] = np.rint(values * factor)
    return Image.fromarray(levels)
