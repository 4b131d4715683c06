from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_kinds import write_tar
from PIL import Image

from evodeploy.batch.inputs import Files, Rows, list_inputs
from evodeploy.batch.output import OutputFolder
from evodeploy.batch.run import BatchRequest, run_batch
from evodeploy.errors import BadFileError, UsageError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.jpg", "c/d.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    (tmp_path / "photos" / "notes.md").write_text("no image")
    pq.write_table(pa.table({"image": [b""] * 5, "path": ["x"] * 5, "age": range(5)}), "rows.parquet", row_group_size=2)
    return tmp_path


def paths(listing):
    return [path for shard in listing.shards if isinstance(shard, Files) for path in shard.paths]


ALL = ["photos/a.jpg", "photos/b.png", "photos/c/d.png"]


@pytest.mark.parametrize("inputs", [["photos"], ["photos/**/*.*g"], [*reversed(ALL)], ["photos", "photos/*.png"]])
def test_however_images_are_named_the_list_is_the_same(folder, inputs):
    listing = list_inputs(inputs, "image", 2)
    assert paths(listing) == ALL
    assert [len(shard) for shard in listing.shards] == [2, 1]
    assert listing == list_inputs(["photos"], "image", 2)


@pytest.mark.parametrize("given", ["../{}/photos/a.jpg", "{}/photos/a.jpg"])
def test_an_image_named_in_two_ways_counts_once(folder, given):
    given = given.format(folder if given.startswith("{") else folder.name)
    assert paths(list_inputs(["photos", given], "image", 9)) == [str(folder / path) for path in ALL]


@pytest.mark.parametrize("given", ["photos", "photos/**", "{photos,rows.parquet}", "photos/*/*/*", "linked"])
def test_what_a_run_writes_is_no_input(folder, given):
    (folder / "linked").symlink_to("photos")
    (folder / "photos" / "c" / "e").mkdir()
    (folder / "photos" / "c" / "e" / "f.png").touch()
    (folder / "photos" / "notes.md").unlink()
    before = list_inputs([given, "photos/a.jpg"], "image", 9)
    output = OutputFolder(Path("photos/out"))
    for kind in ("predictions", "errors"):
        (output.path / kind).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"path": ["x"]}), output.path / kind / "part-00000.parquet")
    for name in ("manifest.json", "_SUCCESS"):
        (output.path / name).write_text("{}")
    assert list_inputs([given, "photos/a.jpg"], "image", 9, output) == before
    for other in ("predictions/others.parquet", "part-00000.parquet", "predictions/more/part-00000.parquet"):
        assert not output.has(f"photos/out/{other}")


def test_names_in_a_tar_that_are_not_utf8_are_escapes(folder):
    write_tar(folder / "a.tar", {os.fsdecode(b"caf\xe9.png"): b""})
    (shard,) = list_inputs(["a.tar"], "image", 9).shards
    assert shard.paths == (r"a.tar/caf\udce9.png",)


def test_labels_in_a_tar_are_not_read(folder):
    write_tar(folder / "a.tar", {"0.png": b"", "0.cls": b"3", "0.txt": b"a caption", "0.json": b'{"label": [1]}'})
    (shard,) = list_inputs(["a.tar"], "image", 9).shards
    assert shard.paths == ("a.tar/0.png",)


def test_a_list_of_paths_starts_from_its_own_folder_and_may_name_what_is_missing(folder):
    (folder / "photos" / "list.txt").write_text("b.png\n\ngone.png\n")
    assert paths(list_inputs(["photos/list.txt"], "image", 9)) == ["photos/b.png", "photos/gone.png"]


def test_rows_are_cut_into_shards_regardless_of_row_groups(folder):
    listing = list_inputs(["rows.parquet", "photos"], "image", 3)
    assert listing.shards[1:] == (Rows("rows.parquet", "image", 0, 3), Rows("rows.parquet", "image", 3, 5))
    assert listing.images == 8


def test_another_list_has_another_checksum(folder):
    before = list_inputs(["photos", "rows.parquet"], "image", 3).sha256
    assert list_inputs(["photos", "rows.parquet"], "path", 3).sha256 != before
    (folder / "photos" / "b.png").rename("photos/z.png")
    assert list_inputs(["photos", "rows.parquet"], "image", 3).sha256 != before


@pytest.mark.parametrize(
    ("given", "column", "message"),
    [
        ("nowhere", "image", "nowhere does not exist"),
        ("", "image", "the name of an input is empty"),
        ("*.bmp", "image", "nothing matches"),
        ("photos/notes.md", "image", "cannot recognise photos/notes.md"),
        ("empty", "image", "empty holds no images"),
        ("rows.parquet", "picture", "no column 'picture': .* \\(image, path, age\\)"),
        ("rows.parquet", "age", "'age' of rows.parquet is int64, expected images"),
    ],
)
def test_what_cannot_be_listed_is_refused(folder, given, column, message):
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match=message):
        list_inputs([given], column, 10)


def test_a_folder_that_cannot_be_read_is_not_left_out(folder, unreadable):
    unreadable(folder / "photos" / "c")
    with pytest.raises(UsageError, match=r"^cannot read the folder photos/c: Permission denied$"):
        list_inputs(["photos"], "image", 10)


def test_a_damaged_table_and_a_name_no_table_can_hold_are_refused(folder):
    (folder / "bad.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(BadFileError, match=r"bad\.parquet is not a readable Parquet file"):
        list_inputs(["bad.parquet"], "image", 10)
    (folder / "photos" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    with pytest.raises(UsageError, match="is not UTF-8"):
        list_inputs(["photos"], "image", 10)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_table_that_is_not_a_file_is_refused_and_not_waited_for(folder, make):
    make("photos/table.parquet")
    with pytest.raises(UsageError, match=r"photos/table\.parquet is a (pipe|folder), not a file \(expected a Parquet"):
        list_inputs(["photos"], "image", 10)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("model", "given", "out", "named"),
    [
        ("m.onnx", "photos/c", "photos/c", "photos/c"),
        ("m.onnx", "photos", "photos/c", "photos/c/d.png"),
        ("m.onnx", "linked.png", "photos/c", "linked.png"),
        ("m.onnx", "rows.parquet", ".", "m.onnx"),
        ("photos/c/m.onnx", "rows.parquet", "photos/c", "photos/c/m.onnx"),
    ],
)
def test_a_run_does_not_write_to_the_folder_that_it_reads(folder, model, given, out, named, force):
    (folder / "linked.png").symlink_to("photos/c/d.png")
    request = BatchRequest(Path(model), (given,), Path(out), force=force)
    with pytest.raises(UsageError, match=f"^{named} is inside the output folder {out}: choose another --output"):
        run_batch(request, progress=print)
    assert (folder / "photos" / "c" / "d.png").exists()


@pytest.mark.parametrize("pattern", ["photos/*/*.png", "photos/**/*.png", "**", "*/c/*.png", "phot?s/c/*"])
def test_a_folder_that_a_pattern_leads_through_and_that_cannot_be_read_is_refused(folder, unreadable, pattern):
    (folder / "photos" / "c").mkdir(exist_ok=True)
    unreadable(folder / "photos" / "c")
    with pytest.raises(UsageError, match=r"cannot read the folder .*photos/c"):
        list_inputs([pattern], "image", 10)


def test_a_folder_that_no_pattern_leads_through_need_not_be_readable(folder, unreadable):
    (folder / "photos" / "c").mkdir(exist_ok=True)
    unreadable(folder / "photos" / "c")
    assert paths(list_inputs(["photos/b*.png"], "image", 10)) == ["photos/b.png"]


ODD = os.fsdecode(b"lat\xe9")


@pytest.mark.parametrize(
    ("made", "given", "error", "sentence"),
    [
        (f"{ODD}.png", f"{ODD}.png", UsageError, r"the name 'lat\\udce9.png' is not UTF-8, so no table can hold it"),
        (f"{ODD}.png", ".", UsageError, r"'lat\\udce9.png' is not UTF-8"),
        (f"{ODD}.png", "*.png", UsageError, r"'lat\\udce9.png' is not UTF-8"),
        (f"{ODD}/a.png", ODD, UsageError, r"'lat\\udce9/a.png' is not UTF-8, .*: rename the file or its folder"),
        (f"{ODD}/a.png", "**/*.png", UsageError, r"'lat\\udce9/a.png' is not UTF-8"),
        (f"{ODD}/list.txt", f"{ODD}/list.txt", UsageError, r"'lat\\udce9/a.png' is not UTF-8"),
        (f"{ODD}.parquet", f"{ODD}.parquet", UsageError, r"'lat\\udce9.parquet' is not UTF-8"),
        ("list.txt", f"{ODD}.png", UsageError, r"lat\\udce9.png does not exist"),
        ("latin.txt", "latin.txt", BadFileError, r"latin.txt is not a list of paths in UTF-8"),
    ],
)
def test_names_that_are_not_utf8_are_refused_before_any_work(tmp_path, monkeypatch, made, given, error, sentence):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / made
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"caf\xe9.png" if made == "latin.txt" else b"a.png")
    with pytest.raises(error, match=sentence):
        list_inputs([given], "image", 10)
