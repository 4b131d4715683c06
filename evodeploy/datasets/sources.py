"""Any data source as a list of images: a folder, a glob, tars, Parquet files, or what Hugging Face's library saved."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from evodeploy.arrays import DLPack, as_array
from evodeploy.datasets.examples import Dataset, Example
from evodeploy.datasets.hugging_face import is_saved, saved_dataset
from evodeploy.datasets.parquet import IMAGE, Tables, parquet_examples
from evodeploy.datasets.places import CONTAINERS, common_folder, files_of
from evodeploy.datasets.tars import tar_examples
from evodeploy.errors import InputError, UsageError
from evodeploy.images import ImageLike, Images, StoredImage
from evodeploy.kinds import suffix_of
from evodeploy.text import brief


def dataset_of(source: str | os.PathLike[str], split: str | None = None) -> Dataset:
    """List `source`: a folder, a glob or braces of images, webdataset tars or Parquet files, or a saved data set.

    Where there are image files, tars and Parquet files are left out, and tars come before Parquet. Below a folder of
    images the folder of the first level is an image's label. `split` is of a saved data set. Raises UsageError for
    what holds no images, BadFileError for a damaged file, MissingExtraError where a library is missing.
    """
    given = os.fspath(source)
    path = Path(given)
    if is_saved(path):
        return saved_dataset(path, split)
    if split is not None:
        raise UsageError(
            f"{brief(given)} has no splits, for it was not saved by `datasets`: leave out --split, or name the files "
            f"of one, such as 'data/{brief(split, 60)}-*.parquet'"
        )
    files = sorted({*map(Path, files_of(given))})
    for suffix in (None, *CONTAINERS):
        chosen = [file for file in files if _is(file, suffix)]
        if chosen:
            root = path if path.is_dir() else common_folder(chosen)
            return _dataset(brief(given), chosen, root, suffix, path.is_dir())
    raise UsageError(f"{brief(given)} holds no images")


def _is(file: Path, suffix: str | None) -> bool:
    return suffix_of(file) == suffix if suffix else suffix_of(file) not in CONTAINERS


def _dataset(title: str, files: list[Path], root: Path, suffix: str | None, is_folder: bool) -> Dataset:
    examples: list[Example] = []
    stated: list[tuple[str, ...]] = []
    if suffix is None:
        parts = [file.relative_to(root).parts for file in files]
        examples = [
            Example("/".join(part), file, part[0] if len(part) > 1 else None)
            for file, part in zip(files, parts, strict=True)
        ]
        if is_folder:  # also those without images, for they have their place in the order
            stated = [tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir()))]
    elif suffix == ".tar":
        for file in files:
            examples += tar_examples(file, root)
    else:
        tables = Tables(IMAGE)
        for file in files:
            found, classes = parquet_examples(file, root, tables)
            examples += found
            stated.append(classes)
    if len({*stated}) > 1:
        raise UsageError(f"the files of {title} state different classes: name those of one data set")
    names = {example.label for example in examples if isinstance(example.label, str)}
    return Dataset(title, tuple(examples), stated[0] if stated and stated[0] else tuple(sorted(names)))


def images_of(images: Images) -> list[ImageLike]:
    """`images` one by one: of a data source each image in it, of an array or a tensor (N, …) with four axes its N.

    Raises UsageError where there is none, for a path that does not exist, and as `dataset_of` does; InputError for
    what is not an image.
    """
    found = list(_each(images))
    if not found:
        raise UsageError("there are no images: expected one or more")
    return found


def _each(images: Images) -> Iterator[ImageLike]:
    if isinstance(images, (str, os.PathLike)):
        path = Path(images)
        if path.exists() and not path.is_dir() and suffix_of(path) not in (*CONTAINERS, ".txt"):
            yield path  # whatever it is called: an image is known by what it holds
        else:
            yield from (example.image for example in dataset_of(path).examples)
    elif isinstance(images, (Image.Image, bytes, StoredImage)):
        yield images
    elif isinstance(images, (np.ndarray, DLPack)):
        array = as_array(images)
        yield from array if array.ndim == 4 else [array]
    elif isinstance(images, Iterable):
        for each in images:
            yield from _each(each)
    else:
        raise InputError(
            f"images are a {type(images).__name__}, expected a path, bytes, a Pillow image, an array, or several"
        )
