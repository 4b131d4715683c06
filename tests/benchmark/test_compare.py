from __future__ import annotations

import copy
import dataclasses
import functools
import json

import numpy as np
import pytest
from benchmark.fakes import report, row

from evodeploy.benchmark.report.compare import compare
from evodeploy.benchmark.report.reading import read_benches
from evodeploy.benchmark.row import Row
from evodeploy.errors import BadFileError, UsageError


@functools.cache
def two_rows():
    return json.loads(json.dumps(report([row("torch", 4), row("openvino", 2)]).to_dict()))


def document(scale=1.0, seed=0, count=60):
    """A bench of two rows whose runs vary by three per cent; the second row's times are multiplied by `scale`."""
    found = copy.deepcopy(two_rows())
    noise = np.random.default_rng(seed).normal(1, 0.03, (2, count))
    for result, base, runs in zip(found["results"], (4, 2 * scale), noise, strict=True):
        result["samples_ms"] = (base * runs).tolist()
    return found


def verdicts(old, new, smallest=0.02):
    return [change.verdict for change in compare([old], [new], smallest).changes]


def test_noise_is_no_change():
    assert all(verdicts(document(seed=i), document(seed=100 + i)) == ["same", "same"] for i in range(20))


def test_what_is_faster_or_slower_is_reported():
    assert verdicts(document(), document(0.9, seed=1)) == ["same", "faster"]
    slower = compare([document()], [document(1.1, seed=1)], 0.02)
    assert [change.verdict for change in slower.changes] == ["same", "slower"]
    assert slower.regressed
    assert slower.changes[1].speedup.value == pytest.approx(1 / 1.1, abs=0.02)


def test_a_change_below_the_least_change_does_not_count():
    assert verdicts(document(), document(1.03, seed=1, count=400), smallest=0.05) == ["same", "same"]
    assert verdicts(document(count=400), document(1.03, seed=1, count=400), smallest=0.01) == ["same", "slower"]


def test_a_row_that_is_wrong_or_missing_now_is_broken():
    wrong, gone = document(seed=1), document(seed=1)
    wrong["results"][1]["status"] = "wrong"
    gone["results"][1] |= {"status": "unavailable", "reason": "no"}
    assert verdicts(document(), wrong)[1] == "broken"
    assert verdicts(document(), gone)[1] == "broken"
    del gone["results"][1]
    assert compare([document()], [gone], 0.02).only_old == ("openvino fp32 (evo) at batch 1",)


def test_a_row_that_can_be_timed_now_is_repaired():
    failed = document()
    failed["results"][1] |= {"status": "unavailable", "reason": "no"}
    found = compare([failed], [document(seed=1)], 0.02)
    assert [change.verdict for change in found.changes] == ["same", "repaired"]
    assert (found.only_new, found.regressed) == ((), False)
    assert "repaired" in str(found)
    assert [change.verdict for change in compare([failed], [failed], 0.02).changes] == ["same"]


TIMES = (4.0, 4.1, 4.2, 4.0, 4.1, 4.2)


def on_gpu(*arguments, **options):
    return dataclasses.replace(row(*arguments, **options), device="cuda:0", transfers="included")


def unopened(spec, precision, batch=1):
    return Row(dataclasses.replace(spec, precision=precision), batch, batch, precision, "", reason="no")


def test_a_row_whose_engine_cannot_be_opened_now_is_broken_and_repaired_the_other_way_round():
    """It does not know its device, or whether its products would be TF32; without a file not even its precision."""
    cuda = dataclasses.replace(on_gpu("onnxruntime-cuda", TIMES), tf32=True)
    resident, elastic = dataclasses.replace(cuda, transfers="resident"), on_gpu("tensorrt", TIMES, ratio=0.5)
    ran = [row("torch", TIMES), cuda, resident, elastic]
    lost = [unopened(cuda.spec, "fp32"), unopened(row("tensorrt", TIMES).spec, None)]
    before, after = (report(rows).to_dict() for rows in (ran, [ran[0], *lost]))
    found = compare([before], [after], 0.02)
    assert [(change.label, change.verdict) for change in found.changes] == [
        ("torch fp32 (evo)", "same"),
        ("onnxruntime-cuda tf32 (evo)", "broken"),
        ("onnxruntime-cuda tf32 resident (evo)", "broken"),
        ("tensorrt fp32 keep 0.5 (evo)", "broken"),
    ]
    assert (found.regressed, found.only_old, found.only_new) == (True, (), ())
    found = compare([after], [before], 0.02)
    assert [change.verdict for change in found.changes] == ["same", *["repaired"] * 3]
    assert (found.regressed, found.only_old, found.only_new) == (False, (), ())


@pytest.mark.parametrize(
    "lost",
    [
        unopened(row("onnxruntime-cuda", TIMES).spec, "fp16"),
        unopened(row("onnxruntime-cuda", TIMES, role="dense").spec, "fp32"),
        unopened(row("onnxruntime-cuda", TIMES).spec, "fp32", batch=4),
        unopened(row("onnxruntime-tensorrt", TIMES).spec, "fp32"),
        unopened(dataclasses.replace(row("onnxruntime-cuda", TIMES).spec, cuda_graph=True), "fp32"),
        dataclasses.replace(unopened(row("onnxruntime-cuda", TIMES).spec, "fp32"), device="cuda:0"),
    ],
)
def test_what_is_another_row_in_any_case_breaks_none(lost):
    rows = [row("torch", TIMES), dataclasses.replace(on_gpu("onnxruntime-cuda", TIMES), tf32=True)]
    found = compare([report(rows).to_dict()], [report([rows[0], lost]).to_dict()], 0.02)
    assert [change.verdict for change in found.changes] == ["same"]
    assert (len(found.only_old), len(found.only_new)) == (1, 1)


def test_rows_of_another_depth_are_other_rows():
    deeper = document(0.5, seed=1)
    deeper["results"][1]["in_flight"] = 2
    found = compare([document()], [deeper], 0.02)
    assert found.only_new == ("openvino fp32 2 in flight (evo) at batch 1",)
    assert [change.verdict for change in found.changes] == ["same"]


@pytest.mark.parametrize(("part", "name"), [("environment", "processor"), ("model", "keep_ratios")])
def test_unlike_machines_and_models_are_refused(part, name):
    other = copy.deepcopy(document())
    other[part][name] = "another"
    with pytest.raises(UsageError, match=f"cannot be compared: the .*{name.replace('_', ' ')} is"):
        compare([document()], [other], 0.02)


def test_memory_that_another_kernel_keeps_for_itself_makes_no_other_machine():
    other = document()
    memory = other["environment"]["memory_bytes"]
    other["environment"] |= {"memory_bytes": memory - memory // 500, "system": "Linux-99"}
    assert compare([document()], [other], 0.02).differences[0].endswith(" → Linux-99")
    other["environment"]["memory_bytes"] = memory // 2
    with pytest.raises(UsageError, match="cannot be compared: the machine's memory bytes is"):
        compare([document()], [other], 0.02)


def test_what_is_no_document_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("{")
    with pytest.raises(BadFileError, match="is not readable JSON"):
        read_benches(path)
    path.write_text('{"schema": 1}')
    with pytest.raises(BadFileError, match="schema 1, expected 3"):
        read_benches(path)


@pytest.mark.parametrize(
    ("where", "value", "sentence"),
    [
        (("model",), None, "model is null, expected an object"),
        (("environment",), [], "environment is a list of 0, expected an object"),
        (("environment", "packages"), ["torch"], "environment.packages is a list of 1, expected an object"),
        (("environment", "gpus"), ["H100"], r'environment.gpus\[0\] is "H100", expected an object'),
        (("results",), {}, "results is an object of 0, expected a list"),
        (("results", 0), 3, r"results\[0\] is 3, expected an object"),
        (("results", 0, "batch"), "1", r'results\[0\].batch is "1", expected a whole number'),
        (("results", 0, "engine"), None, r"results\[0\].engine is null, expected text"),
        (("results", 0, "status"), "fine", r'results\[0\].status is "fine", expected ok or wrong or unavailable'),
        (("results", 0, "samples_ms"), [], r"results\[0\].samples_ms is a list of 0, expected a list of 1"),
        (("results", 1, "samples_ms"), [1, 0], r"results\[1\].samples_ms\[1\] is 0, expected a number above 0"),
        (("results", 1, "samples_ms"), [1, "x"], r'results\[1\].samples_ms\[1\] is "x", expected a number'),
    ],
)
def test_documents_of_others_are_refused_with_file_field_got_and_expected(tmp_path, where, value, sentence):
    found = document()
    holder = found
    for step in where[:-1]:
        holder = holder[step]
    holder[where[-1]] = value
    (tmp_path / "a.json").write_text(json.dumps(found))
    with pytest.raises(BadFileError, match=rf"a.json is not what .* writes: {sentence}"):
        read_benches(tmp_path / "a.json")


def test_a_document_is_read_as_it_was_written(tmp_path):
    found = document()
    (tmp_path / "a.json").write_text(json.dumps(found))
    assert json.loads(json.dumps(read_benches(tmp_path / "a.json"))) == [found]


def results(*benches):
    """What a run on a GPU leaves, with these benches."""
    return {"parts": [], "environment": {}, "benches": list(benches)}


def of_model(name, *arguments, **options):
    found = document(*arguments, **options)
    found["model"]["name"] = name
    return found


def test_results_of_a_gpu_run_are_compared_model_by_model(tmp_path, cli):
    (tmp_path / "old.json").write_text(json.dumps(results(of_model("a"), of_model("b"), of_model("gone"))))
    (tmp_path / "new.json").write_text(json.dumps(results(of_model("b", 1.1, seed=1), of_model("a", seed=2))))
    found = compare(read_benches(tmp_path / "old.json"), read_benches(tmp_path / "new.json"), 0.02)
    assert [(change.label, change.verdict) for change in found.changes] == [
        ("b: torch fp32 (evo)", "same"), ("b: openvino fp32 (evo)", "slower"),
        ("a: torch fp32 (evo)", "same"), ("a: openvino fp32 (evo)", "same"),
    ]  # fmt: skip
    assert found.only_old == ("gone: torch fp32 (evo) at batch 1", "gone: openvino fp32 (evo) at batch 1")
    code, out, _ = cli("bench", "--compare", tmp_path / "old.json", tmp_path / "new.json", "--json")
    assert code == 1
    assert json.loads(out)["regressed"]


def test_results_of_a_gpu_run_are_compared_with_a_bench_of_one_of_its_models(tmp_path, cli):
    (tmp_path / "old.json").write_text(json.dumps(results(of_model("a"), of_model("b"))))
    (tmp_path / "new.json").write_text(json.dumps(of_model("b", 0.9, seed=1)))
    code, out, err = cli("bench", "--compare", tmp_path / "old.json", tmp_path / "new.json")
    assert code == 0, err
    assert "1 faster of 2" in out
    with pytest.raises(UsageError, match="no model is in both benches: the old one has a, b, the new one c"):
        compare(read_benches(tmp_path / "old.json"), [of_model("c")], 0.02)


@pytest.mark.parametrize(
    ("benches", "sentence"),
    [
        ([], "holds no bench: the run ended before the first was complete"),
        ({}, "benches is an object of 0, expected a list"),
        ([{"schema": 1}], "is of schema 1, expected 3"),
        ([of_model("a"), of_model("a")], "holds 2 benches of a, expected one of each model"),
        ([of_model("a") | {"results": 3}], r"benches\[0\].results is 3, expected a list"),
    ],
)
def test_results_that_cannot_be_compared_are_refused(tmp_path, benches, sentence):
    (tmp_path / "a.json").write_text(json.dumps({"benches": benches}))
    with pytest.raises(BadFileError, match=rf"a.json .*{sentence}"):
        read_benches(tmp_path / "a.json")
