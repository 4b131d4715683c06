"""ImageNet's validation labels in each of their forms, and ReaL labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data_kinds import write_tar
from scipy.io import savemat

import evodeploy.datasets.labels
from evodeploy.datasets.labelled import labelled_images
from evodeploy.errors import BadFileError, UsageError
from evodeploy.models.class_names import imagenet_names, imagenet_wnids
from evodeploy.specs import ModelInfo

INFO = ModelInfo("fake", 8, 4, 1000, "stage", (0.5,), class_names=imagenet_names())
NUMBERS = (1, 293, 4)  # of three validation images
CLASSES = {"0001": 65, "0293": 0, "0004": 809}
WNIDS = imagenet_wnids()
# The devkit has an order of its own; here it is the reverse of the usual one.
DEVKIT = {number: WNIDS[1000 - number] for number in range(1, 1001)}
TO_DEVKIT = {wnid: number for number, wnid in DEVKIT.items()}


def name(number):
    return f"ILSVRC2012_val_{number:08}.JPEG"


@pytest.fixture
def val(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evodeploy.datasets.labels, "VALIDATION", 300)
    (tmp_path / "val").mkdir()
    for number in NUMBERS:
        (tmp_path / "val" / name(number)).touch()
    return tmp_path / "val"


def by_number(label):
    """A line for each of 300 images, of which three are here."""
    shown = dict(zip(NUMBERS, CLASSES.values(), strict=True))
    return "".join(f"{label(shown.get(number, 7))}\n" for number in range(1, 301))


def lines(text):
    return "".join(text(number, label) for number, label in zip(NUMBERS, CLASSES.values(), strict=True))


FORMS = {
    "devkit": by_number(lambda label: TO_DEVKIT[WNIDS[label]]),
    "wnids": by_number(lambda label: WNIDS[label]),
    "val.txt": lines(lambda number, label: f"{name(number)} {label}\n"),
    "names": lines(lambda number, label: f"{name(number)}\t{WNIDS[label]}\n"),
    "kaggle": "ImageId,PredictionString\n"
    + lines(lambda number, label: f"{name(number)[:-5]},{WNIDS[label]} 1 2 3 4 {WNIDS[label]} 5 6 7 8 \n"),
    "csv": "path,label\n" + lines(lambda number, label: f'{name(number)},"{imagenet_names()[label]}"\n'),
}


@pytest.mark.parametrize(
    ("form", "companion"),
    [*((form, None) for form in FORMS if form != "devkit"), ("devkit", "meta.mat"), ("devkit", "map_clsloc.txt")],
)
def test_each_form_gives_the_same_labels(val, form, companion):
    if companion:
        write_companion(companion)
    found = labelled_images(val, INFO, labels=written(FORMS[form]))
    assert {image.name[-9:-5]: image.classes for image in found.images} == {key: (c,) for key, c in CLASSES.items()}
    assert {image.image for image in found.images} == {val / name(number) for number in NUMBERS}


def written(text, file="labels.txt"):
    Path(file).write_text(text)
    return Path(file)


def write_companion(file):
    if file == "map_clsloc.txt":
        written("".join(f"{wnid} {number} some_name\n" for number, wnid in DEVKIT.items()), file)
        return
    rows = [(number, wnid, "words", "gloss", 0) for number, wnid in DEVKIT.items()]
    rows.append((1001, "n00001740", "entity", "gloss", 40))  # a class of classes
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    synsets = np.empty((len(rows), 1), kinds)
    for row, values in enumerate(rows):
        synsets[row, 0] = values
    savemat(file, {"synsets": synsets})


@pytest.mark.parametrize(
    ("text", "companion", "error", "sentence"),
    [
        (FORMS["devkit"], None, UsageError, "the devkit's class numbers, .* not the model's: put meta.mat"),
        (FORMS["devkit"], "few", BadFileError, "does not name ImageNet's 1000 classes once each"),
        (FORMS["devkit"], "odd", BadFileError, "is not the devkit's map_clsloc.txt: expected lines such as n02119789"),
        (FORMS["devkit"], "no.mat", BadFileError, "is not the devkit's meta.mat"),
        ("0\n" * 300, "good", BadFileError, "line 1: map_clsloc.txt lists no class 0, expected 1 to 1000"),
        ("n00000001\n" * 300, None, BadFileError, "line 1: '.*' has the label 'n00000001', expected a class name"),
        ("some words that are no label of any image\nb\n", None, BadFileError, "is not a file of labels"),
        ("a.png 1\n\n./x/../a.png 2\n", None, BadFileError, "line 3: 'a.png' has a label already, in line 1"),
        ("path,label\n\na.png,x\n", None, BadFileError, "line 3: 'a.png' has the label 'x', expected"),
        ("n01440764\n" * 299, None, BadFileError, "has 299 labels without names, expected 300: one for each"),
        (
            "ImageId,PredictionString\nx,n01440764\n",
            None,
            UsageError,
            "has no label for any image of .*val, such as",
        ),
        ("\0", None, BadFileError, "is not a file of labels"),
    ],
)
def test_labels_that_cannot_be_mapped_are_refused(val, text, companion, error, sentence):
    table = {
        "few": "n02119789 1 kit_fox\n",
        "odd": "1 n02119789\n",
        "good": "".join(f"{wnid} {number} x\n" for number, wnid in DEVKIT.items()),
    }
    if companion == "no.mat":
        written("MATLAB", "meta.mat")
    elif companion:
        written(table[companion], "map_clsloc.txt")
    with pytest.raises(error, match=sentence):
        labelled_images(val, INFO, labels=written(text))


def real(**labels):
    lists = [[] for _ in range(300)]
    for number, classes in labels.items():
        lists[int(number[1:]) - 1] = classes
    return written(json.dumps(lists), "real.json")


def test_real_labels_are_several_or_none_by_the_number_of_the_image(val, tmp_path):
    found = labelled_images(val, INFO, real_labels=real(n1=[65, 7], n4=[809]))
    assert {image.name: image.classes for image in found.images} == {name(1): (65, 7), name(4): (809,)}
    assert found.note == "ReaL labels: an image is right with any of its classes; 1 have none"
    path = write_tar(tmp_path / "a.tar", {f"n01440764/{name(1)}": b"", f"{name(293)[:-5]}_n01440764.jpg": b""})
    found = labelled_images(path, INFO, real_labels=real(n293=[0]))
    assert [(image.name, image.classes) for image in found.images] == [
        ("a.tar/ILSVRC2012_val_00000293_n01440764.jpg", (0,))
    ]


@pytest.mark.parametrize(
    ("labels", "info", "error", "sentence"),
    [
        (
            "[[1], [1000]]",
            INFO,
            BadFileError,
            "holds no ReaL labels: .* is 1000, expected a whole number from 0 to 999",
        ),
        ("{}", INFO, BadFileError, "holds no ReaL labels: a list is an object of 0"),
        ("[[1]]", INFO, BadFileError, "has labels of 1 images, expected 300"),
        (
            "[[1]]",
            ModelInfo("fake", 8, 4, 10, "stage", (0.5,)),
            UsageError,
            "for ImageNet's 1000 classes, and fake has others",
        ),
        (json.dumps([[]] * 300), INFO, UsageError, "there is nothing to evaluate"),
    ],
)
def test_real_labels_of_other_images_or_classes_are_refused(val, labels, info, error, sentence):
    with pytest.raises(error, match=sentence):
        labelled_images(val, info, real_labels=written(labels, "real.json"))


def test_an_image_that_is_there_twice_does_not_count_twice(val):
    (val / "copy").mkdir()
    (val / "copy" / name(4)).touch()
    for labels in ({"labels": written(FORMS["wnids"])}, {"real_labels": real(n1=[1])}):
        with pytest.raises(UsageError, match=f"'{name(4)}' and 'copy/{name(4)}' of .*val are both image 4: leave one"):
            labelled_images(val, INFO, **labels)


def test_images_without_a_label_and_labels_without_an_image_are_left_out_aloud(val, logged):
    labels = written("".join(f"{name(number)} 1\n" for number in (1, 5, 6)))
    found = labelled_images(val, INFO, labels=labels)  # in a folder a missing image is one that cannot be read
    assert (len(found.images), [*logged]) == (3, [f"2 images of {val} have no label in labels.txt"])
    found = labelled_images(Path("val/*"), INFO, labels=labels)
    assert [image.name for image in found.images] == [name(1)]
    assert [*logged][1:] == [
        "2 images of val/* have no label in labels.txt",
        "2 labels in labels.txt match no image of val/*",
    ]


def test_an_image_of_another_name_has_no_real_labels(val):
    (val / "x.png").touch()
    with pytest.raises(UsageError, match=r"'x\.png' is not one of the 300 images that real\.json labels"):
        labelled_images(val, INFO, real_labels=real(n1=[1]))
