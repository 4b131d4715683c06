"""What writers of evodeploy write is recognised as theirs, so that --force takes what the first write took."""

from __future__ import annotations

import json

import pytest
from benchmark.fakes import report, row
from PIL import Image

from evodeploy import kinds
from evodeploy.benchmark.measure.intervals import Interval
from evodeploy.benchmark.report.document import as_csv
from evodeploy.benchmark.report.page import as_html
from evodeploy.errors import UsageError
from evodeploy.evaluation.journal import Journal
from evodeploy.evaluation.report import Accuracy
from evodeploy.inference.records import Failure
from evodeploy.inference.tables import kind_of_table, writing
from evodeploy.sweeper.front import Point
from evodeploy.sweeper.picture import as_svg
from evodeploy.sweeper.space import Candidate
from evodeploy.visualization.figure import save_png

ALL = {name: value for name, value in vars(kinds).items() if isinstance(value, kinds.Kind)}


def test_a_checkpoint_and_an_export(small_checkpoint, small_onnx):
    assert kinds.CHECKPOINT.is_kind_of(small_checkpoint)
    assert kinds.ONNX.is_kind_of(small_onnx)
    assert not kinds.ONNX.is_kind_of(small_checkpoint)


def test_an_engine_by_how_it_begins_or_by_its_record(tmp_path):
    plan = tmp_path / "m.engine"
    plan.write_bytes(b"vtrt\0\0")
    assert kinds.ENGINE.is_kind_of(plan)
    plan.write_bytes(b"of a version to come")
    assert not kinds.ENGINE.is_kind_of(plan)
    (tmp_path / "m.engine.json").write_text(json.dumps({"runtime": "tensorrt"}, indent=1))
    assert kinds.ENGINE.is_kind_of(plan)
    (tmp_path / "m.engine.json").write_text(json.dumps({"name": "theirs"}, indent=1))
    assert not kinds.ENGINE.is_kind_of(plan)


def test_the_reports_of_a_bench(tmp_path):
    found = report([row("torch", 2.0), row("openvino", 1.0)])
    texts = {"REPORT": json.dumps(found.to_dict(), indent=1), "MEASUREMENTS": as_csv(found), "PAGE": as_html(found)}
    for name, text in texts.items():
        path = tmp_path / name
        path.write_text(text)
        assert [other for other in texts if ALL[other].is_kind_of(path)] == [name]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("rows", [0, 1])
def test_predictions(tmp_path, suffix, rows):
    path = tmp_path / f"p{suffix}"
    with writing(path, 1 if rows else 0) as write:
        for _ in range(rows):
            write(path, Failure(path, "not an image"))
    assert kind_of_table(path).is_kind_of(path)


def test_a_stranger_s_tables_are_none(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [b"a photograph"]}), tmp_path / "d.parquet")
    (tmp_path / "d.csv").write_text("path,label\na.png,cat\n")
    (tmp_path / "d.jsonl").write_text('{"path": "a.png"}\n')
    for path in tmp_path.iterdir():
        assert not kind_of_table(path).is_kind_of(path)


def test_pictures(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "theirs.png")
    assert not kinds.PICTURE.is_kind_of(tmp_path / "theirs.png")
    save_png(Image.new("RGB", (900, 900)), tmp_path / "ours.png")
    assert kinds.PICTURE.is_kind_of(tmp_path / "ours.png")
    each = Candidate((0.5,), "fp32", "onnxruntime")
    point = Point(each, "m.onnx", Interval(1.0, 0.9, 1.1), 10.0, 0.8, Accuracy(0.9, 0.8, 1.0))
    (tmp_path / "f.svg").write_text(as_svg([point], [point], "a title"))
    assert kinds.DRAWING.is_kind_of(tmp_path / "f.svg")
    (tmp_path / "f.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9"><title>evodeploy</title></svg>')
    assert not kinds.DRAWING.is_kind_of(tmp_path / "f.svg")


def test_an_interrupted_evaluation(tmp_path):
    path = tmp_path / "r.json.part"
    with Journal(path, {"artefacts": [["a", "b", "c"]], "images": "d"}).open():
        assert kinds.JOURNAL.is_kind_of(path)
    path.write_text("a download that was cut short")
    assert not kinds.JOURNAL.is_kind_of(path)


def test_an_empty_file_is_of_any_kind(tmp_path):
    (tmp_path / "empty").touch()
    assert all(kind.is_kind_of(tmp_path / "empty") for kind in ALL.values())


def test_suffixes(tmp_path):
    kinds.ONNX.check_suffix(tmp_path / "M.ONNX")
    kinds.LOG.check_suffix(tmp_path / "any")
    with pytest.raises(UsageError, match=r"expected a name that ends with \.html or \.htm"):
        kinds.PAGE.check_suffix(tmp_path / "report.txt")
