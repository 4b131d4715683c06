"""Which pictures are sent, and how they are read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evodeploy.load_testing import pictures
from evodeploy.load_testing.target import pictures_of

COUNT = 400


@pytest.fixture
def table(tmp_path):
    """Rows whose pictures are their labels."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [b"%d" % i for i in range(COUNT)], "label": range(COUNT)}), path)
    return path


def sent(path: Path):
    bodies = pictures_of("http://127.0.0.1:8000", path, labels=True, token=None, keep_ratio=None)
    assert [int(body) for body in bodies.bodies] == list(bodies.classes)
    return list(bodies.classes)


def test_a_table_is_read_once_and_its_pictures_are_sent_in_another_order(table, monkeypatch):
    begun = []
    read = pq.ParquetFile.iter_batches
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *args, **how: begun.append(1) or read(*args, **how))
    classes = sent(table)
    assert len(begun) == 1
    assert sorted(classes) == list(range(COUNT))
    assert classes != sorted(classes)


def test_only_as_many_are_held_as_memory_is_allowed_for(table, monkeypatch):
    every = sent(table)
    monkeypatch.setattr(pictures, "HELD", 300)
    some = sent(table)
    assert some == every[: len(some)]
    assert sum(len(str(each)) for each in some) <= 300 < sum(len(str(each)) for each in every[: len(some) + 1])
    monkeypatch.setattr(pictures, "HELD", 0)
    assert sent(table) == every[:1]
