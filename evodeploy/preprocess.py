"""Images to the tensors that a model was trained on: the evaluation transform of the published training code."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from evodeploy.errors import BadFileError, InputError, UsageError
from evodeploy.specs import ModelInfo, Preprocessing

ImageLike = Image.Image | Path | str | NDArray[np.uint8]

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def prepare(image: Image.Image, size: int, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """`image` as a float32 (3, size, size) tensor.

    The shorter side is resized with Pillow (bicubic), the centre cropped, RGB scaled to [0, 1] and normalised.
    """
    image = ImageOps.exif_transpose(image).convert("RGB")
    short = preprocessing.resized(size)
    width, height = image.size
    scale_to = (short, max(1, int(short * height / width))) if width <= height else (int(short * width / height), short)
    image = image.resize(scale_to, _FILTERS[preprocessing.interpolation])
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), dtype=np.float32) / 255
    mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)
    return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1))


def prepared_folder(folder: Path, info: ModelInfo) -> NDArray[np.float32]:
    """Every image below `folder`, in the order of their paths, prepared for a model: float32 (N, 3, size, size).

    Raises UsageError where there is none, BadFileError for one that cannot be read.
    """
    return prepared(image_paths(folder), info)


def prepared(images: Iterable[ImageLike], info: ModelInfo) -> NDArray[np.float32]:
    """`images`, at least one, prepared for a model: float32 (N, 3, size, size); raises as `open_image` does."""
    return np.stack([prepare(open_image(image), info.image_size, info.preprocessing) for image in images])


def image_paths(folder: Path) -> list[Path]:
    """Every image below `folder`, sorted; raises UsageError where there is none."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise UsageError(f"{folder} holds no images: expected {', '.join(sorted(IMAGE_SUFFIXES))}")
    return paths


def open_image(source: ImageLike) -> Image.Image:
    """A Pillow image from a path, a Pillow image, or a uint8 array (H, W) or (H, W, 3).

    Raises UsageError for a missing file, BadFileError for one that is no readable image, InputError for other arrays.
    """
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim not in (2, 3) or (source.ndim == 3 and source.shape[2] != 3):
            raise InputError(
                f"an image array is {source.dtype} {source.shape}, expected uint8 (height, width[, 3]); "
                "tensors that are already prepared go to predict_logits"
            )
        return Image.fromarray(source)
    try:
        with Image.open(source) as image:
            image.load()
            opened: Image.Image = image
            return opened
    except FileNotFoundError as error:
        raise UsageError(f"{source} does not exist (expected an image)") from error
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadFileError(f"{source} is not a readable image: {error}") from error
