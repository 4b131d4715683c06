from __future__ import annotations

import dataclasses
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evodeploy.datasets.labelled import labelled_images
from evodeploy.errors import BadFileError, UsageError
from evodeploy.models.class_names import imagenet_names, imagenet_wnids
from evodeploy.specs import ModelInfo

INFO = ModelInfo("fake", 8, 4, 3, "stage", (0.5,), class_names=("cat", "ant", "bee"))
NAMELESS = ModelInfo("fake", 8, 4, 3, "stage", (0.5,))


def tree(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def labels(images):
    return {image.name: image.classes[0] for image in images.images}


def test_class_folders_go_by_the_models_names(tmp_path):
    data = labelled_images(tree(tmp_path, "ant/1.png", "bee/deep/2.jpg", "bee/notes.txt", "loose.png"), INFO)
    assert labels(data) == {"ant/1.png": 1, "bee/deep/2.jpg": 2}
    assert data.images[0].image == tmp_path / "ant/1.png"
    assert "by the model's class names" in data.mapping


def test_the_order_of_folders_that_are_numbers_is_the_sorted_one_and_shown(tmp_path):
    """As torchvision's ImageFolder has it: 10 comes before 2."""
    data = labelled_images(
        tree(tmp_path, *(f"{i}/a.png" for i in range(11))), dataclasses.replace(NAMELESS, num_classes=11)
    )
    assert labels(data)["10/a.png"] == 2
    assert data.mapping == "class folders taken in sorted order: 0 is class 0, 10 is class 2"


@pytest.mark.parametrize("info", [INFO, NAMELESS])
def test_as_many_folders_as_classes_go_by_their_order(tmp_path, info):
    data = labelled_images(tree(tmp_path, "n02/a.png", "n01/b.png", "n10/c.png"), info)
    assert labels(data) == {"n01/b.png": 0, "n02/a.png": 1, "n10/c.png": 2}
    assert f"n01 is {info.label(0)}" in data.mapping


def test_folders_that_fit_neither_way_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"has 2 class folders \(ant, dog\), which are neither all class names"):
        labelled_images(tree(tmp_path, "ant/1.png", "dog/1.png"), INFO)
    with pytest.raises(UsageError, match="none does not exist"):
        labelled_images(tmp_path / "none", INFO)


def test_a_name_of_two_classes_says_neither(tmp_path):
    """ImageNet has two cranes, a bird and a machine, and some lists call both so."""
    info = dataclasses.replace(INFO, num_classes=4, class_names=("crane", "ant", "bee", "crane"))
    data = tree(tmp_path / "data", "ant/1.png", "crane/1.png")
    with pytest.raises(UsageError, match=r"has 2 class folders \(ant, crane\), which are neither all class names"):
        labelled_images(data, info)
    (tmp_path / "labels.csv").write_text("path,label\nant/1.png,ant\ncrane/1.png,crane\n")
    with pytest.raises(BadFileError, match="line 3: 'crane/1.png' has the label 'crane', expected a class name"):
        labelled_images(data, info, labels=tmp_path / "labels.csv")
    (tmp_path / "map.json").write_text('{"ant": "ant", "crane": 3}')
    assert labels(labelled_images(data, info, class_map=tmp_path / "map.json")) == {"ant/1.png": 1, "crane/1.png": 3}


def test_classes_without_images_are_refused(tmp_path):
    (tmp_path / "ant").mkdir()
    with pytest.raises(UsageError, match="holds no images"):
        labelled_images(tmp_path, INFO)
    tree(tmp_path, "loose.png")
    with pytest.raises(UsageError, match="has 1 images, none with a label"):
        labelled_images(tmp_path, INFO)


def test_a_table_names_classes_or_numbers_them(tmp_path):
    table = tree(tmp_path, "2.png") / "labels.csv"
    table.write_text("label,path\nbee,x/1.png\n0,2.png\n")
    assert labels(labelled_images(tmp_path, INFO, labels=table)) == {"x/1.png": 2, "2.png": 0}
    table.write_bytes(b"\xef\xbb\xbf" + b"path,label\n1.png,ant\n")  # as Excel writes UTF-8
    assert labels(labelled_images(tmp_path, INFO, labels=table)) == {"1.png": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n1.png,dog\n", "line 2: '1.png' has the label 'dog', expected a class name"),
        ("path,label\n1.png,ant\n2.png,3\n", "line 3: '2.png' has the label '3', .* from 0 to 2"),
        ("path,label\n1.png\n", "line 2: '1.png' has the label ''"),
        ("file,class\n1.png,ant\n", "is not a file of labels: expected a CSV table with the columns path,label"),
        ("", "is not a file of labels: expected a CSV table with the columns path,label"),
        ("path,label\n1.png," + "9" * 5000 + "\n", "line 2: '1.png' has the label '9{59}…', expected a class name"),
        ("path,label\n1.png,٣\n", "line 2: '1.png' has the label '٣', expected a class name"),
    ],
)
def test_tables_that_are_none_are_refused(tmp_path, text, message):
    (tree(tmp_path, "1.png") / "labels.csv").write_text(text)
    with pytest.raises(BadFileError, match=message):
        labelled_images(tmp_path, INFO, labels=tmp_path / "labels.csv")


def test_a_pipe_in_place_of_a_table_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(UsageError, match=r"labels\.csv is a pipe"):
        labelled_images(tmp_path, INFO, labels=tmp_path / "labels.csv")


def test_a_limit_takes_every_class(tmp_path):
    data = labelled_images(tree(tmp_path, *(f"{c}/{i:02}.png" for c in ("ant", "bee", "cat") for i in range(20))), INFO)
    few = data.limited(6)
    assert [image.name for image in few.images] == [
        "ant/00.png", "ant/10.png", "bee/00.png", "bee/10.png", "cat/00.png", "cat/10.png",
    ]  # fmt: skip
    assert data.limited(60) == data
    assert few.checksum() != data.checksum()


IMAGENET = ModelInfo("fake", 8, 4, 1000, "stage", (0.5,), class_names=imagenet_names())


@pytest.mark.parametrize(
    "names", [(), imagenet_names(), tuple(f"{name}, other" for name in imagenet_names()), imagenet_wnids()]
)
def test_some_of_imagenets_folders_are_classes_among_the_thousand(tmp_path, names):
    """Imagenette's, as an example, however the model calls its classes."""
    data = tree(tmp_path, "n03888257/a.png", "n01440764/b.png", "n02979186/c.png")
    found = labelled_images(data, dataclasses.replace(IMAGENET, class_names=names))
    assert labels(found) == {"n01440764/b.png": 0, "n02979186/c.png": 482, "n03888257/a.png": 701}


def test_folders_of_wordnet_ids_are_not_guessed_of_a_model_with_other_classes(tmp_path):
    other = dataclasses.replace(IMAGENET, class_names=tuple(f"kind {i}" for i in range(1000)))
    with pytest.raises(UsageError, match=r"has 1 class folders \(n01440764\), which are neither"):
        labelled_images(tree(tmp_path, "n01440764/a.png"), other)


@pytest.mark.parametrize(
    "text", ["name,class\nkatze,cat\nbiene,2\n", '{"katze": "cat", "biene": 2}', '{"katze": 0, "biene": "bee", "x": 1}']
)
def test_a_file_maps_classes_by_name_or_number(tmp_path, text):
    data = tree(tmp_path / "data", "katze/1.png", "biene/2.png", "loose.png")
    (tmp_path / "map").write_text(text)
    assert labels(labelled_images(data, INFO, class_map=tmp_path / "map")) == {"katze/1.png": 0, "biene/2.png": 2}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name,class\nkatze,cat\nbiene,bee\nkatze,ant\n", "it names 'katze' twice"),
        ('{"katze": 0, "biene": 2, "katze": 1}', "it names 'katze' twice"),
        ("name,class\nkatze,cat\n", "lacks the data's class 'biene', expected a class name of the model or a number"),
        ('{"katze": 3, "biene": 2}', "gives '3' for the data's class 'katze', expected a class name of the model or a"),
        ("biene,bee\n", "is not a mapping of classes: expected CSV with the columns name,class, or a JSON object"),
        ('{"katze": [1]}', "is not a mapping of classes: expected CSV"),
        ('{"katze": ', "is not a mapping of classes: .*: expected CSV"),
        ("[" * 10**5, "is not a mapping of classes"),
    ],
)
def test_a_file_that_does_not_map_the_classes_is_refused(tmp_path, text, sentence):
    data = tree(tmp_path / "data", "katze/1.png", "biene/2.png")
    (tmp_path / "map").write_text(text)
    with pytest.raises(BadFileError, match=sentence):
        labelled_images(data, INFO, class_map=tmp_path / "map")


def parquet(path, labels, **metadata):
    table = pa.table({"image": [b"x"] * len(labels), "label": labels})
    stated = {key: json.dumps(value) for key, value in metadata.items()}
    pq.write_table(table.replace_schema_metadata(stated), path)
    return path


def test_a_table_states_its_classes_as_hugging_faces_library_writes_them(tmp_path):
    names = {"info": {"features": {"label": {"names": ["bee", "ant", "cat"], "_type": "ClassLabel"}}}}
    path = parquet(tmp_path / "a.parquet", [0, 1, 2, -1], huggingface=names)
    assert list(labels(labelled_images(path, INFO)).values()) == [2, 1, 0]
    found = labelled_images(path, NAMELESS)
    assert (list(labels(found).values()), found.mapping) == ([0, 1, 2], "classes taken in their order: bee is class 0")


def test_the_number_that_means_no_label_needs_no_stated_classes(tmp_path, logged):
    assert list(labels(labelled_images(parquet(tmp_path / "a.parquet", [0, -1, 2]), INFO)).values()) == [0, 2]
    assert logged[-1].startswith("1 images of")


def test_a_number_that_the_stated_classes_lack_is_refused(tmp_path):
    names = {"info": {"features": {"label": {"names": ["bee", "ant"]}}}}
    with pytest.raises(BadFileError, match=r"a\.parquet has the label 2, but the file states 2 classes"):
        labelled_images(parquet(tmp_path / "a.parquet", [0, 1, 2], huggingface=names), INFO)


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ([0, 3], BadFileError, "has the label 3, expected a number from 0 to 2: the model has 3 classes"),
        (["ant", "dog"], UsageError, r"has 2 classes \(ant, dog\), which are neither all class names of the model"),
        ([None, None], UsageError, "has 2 images, none with a label: expected a folder for each class"),
        ([0.5, 1.0], UsageError, "the column 'label' of .* is double, expected whole numbers or text"),
    ],
)
def test_labels_that_are_no_classes_are_refused(tmp_path, given, error, sentence):
    with pytest.raises(error, match=sentence):
        labelled_images(parquet(tmp_path / "a.parquet", given), INFO)


def test_images_without_a_label_are_left_out_aloud(tmp_path, logged):
    found = labelled_images(tree(tmp_path, "ant/1.png", "loose.png"), INFO)
    assert (len(found.images), logged[-1]) == (1, f"1 images of {tmp_path} have no label, and are left out")
