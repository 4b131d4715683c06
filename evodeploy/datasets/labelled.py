"""Images labelled with the model's classes, from any data source."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evodeploy.datasets.classes import Classes, Matching, has_imagenet_classes, matched
from evodeploy.datasets.examples import Dataset, Example, size_of, spread
from evodeploy.datasets.labels import Labels, number_of, read_labels, read_real_labels
from evodeploy.datasets.sources import dataset_of
from evodeploy.errors import BadFileError, UsageError
from evodeploy.images import StoredImage
from evodeploy.specs import ModelInfo
from evodeploy.text import brief

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image, its name in the data source, and the model's classes in it: one, or several with ReaL labels."""

    name: str
    image: Path | StoredImage
    classes: tuple[int, ...]


@dataclass(frozen=True)
class LabelledImages:
    """Labelled images in a fixed order. `mapping` describes how their labels became the model's classes.

    `note` describes anything unusual about their labels.
    """

    images: tuple[Labelled, ...]
    mapping: str
    note: str = ""

    def checksum(self) -> str:
        """Return the SHA-256 of names, sizes and labels: the same for the same task, wherever its folder is."""
        listing = json.dumps([(image.name, size_of(image.image), image.classes) for image in self.images])
        return hashlib.sha256(listing.encode()).hexdigest()

    def limited(self, count: int | None) -> LabelledImages:
        """Return `count` of the images, evenly spread over the list, so that every class has its share."""
        return dataclasses.replace(self, images=tuple(spread(self.images, count)))


def labelled_images(
    data: Path,
    info: ModelInfo,
    *,
    labels: Path | None = None,
    class_map: Path | None = None,
    real_labels: Path | None = None,
) -> LabelledImages:
    """Return the images of a data source with the model's classes, see `dataset_of` and `matched`.

    Labels are the data's own, or those in the file `labels`, see `read_labels`. With `real_labels` they are the ReaL
    labels of ImageNet's validation images, and images that have none are left out. Raises UsageError if labels and
    classes cannot be matched, BadFileError if a file is invalid.
    """
    if not info.num_classes:
        raise UsageError(f"{info.model} has no classifier: it gives features, whose accuracy cannot be measured")
    if real_labels is not None:
        if labels is not None or class_map is not None:
            raise UsageError("--real-labels gives the labels already: leave out --labels and --class-map")
        return _with_real_labels(dataset_of(data), real_labels, info)
    if labels is not None:
        entries = read_labels(labels)
        return _with_labels(dataset_of(data), entries, info, class_map, data)
    dataset = dataset_of(data)
    found = matching_of(dataset, info, class_map)
    images = [
        Labelled(example.name, example.image, (found.numbers[example.label],))
        for example in dataset.examples
        if example.label is not None
    ]
    if left := len(dataset.examples) - len(images):
        _log.warning(f"{left} images of {dataset.title} have no label, and are left out")
    return LabelledImages(tuple(images), found.words)


def matching_of(dataset: Dataset, info: ModelInfo, class_map: Path | None = None) -> Matching:
    """Return the model's class of each label in `dataset`. Raises what `matched` raises; UsageError without labels."""
    given = {example.label for example in dataset.examples if example.label is not None}
    if not given:
        raise UsageError(
            f"{dataset.title} has {len(dataset.examples)} images, none with a label: expected a folder for each class, "
            "or labels"
        )
    folders = all(isinstance(example.image, Path) for example in dataset.examples[:1])
    return matched(dataset.title, given, dataset.classes, info, class_map, folders)


def _with_labels(
    dataset: Dataset, labels: Labels, info: ModelInfo, class_map: Path | None, folder: Path
) -> LabelledImages:
    keyed = _keyed(dataset, labels.key_of)
    found = [(example, labels.by_key.get(key or "")) for key, example in keyed.items()]
    pairs = [(example, entry) for example, entry in found if entry is not None]
    if left := len(dataset.examples) - len(pairs):
        _log.warning(f"{left} images of {dataset.title} have no label in {labels.file}")
    if labels.paths and folder.is_dir() and isinstance(dataset.examples[0].image, Path):  # missing ones are broken
        pairs = [(Example(name, folder / name), entry) for name, entry in labels.by_key.items()]
    elif labels.paths and (unused := len(labels.by_key) - len(pairs)):
        _log.warning(f"{unused} labels in {labels.file} match no image of {dataset.title}")
    if not pairs:
        first = brief(dataset.examples[0].name, 100)
        raise UsageError(f"{labels.file} has no label for any image of {dataset.title}, such as '{first}'")
    classes, words = Classes(info), f"labels taken from {labels.file}"
    given = {entry.label for _, entry in pairs}
    if class_map is not None:
        mapping = matched(str(labels.file), given, (), info, class_map)
        numbers, words = mapping.numbers, f"{words}, {mapping.words}"
    else:
        numbers = {label: number for label in given if (number := classes.number(label)) is not None}
    for example, entry in pairs:
        if entry.label not in numbers:
            raise BadFileError(
                f"{labels.file}, line {entry.line}: '{brief(example.name, 100)}' has the label "
                f"'{brief(entry.label, 60)}', expected {classes.expected}"
            )
    return LabelledImages(
        tuple(Labelled(example.name, example.image, (numbers[entry.label],)) for example, entry in pairs), words
    )


def _keyed(dataset: Dataset, key_of: Callable[[str], str | None]) -> dict[str | None, Example]:
    """Return the images by their keys in files of labels, or None. Raises UsageError if two have the same key."""
    keyed: dict[str | None, Example] = {}
    for example in dataset.examples:
        key = key_of(example.name)
        if keyed.setdefault(key, example) is not example and key is not None:
            first, second = (brief(each.name, 100) for each in (keyed[key], example))
            raise UsageError(f"'{first}' and '{second}' of {dataset.title} are both image {key}: leave one of them out")
    return keyed


def _with_real_labels(dataset: Dataset, file: Path, info: ModelInfo) -> LabelledImages:
    if not has_imagenet_classes(info):
        raise UsageError(f"ReaL labels are for ImageNet's 1000 classes, and {info.model} has others: leave them out")
    known = read_real_labels(file)
    images = []
    for number, example in _keyed(dataset, number_of).items():
        if number is None or not 1 <= int(number) <= len(known):
            raise UsageError(
                f"'{brief(example.name, 100)}' is not one of the {len(known)} images that {file} labels: "
                "expected names such as ILSVRC2012_val_00000293.JPEG"
            )
        if shown := known[int(number) - 1]:
            images.append(Labelled(example.name, example.image, shown))
    if not images:
        raise UsageError(f"{file} has no label for any image of {dataset.title}: there is nothing to evaluate")
    note = f"ReaL labels: an image is right with any of its classes; {len(dataset.examples) - len(images)} have none"
    return LabelledImages(tuple(images), f"labels taken from {file}", note)
