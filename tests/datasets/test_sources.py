"""Any data source to images, and a set of each kind to the very same report."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from data_kinds import DIGITS, KINDS, write_tar
from PIL import Image

import evodeploy
from evodeploy.datasets.examples import size_of
from evodeploy.datasets.places import _expanded
from evodeploy.datasets.sources import dataset_of, images_of
from evodeploy.errors import BadFileError, InputError, MissingExtraError, UsageError
from evodeploy.specs import EngineOptions

PICTURE = np.zeros((4, 5, 3), np.uint8)


def test_images_are_taken_one_by_one(tmp_path):
    for name in ("b.png", "a.png", "deep/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(PICTURE).save(tmp_path / name)
    paths = [tmp_path / name for name in ("a.png", "b.png", "deep/c.png")]
    assert images_of(str(tmp_path)) == paths
    assert images_of([tmp_path / "b.png", tmp_path / "deep"]) == [paths[1], paths[2]]
    (image,) = images_of(PICTURE)
    assert image is PICTURE
    batch = torch.zeros(2, 3, 4, 5)
    assert [each.shape for each in images_of([batch, PICTURE])] == [(3, 4, 5), (3, 4, 5), (4, 5, 3)]


@pytest.mark.parametrize(("images", "error"), [([], UsageError), (3, InputError), ([None], InputError)])
def test_what_holds_no_image_is_refused(images, error):
    with pytest.raises(error, match="expected"):
        images_of(images)


def test_the_images_below_a_folder_are_sorted_and_links_to_folders_are_not_followed(tmp_path, logged):
    for name in ("b.png", "a/z.JPG", "a.b/y.png", ".c/d.gif", "a/notes.txt"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    (tmp_path / "photos" / "linked").symlink_to("a")
    (tmp_path / "photos" / "linked.png").symlink_to("b.png")
    found = [str(path.relative_to(tmp_path / "photos")) for path in images_of(tmp_path / "photos")]
    assert found == [".c/d.gif", "a/z.JPG", "a.b/y.png", "b.png", "linked.png"]
    link = tmp_path / "photos" / "linked"
    assert [*logged] == [f"1 links to folders are not followed, such as {link}: name what they lead to"]


def test_an_image_is_one_however_a_list_names_it(tmp_path, monkeypatch):
    """With the byte order mark of other systems; labels are those of the folder which all lie below."""
    monkeypatch.chdir(tmp_path)
    for name in ("data/ant/1.png", "data/bee/2.png", "lists/x"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    lines = ["../data/ant/1.png", f"{tmp_path}/data/ant/1.png", "../data/bee/2.png", "../data/./bee/2.png"]
    Path("lists/l.txt").write_text("\ufeff" + "\n".join(lines))
    examples = dataset_of("lists/l.txt").examples
    assert [(each.name, each.label) for each in examples] == [("ant/1.png", "ant"), ("bee/2.png", "bee")]


def test_a_pattern_takes_what_a_folder_does(tmp_path, monkeypatch):
    """Notes are no lists of images, and an empty file is an image that cannot be read."""
    monkeypatch.chdir(tmp_path)
    for name in ("ant/1.png", "ant/notes.txt", "bee/2.png"):
        Path("data", name).parent.mkdir(parents=True, exist_ok=True)
        Path("data", name).write_text("notes" if name.endswith("txt") else "")
    assert dataset_of("./data/*/*").examples == dataset_of("data").examples
    Path("data/ant/notes.txt").write_text("1.png\n")
    assert images_of("data/*/*.txt") == [Path("data/ant/1.png")]


def test_a_table_without_rows_holds_no_images(tmp_path):
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"a\.parquet holds no images"):
        dataset_of(tmp_path / "a.parquet")


def test_a_folder_that_cannot_be_read_is_not_left_out_of_the_images(tmp_path, unreadable):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.png").touch()
    unreadable(tmp_path / "closed")
    with pytest.raises(UsageError, match=r"^cannot read the folder .*/closed: Permission denied$"):
        images_of(tmp_path)


@pytest.fixture(scope="module")
def report_of_folders(small_checkpoint, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("folders"))
        report = reported(small_checkpoint, *KINDS["folders"](DIGITS))
    assert report["images"] == 10 and report["scores"][0]["confusions"]
    return report


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"folders"}))
def test_the_same_images_as_any_kind_of_data_get_the_same_report(
    sources, hugging_face, kind, small_checkpoint, report_of_folders
):
    """Of a network of ten classes without names: folders go by their order, and numbers are its own."""
    assert reported(small_checkpoint, *sources(kind)) == report_of_folders


def reported(artefact, data, options):
    report = evodeploy.evaluate(artefact, data, options=EngineOptions(threads=1), **options)
    scores = tuple(dataclasses.replace(score, images_per_second=0.0) for score in report.scores)
    return dataclasses.replace(report, scores=scores).to_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_threads_share_a_data_source(sources, hugging_face, kind, digits):
    """Sixteen threads read every image many times, forwards, backwards and in no order."""
    data, _ = sources(kind)
    examples = dataset_of(data).examples
    orders = [[*range(10)] * 5, [*range(9, -1, -1)] * 5, [7 * i % 10 for i in range(50)]]
    start = threading.Barrier(16)

    def read(number):
        start.wait()
        return [(i, examples[i].image) for i in orders[number % 3] if content(examples[i].image) != digits[i]]

    with ThreadPoolExecutor(16) as pool:
        assert [wrong for wrong in pool.map(read, range(16)) if wrong] == []


def content(image):
    return image.read_bytes() if isinstance(image, Path) else image.read()


def test_an_image_is_itself_wherever_its_data_lies(sources, hugging_face):
    """What a journal and a resumed training go by: names and sizes; what they must not share: places."""
    for kind in ("folders", "tars", "parquet", "saved"):
        data, _ = sources(kind)
        before = [(each.name, size_of(each.image)) for each in dataset_of(data).examples]
        Path("moved").mkdir()
        for path in Path().iterdir():
            if path.name != "moved":
                path.rename(Path("moved") / path.name)
        after = dataset_of(f"moved/{data}").examples
        assert [(each.name, size_of(each.image)) for each in after] == before
        assert len({each.place for each in after}) == 10
        shutil.rmtree("moved")


def test_predictions_name_where_each_image_lies(sources, small_checkpoint, cli):
    sources("tars")
    code, out, _ = cli("predict", small_checkpoint, "d-000.tar", "--json")
    assert (code, [each["image"] for each in json.loads(out)]) == (0, [f"d-000.tar/n/{i:03}.png" for i in range(4)])


def test_predictions_do_not_replace_the_table_that_they_are_of(sources, small_checkpoint, cli):
    sources("parquet")
    before = Path("data/train-0.parquet").read_bytes()
    line = ("predict", small_checkpoint, "data", "--output", "data/train-0.parquet", "--force")
    code, _, err = cli(*line)
    assert (code, "the output data/train-0.parquet is the input itself" in err) == (2, True)
    assert Path("data/train-0.parquet").read_bytes() == before


def test_an_evaluation_resumes_within_tars(sources, small_checkpoint):
    """A limit takes every class there too."""
    data, _ = sources("tars")

    def stop(done, left):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evodeploy.evaluate(small_checkpoint, data, limit=5, batch=1, journal="j.part", progress=stop)
    seen = []
    report = evodeploy.evaluate(
        small_checkpoint, data, limit=5, journal="j.part", progress=lambda *done: seen.append(done)
    )
    assert (report.images, seen) == (5, [(1, 2), (2, 2)])


def test_images_come_before_tars_and_tars_before_parquet(sources, digits, logged):
    sources("parquet")
    assert len(images_of("data")) == 10
    write_tar(Path("data/a.tar"), {"a.jpg": digits[0]})
    assert [str(image) for image in images_of("data")] == ["data/a.tar/a.jpg"]
    Path("data/x.png").write_bytes(digits[0])
    assert images_of("data") == [Path("data/x.png")]
    assert [*logged] == [
        "2 files of data are left out, because it has .tar files: name one kind",
        "3 files of data are left out, because it has images: name one kind",
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a-{08..10}.{tar,png}", ["a-08.tar", "a-08.png", "a-09.tar", "a-09.png", "a-10.tar", "a-10.png"]),
        ("{2..0}.tar", ["2.tar", "1.tar", "0.tar"]),
        ("{10..9}.tar", ["10.tar", "9.tar"]),
        ("{9..010}.tar", ["009.tar", "010.tar"]),
        ("a{b}c.tar", ["a{b}c.tar"]),
    ],
)
def test_braces_are_written_out_as_a_shell_does(pattern, expected):
    assert _expanded(pattern) == expected


def test_braces_that_stand_for_too_many_names_are_refused():
    with pytest.raises(UsageError, match="expand to more than 100000 names"):
        dataset_of("{0..999999999}{0..9}.tar")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("d-{000..003}.tar", r"d-003\.tar does not exist"),
        ("d-*.png", r"nothing matches d-\*\.png"),
        ("x" * 5000, "cannot read x*…: File name too long"),
        ("d.tar.gz", r"d\.tar\.gz is compressed, .*: unpack it"),
        ("both", "both has the splits train, test: name one, such as both/train"),
        ("both/val", "both has no split 'val': expected train, test"),
        ("both/train/x", "both/train has no split 'x': expected one table without a name"),
        ("both/*.png", r"nothing matches both/\*\.png"),
        ("both/{a,b}.png", r"both/a\.png does not exist"),
    ],
)
def test_what_names_no_data_is_refused(sources, hugging_face, source, sentence):
    sources("tars"), sources("splits")
    Path("d.tar.gz").touch()
    with pytest.raises(UsageError, match=sentence):
        dataset_of(source)


@pytest.mark.parametrize(("kind", "library"), [("saved", "datasets"), ("parquet", "pyarrow")])
def test_the_extra_is_named_where_its_library_is_missing(sources, monkeypatch, kind, library):
    data, _ = sources(kind)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=rf'{library}, .*pip install "evodeploy\[data\]"'):
        dataset_of(data)


def test_each_split_of_a_cached_data_set_is_a_place_of_its_own(sources, hugging_face, digits):
    """As --images and --val of a training, which refuses pictures that are in both."""
    sources("cached")
    shutil.copy("cached/my-digits-test.arrow", "cached/my-digits-train.arrow")
    train, test = images_of("cached/train"), images_of("cached/test")
    assert [image.read() for image in test] == digits
    assert not {image.place for image in train} & {image.place for image in test}
    assert str(test[3]) == "cached/test, row 3"
    Path("cached/my-digits-train.arrow").unlink()
    assert [image.place for image in images_of("cached")] == [image.place for image in test]


def test_a_cached_data_set_without_all_of_its_files_is_refused(sources, hugging_face):
    data, _ = sources("cached")
    Path("cached/my-digits-test.arrow").rename("cached/my-digits-test-00000-of-00002.arrow")
    with pytest.raises(BadFileError, match="the split test has 1 of its 2 files"):
        dataset_of(data)


def test_a_cached_data_set_of_maps_alone_has_no_table(sources, hugging_face):
    sources("cached")
    Path("cached/my-digits-test.arrow").rename("cached/cache-1234.arrow")
    for name in ("cached", "cached/test"):
        with pytest.raises(UsageError, match=r"^cached is a saved data set without a table: expected an \.arrow file"):
            dataset_of(name)


def test_each_row_of_a_damaged_part_of_a_table_says_why_and_the_others_are_read(tmp_path, digits):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": digits}), path, row_group_size=5)
    data = bytearray(path.read_bytes())
    data[10:50] = b"\xee" * 40
    path.write_bytes(data)
    images = [example.image for example in dataset_of(path).examples]
    for image in images[:5]:
        with pytest.raises(BadFileError, match=r"a\.parquet is not a readable Parquet file: .*thrift"):
            image.read()
    assert [image.read() for image in images[5:]] == digits[5:]


def test_a_damaged_data_set_is_one_sentence(sources, hugging_face, digits):
    data, _ = sources("saved")
    file = Path("saved/data-00000-of-00001.arrow")
    offsets = np.cumsum([0, *map(len, digits)], dtype=np.int32)
    damaged = file.read_bytes().replace(offsets.tobytes(), (-offsets).tobytes())
    for data_of_file in (b"no table", damaged):  # Arrow reads the second, and ends the process where it is used
        assert data_of_file != file.read_bytes()
        file.unlink()  # which the library may have mapped
        file.write_bytes(data_of_file)
        with pytest.raises(BadFileError, match="saved is not a data set that `datasets` can read: "):
            dataset_of(data)
