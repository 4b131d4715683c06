from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_kinds import write_tar
from PIL import Image

from evodeploy.batch.decode import prepared_batches
from evodeploy.batch.inputs import Files, Members, Rows, list_inputs
from evodeploy.preprocess import prepare
from evodeploy.specs import ModelInfo

INFO = ModelInfo("fake", 8, 4, 3, "stage", (0.5,))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    return tmp_path


def expected(folder, *numbers):
    return np.stack([prepare(Image.open(folder / f"{i}.png"), INFO) for i in numbers])


def decoded(shard, folder, batch):
    for table in prepared_batches(7, shard, folder, INFO, batch):
        (row,) = table.to_pylist()
        assert row["shard"] == 7
        yield row | {"images": np.frombuffer(row["images"], np.float32).reshape(-1, 3, 8, 8)}


def test_files_come_in_batches_prepared_as_a_predictor_prepares_them(folder):
    first, second = decoded(Files(("0.png", "1.png", "2.png")), folder, 2)
    np.testing.assert_array_equal(first["images"], expected(folder, 0, 1))
    np.testing.assert_array_equal(second["images"], expected(folder, 2))
    assert (first["first"], second["first"]) == (0, 2)
    assert first["paths"] == ["0.png", "1.png"]
    assert first["rows"] == first["errors"] == [None, None]


def test_an_image_that_cannot_be_read_is_an_error_in_its_place(folder):
    (folder / "junk.png").write_bytes(b"junk")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:150])
    (row,) = decoded(Files(("junk.png", "0.png", "gone.png", "cut.png")), folder, 9)
    np.testing.assert_array_equal(row["images"], expected(folder, 0))
    unknown, none, missing, cut = row["errors"]
    assert (unknown, none, missing) == (
        "not an image, or an image in an unknown format", None, "No such file or directory",
    )  # fmt: skip
    assert "truncated" in cut


def stored(folder, form):
    if form == "path":
        return [f"{i}.png" for i in range(5)]
    data = [(folder / f"{i}.png").read_bytes() for i in range(5)]
    return data if form == "bytes" else [{"bytes": image, "path": "p"} for image in data]


@pytest.mark.parametrize("form", ["bytes", "path", "struct"])
@pytest.mark.parametrize(("start", "stop"), [(0, 5), (1, 2), (2, 5), (3, 4)])
def test_rows_of_a_table_whatever_its_row_groups(folder, form, start, stop):
    pq.write_table(pa.table({"n": range(5), "im": stored(folder, form)}), folder / "t.parquet", row_group_size=2)
    (row,) = decoded(Rows("t.parquet", "im", start, stop), folder, 9)
    np.testing.assert_array_equal(row["images"], expected(folder, *range(start, stop)))
    assert row["rows"] == list(range(start, stop))
    assert set(row["paths"]) == {"t.parquet"}


def test_images_of_a_tar_as_files(folder):
    write_tar(folder / "a.tar", {f"{i}.png": (folder / f"{i}.png").read_bytes() for i in range(5)} | {"0.cls": b"3"})
    first, second = list_inputs([str(folder / "a.tar")], "image", 3).shards
    shard = Members("a.tar", tuple(dataclasses.replace(each, tar=Path("a.tar")) for each in second.members))
    (row,) = decoded(shard, folder, 9)
    np.testing.assert_array_equal(row["images"], expected(folder, 3, 4))
    assert (len(first), row["paths"], row["rows"]) == (3, ["a.tar/3.png", "a.tar/4.png"], [None, None])


def test_an_empty_row_is_an_error(folder):
    pq.write_table(pa.table({"im": pa.array([None, b""], pa.binary())}), folder / "t.parquet")
    (row,) = decoded(Rows("t.parquet", "im", 0, 2), folder, 9)
    assert row["errors"] == ["the row holds no image", "not an image, or an image in an unknown format"]
    assert len(row["images"]) == 0


def test_what_is_not_a_file_is_an_error_and_not_waited_for(folder):
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    (row,) = decoded(Files(("pipe.png", "0.png", "folder.png")), folder, 9)
    assert row["errors"] == ["not a file", None, "not a file"]
