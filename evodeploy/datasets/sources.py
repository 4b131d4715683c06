"""Any data source as a list of images: a folder, a glob, tars, Parquet files, or a data set saved by Hugging Face."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from evodeploy.arrays import DLPack, as_array
from evodeploy.datasets.examples import Dataset, Example
from evodeploy.datasets.hugging_face import saved_dataset, saved_place
from evodeploy.datasets.parquet import IMAGE, Tables, parquet_examples
from evodeploy.datasets.places import CONTAINERS, common_folder, files_of
from evodeploy.datasets.tars import tar_examples
from evodeploy.errors import InputError, UsageError
from evodeploy.files import inside
from evodeploy.images import ImageLike, Images, StoredImage
from evodeploy.kinds import suffix_of
from evodeploy.text import brief

_log = logging.getLogger(__name__)


def dataset_of(source: str | os.PathLike[str]) -> Dataset:
    """List `source`: a folder, a glob or braces of images, webdataset tars or Parquet files, or a saved data set.

    A split of a saved data set is named like a file in it, `data/train`. If there are image files, tars and Parquet
    files are left out; if there are tars, Parquet files are. In a folder of images, the folder at the first level is
    the label of an image. Raises UsageError if there are no images, BadFileError for a damaged file, MissingExtraError
    if a library is missing.
    """
    given = os.fspath(source)
    try:
        dataset = _listed(given, Path(given))
    except OSError as error:
        raise UsageError(f"cannot read {brief(given)}: {error.strerror or error}") from error
    if not dataset.examples:
        raise UsageError(f"{dataset.title} holds no images: its tables have no rows")
    return dataset


def _listed(given: str, path: Path) -> Dataset:
    if saved := saved_place(path):
        return saved_dataset(*saved)
    files = {*files_of(given)}
    if not path.is_dir() and (len({*map(os.path.isabs, files)}) > 1 or any("/../" in f"/{file}" for file in files)):
        files = {os.path.abspath(file) for file in files}  # noqa: PTH100 - one form of each path, to compare them
    kinds: dict[str, list[str]] = {}
    for file in sorted(files, key=lambda file: file.replace("/", "\0")):  # the order of sorted paths: by their parts
        kind = suffix_of(file)
        kinds.setdefault(kind if kind in CONTAINERS else "", []).append(file)
    kind, chosen = next((kind, kinds[kind]) for kind in ("", *CONTAINERS) if kind in kinds)
    if left := len(files) - len(chosen):
        what = "images" if not kind else f"{kind} files"
        _log.warning(f"{left} files of {brief(given)} are left out, because it has {what}: name one kind")
    root = path if path.is_dir() else common_folder(chosen)
    return _dataset(brief(given), chosen, root, kind, path.is_dir())


def _dataset(title: str, files: list[str], root: Path, kind: str, is_folder: bool) -> Dataset:
    examples: list[Example] = []
    stated: list[tuple[str, ...]] = []
    if not kind:
        start = len(inside(root))
        for file in files:
            name = file[start:]
            folder, within, _ = name.partition("/")
            examples.append(Example(name, Path(file), sys.intern(folder) if within else None))
        if is_folder:  # also those without images, since they have their place in the order
            stated = [tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir()))]
    elif kind == ".tar":
        for file in files:
            examples += tar_examples(Path(file), root)
    else:
        tables = Tables(IMAGE)
        for file in files:
            found, classes = parquet_examples(Path(file), root, tables)
            examples += found
            stated.append(classes)
    if len({*stated}) > 1:
        raise UsageError(f"the files of {title} state different classes: name those of one data set")
    names = {example.label for example in examples if isinstance(example.label, str)}
    return Dataset(title, tuple(examples), stated[0] if stated and stated[0] else tuple(sorted(names)))


def images_of(images: Images) -> list[ImageLike]:
    """Return `images` one by one: each image of a data source, or the N images of an array or a tensor (N, …).

    Arrays of N images have four axes. Raises UsageError if there are none or a path does not exist, the errors of
    `dataset_of`, and InputError if something is not an image.
    """
    found = list(_each(images))
    if not found:
        raise UsageError("there are no images: expected one or more")
    return found


def _each(images: Images) -> Iterator[ImageLike]:
    if isinstance(images, (str, os.PathLike)):
        path = Path(images)
        if path.exists() and not path.is_dir() and suffix_of(path) not in (*CONTAINERS, ".txt"):
            yield path  # with any name: the content decides whether it is an image
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
            f"images are of type {type(images).__name__}, expected a path, bytes, a Pillow image, an array, or several"
        )
