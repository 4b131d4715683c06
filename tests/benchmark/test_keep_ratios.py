from __future__ import annotations

import csv
import dataclasses
import io
import shutil

import pytest
from benchmark.fakes import INFO, planned, raced, report, row
from cases import SMALL
from fake_engines import FakeEngine
from graphs import restated

import evodeploy
from evodeploy.benchmark import row_specs
from evodeploy.benchmark.measure import interleaved, peak
from evodeploy.benchmark.report.compare import compare
from evodeploy.benchmark.report.page import as_html
from evodeploy.benchmark.report.report import headlines
from evodeploy.benchmark.report.speedups import eager, fastest_torch, over_dense
from evodeploy.benchmark.row_spec import Kept, RowSpec
from evodeploy.benchmark.row_specs import row_specs_of
from evodeploy.benchmark.subject import subject_of
from evodeploy.elastic import ElasticStage
from evodeploy.errors import InputError, UsageError
from evodeploy.models.cost import cost_of
from evodeploy.models.zoo import dense_twin

QUICK = {"seconds": 0, "rounds": 6, "threads": 1, "device": "cpu"}
FAKE = dataclasses.replace(INFO, keep_ratios=(0.5, 0.5), elastic=(ElasticStage(64, 6, 64),) * 2)


def rows_of(paths, engines, precisions=("fp32",), keeps=None):
    with row_specs_of(subject_of(paths, keeps=keeps), engines, precisions, threads=1) as specs:
        return [(c.engine, c.role, c.artefact, str(c.keep)) for c in specs]


def unlike(*arguments):
    raise AssertionError("nothing is exported: the elastic artefact holds every ratio")


def test_every_ratio_and_the_twin_come_out_of_one_file_and_are_judged_by_pytorch_at_the_same_ratio(
    small_elastic, small_checkpoint, tmp_path, monkeypatch
):
    shutil.copy(small_elastic, tmp_path / "elastic.onnx")
    shutil.copy(small_checkpoint, tmp_path / small_checkpoint.name)
    opened = []
    open_engine = row_specs.open_engine
    monkeypatch.setattr(row_specs, "open_engine", lambda *which: opened.append(which[1]) or open_engine(*which))
    monkeypatch.setattr(row_specs, "_exported", unlike)
    monkeypatch.setattr(peak, "SIDES", {"cpu": (64,)})
    monkeypatch.setattr(interleaved, "PATIENCE", 1)
    engines = ["torch", "onnxruntime", "openvino"]
    found = evodeploy.bench(
        tmp_path / "elastic.onnx", engines=engines, precisions=["fp32"], batches=[2], keeps=[1.0, 0.5, 0.3], **QUICK
    )
    assert opened == ["onnxruntime", "openvino"]
    assert [(one.spec.engine, one.spec.role, one.spec.tokens) for one in found.rows] == [
        (engine, role, (kept, kept)) for engine in engines for role, kept in (("dense", 64), ("evo", 32), ("evo", 19))
    ]
    assert [one.verdict is None for one in found.rows] == [True] * 3 + [False] * 6
    assert not found.wrong
    work = [one.spec.flops for one in found.rows[:3]]
    assert work == sorted(work, reverse=True)
    assert work[0] == 2e9 * cost_of(dense_twin(SMALL)).gflops
    assert [over_dense(one, found.rows) is not None for one in found.rows] == [False, True, True] * 3
    assert [one["keep_ratios"] for one in found.to_dict()["results"][:3]] == [[1.0] * 2, [0.5] * 2, [0.3] * 2]


def test_each_row_runs_at_its_ratio_in_every_way_and_all_share_an_engine():
    made = []

    def opened():
        made.append(FakeEngine(FAKE, device_seconds=1e-3, deepest=2))
        return made[-1]

    keeps = [Kept((ratio, ratio), FAKE.keep_of(ratio)) for ratio in (0.5, 0.25)]
    rows = raced([RowSpec("tensorrt", "evo", "fp16", "", opened, keep=keep) for keep in keeps], [2])
    assert [(one.transfers, one.in_flight, str(one.spec.keep)) for one in rows] == [
        (transfers, in_flight, keep)
        for keep in ("keep 0.5", "keep 0.25")
        for transfers, in_flight in (("included", 1), ("included", 2), ("resident", 1), ("resident", 2))
    ]
    assert all(one.timing for one in rows)
    (engine,) = made
    assert set(engine.keeps) == {(32, 32), (16, 16)}
    assert abs(engine.keeps.count((32, 32)) - engine.keeps.count((16, 16))) < len(engine.keeps) / 4


def test_an_elastic_artefact_is_run_at_its_own_ratios_and_as_its_twin(small_elastic, small_checkpoint, monkeypatch):
    monkeypatch.setattr(row_specs, "_exported", unlike)
    assert rows_of([small_checkpoint, small_elastic], ["torch", "onnxruntime"]) == [
        ("torch", "evo", "", "keep 0.5"), ("torch", "dense", "", "keep 1"),
        ("onnxruntime", "evo", "elastic.onnx", "keep 0.5"), ("onnxruntime", "dense", "elastic.onnx", "keep 1"),
    ]  # fmt: skip
    alone = rows_of([small_elastic], ["torch", "onnxruntime"], keeps=[(0.7, 0.5)])
    assert alone == [("torch", "evo", "", "None"), ("onnxruntime", "evo", "elastic.onnx", "keep 0.7/0.5")]


def test_where_an_artefact_does_not_reach_all_tokens_the_twin_is_another(
    small_elastic, small_checkpoint, small_onnx, tmp_path, monkeypatch
):
    monkeypatch.setattr(row_specs, "_exported", lambda model, path: restated(small_onnx, path))
    short = restated(small_elastic, tmp_path / "short.onnx", elastic=(ElasticStage(64, 6, 48),) * 2)
    assert rows_of([small_checkpoint, short], ["onnxruntime"]) == [
        ("onnxruntime", "evo", "short.onnx", "keep 0.5"), ("onnxruntime", "dense", "dense.onnx", "None"),
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"short\.onnx: stage 0 cannot keep 64 of its 64 .* ratios 0\.1 to 0\.75"):
        subject_of([short], keeps=[0.5, 1.0])


def test_an_elastic_engine_has_a_row_for_each_ratio(small_elastic, small_checkpoint, tmp_path):
    plan = planned(small_elastic, tmp_path / "e.engine")
    assert rows_of([small_checkpoint, plan], ["tensorrt"], keeps=[1.0, 0.3]) == [
        ("tensorrt", "dense", "e.engine", "keep 1"), ("tensorrt", "evo", "e.engine", "keep 0.3"),
    ]  # fmt: skip


def test_a_checkpoint_is_run_and_exported_once_as_an_elastic_one(small_checkpoint, small_elastic, monkeypatch):
    exported = []
    copied = lambda model, path: exported.append(model.info.elastic) or restated(small_elastic, path)  # noqa: E731
    monkeypatch.setattr(row_specs, "_exported", copied)
    assert rows_of([small_checkpoint], ["torch", "openvino"], keeps=[1.0, 0.5]) == [
        ("torch", "dense", "", "keep 1"), ("torch", "evo", "", "keep 0.5"),
        ("openvino", "dense", "evo.onnx", "keep 1"), ("openvino", "evo", "evo.onnx", "keep 0.5"),
    ]  # fmt: skip
    assert exported == [(ElasticStage(64, 1, 64),) * 2]
    assert rows_of([small_checkpoint], ["torch"], keeps=[1.0]) == [("torch", "evo", "", "keep 1")]


def test_a_static_artefact_takes_no_ratios_and_is_no_elastic_ones_twin(small_onnx, small_elastic, tmp_path):
    with pytest.raises(UsageError, match=r"small\.onnx keeps a fixed share of tokens \(0\.5\): leave --keep out, or"):
        subject_of([small_onnx], keeps=[0.5])
    dense = restated(small_onnx, tmp_path / "dense.onnx", keep_ratios=(1.0, 1.0))
    for static in (small_onnx, dense):
        with pytest.raises(
            UsageError, match="and the other files take a keep ratio in each run: bench them one by one"
        ):
            subject_of([small_elastic, static])


@pytest.mark.parametrize(
    ("keeps", "kind", "sentence"),
    [
        ([], UsageError, r"keeps are \[\], expected keep ratios such as \(1\.0, 0\.5\)"),
        (0.5, UsageError, r"keeps are 0\.5, expected keep ratios"),
        ([0.5, 0], InputError, r"keep ratio 0 is outside \(0, 1\]"),
        ([(0.5, 0.5, 0.5)], InputError, "3 keep ratios given, expected one, or one for each of 2 stages"),
        ([0.05], InputError, r"elastic\.onnx: stage 0 cannot keep 3 of its 64 tokens"),
    ],
)
def test_ratios_that_cannot_be_are_refused(small_elastic, keeps, kind, sentence):
    with pytest.raises(kind, match=sentence):
        subject_of([small_elastic], keeps=keeps)


@pytest.fixture
def ratios():
    """Two engines at three ratios, the whole of the tokens last."""
    return report(
        [
            row(engine, slow * ratio, role="dense" if ratio == 1 else "evo", ratio=ratio)
            for engine, slow in (("torch", 8), ("openvino", 4))
            for ratio in (0.5, 0.25, 1.0)
        ]
    )


def test_every_form_of_a_report_names_the_ratio(ratios):
    assert [line.partition(",")[0] for line in headlines(ratios)][:2] == [
        "fastest at batch 1: openvino fp32 keep 0.5", "fastest at batch 1: openvino fp32 keep 0.25",
    ]  # fmt: skip
    lines = [line for line in str(ratios).splitlines() if "keep 0.25" in line and "fp32" in line]
    assert any("torch fp32 keep 0.25" in line and "4.00" in line for line in lines)
    from evodeploy.benchmark.report.document import as_csv

    assert [one["keep_ratios"] for one in csv.DictReader(io.StringIO(as_csv(ratios)))] == ["0.5", "0.25", "1"] * 2
    assert "openvino fp32 keep 0.25" in as_html(ratios)


def test_ratios_of_speed_are_of_the_same_keep_ratio_but_for_the_twin(ratios):
    for one in ratios.rows:
        assert eager(one, ratios.rows).spec.keep == one.spec.keep
        assert fastest_torch(one, ratios.rows).spec.keep == one.spec.keep
    assert [over_dense(one, ratios.rows).value for one in ratios.rows[:2]] == [2, 4]


def test_two_benches_are_compared_ratio_by_ratio(ratios):
    old = ratios.to_dict()
    new = dataclasses.replace(ratios, rows=ratios.rows[:1:-1]).to_dict()  # in another order, and without the first two
    found = compare([old], [new], 0.02)
    assert {(change.label, change.speedup.value, change.verdict) for change in found.changes} == {
        (f"{engine} fp32 keep {ratio} ({'dense' if ratio == '1' else 'evo'})", 1.0, "same")
        for engine, ratio in (("torch", "1"), ("openvino", "0.5"), ("openvino", "0.25"), ("openvino", "1"))
    }
    assert found.only_old == ("torch fp32 keep 0.5 (evo) at batch 1", "torch fp32 keep 0.25 (evo) at batch 1")
