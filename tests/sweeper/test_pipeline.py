"""Sweeps of a small network, for real: what is exported, measured, kept and gone on with."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil

import numpy as np
import pytest
from benchmark.fakes import INFO
from data_kinds import pictures_by_answer
from fake_engines import FakeEngine
from reference_pages import check_fields

import evodeploy
from evodeploy.benchmark.measure.interleaved import Measurement, RunTimes
from evodeploy.engines.finite import PROBLEM
from evodeploy.errors import (
    InputError,
    MissingExtraError,
    OutOfMemoryError,
    UnavailableError,
    UsageError,
    VerificationError,
)
from evodeploy.evaluation.report import Accuracy, Evaluation, Score
from evodeploy.exporter.record import Export
from evodeploy.machine.cpu import has_bf16
from evodeploy.models.loaded import ANY_SHARE
from evodeploy.onnx_files import info_of, read_onnx
from evodeploy.specs import ElasticStage
from evodeploy.sweeper import judging, measuring, pipeline, timing
from evodeploy.sweeper.request import SweepRequest
from evodeploy.sweeper.space import Candidate
from evodeploy.sweeper.state import State

OPTIONS = ("--engines", "onnxruntime,openvino", "--seconds", 0.1, "--batch", 2, "--threads", 1)


@pytest.fixture
def here(small_checkpoint, tmp_path, monkeypatch):
    """Pictures in the folder of the class that the small network gives them when it keeps every token."""
    pictures_by_answer(small_checkpoint, tmp_path, 12)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("evodeploy.benchmark.measure.interleaved.PATIENCE", 1)  # figures are not looked at
    return tmp_path


def test_a_sweep_from_a_checkpoint_to_a_choice(cli, here, small_checkpoint):
    ways = 3 if has_bf16() else 2  # of running a file: both runtimes in FP32, and OpenVINO in BF16
    arguments = ("sweep", small_checkpoint, "-o", "out", "--data", "data", *OPTIONS, "--precisions", "fp32,bf16")
    code, out, err = cli(*arguments, "--keep", "0.5,1.0", "--min-accuracy", 90, "--json")
    assert code == 0, err
    assert "left out: onnxruntime BF16" in err
    facts = json.loads(out)
    assert facts == json.loads((here / "out" / "sweep.json").read_text())
    points = {point["candidate"]["name"]: point for point in facts["points"]}
    assert (len(points), facts["threads"]) == (2 * ways, 1)
    assert points["keep 0.5, onnxruntime FP32"]["accuracy"]["value"] == 1.0
    assert points["keep 0.5, onnxruntime FP32"]["speed"]["value"] == 1.0
    assert all(point["speed"]["low"] <= point["speed"]["value"] <= point["speed"]["high"] for point in points.values())
    assert any(point["on_front"] for point in points.values())
    assert err.count("exporting") == 1  # for two ratios, in two precisions that are stored alike
    assert [path.name for path in (here / "out" / "models").iterdir()] == ["elastic.fp32.onnx"]
    assert points[facts["chosen"]]["accuracy"]["value"] >= 0.9
    chosen = (here / "out" / "deploy.toml").read_text()
    with evodeploy.load(here / "out" / "deploy.toml") as predictor:
        ratio = predictor.info.keep_ratios[0]
        assert f"keep {ratio:g}, {predictor.engine.name} " in facts["chosen"]
        assert f"keep_ratio = {ratio}\n" in chosen
    assert f'candidate = "{facts["chosen"]}"' in chosen
    assert (here / "out" / "front.svg").read_text().startswith("<svg")

    code, out, err = cli(*arguments, "--keep", "0.5,1.0,0.2")  # the known is not done again
    assert code == 0, err
    assert "exporting" not in err
    evaluated = [line for line in err.splitlines() if "evaluating" in line and "BF16" not in line]
    assert len(evaluated) == 2  # what the processor lacks is tried again each time
    assert f"timing {ways} candidates against" in err
    assert "sitting 3 of 3" in err
    assert out.count("●") >= 1
    state = (here / "out" / "state.json").read_text()
    for other in (("--keep", "1.0,0.5"), ("--keep", "0.5"), ("--keep", "0.5,1.0", "--fast-path", "merge")):
        assert cli(*arguments, *other)[0] == 2  # another reference, no elastic file, other tokens
    assert cli("sweep", small_checkpoint, "-o", "out", *OPTIONS, "--keep", "0.5,1.0")[0] == 2  # other data
    assert (here / "out" / "state.json").read_text() == state

    (here / "out" / "sweep.json").unlink()
    code, out, err = cli(*arguments, "--keep", "0.5,1.0", "--target-latency", 1e-6, "--json")
    assert (code, "Error: none takes 1e-06 ms or less: the fastest, keep " in err) == (1, True)
    met, facts = facts, json.loads(out)
    check_fields("Sweep", met, facts)
    assert facts["unmet"].startswith("none takes 1e-06 ms or less")
    assert (len(facts["points"]), "chosen" in facts) == (2 * ways, False)
    assert facts == json.loads((here / "out" / "sweep.json").read_text())
    assert (here / "out" / "deploy.toml").read_text() == chosen


def test_each_point_is_run_at_its_ratio_and_an_engine_is_opened_once_a_sitting(small_elastic, tmp_path, monkeypatch):
    tried = tuple(Candidate(keep, "fp32", "onnxruntime") for keep in ((1.0,), (0.5,), (0.5, 0.25)))
    opened = []

    def open_engine(path, *others):
        opened.append(FakeEngine(info_of(read_onnx(path))))
        return opened[-1]

    monkeypatch.setattr(timing, "open_engine", open_engine)
    monkeypatch.setattr("evodeploy.benchmark.measure.interleaved.PATIENCE", 1)
    monkeypatch.setattr("evodeploy.benchmark.measure.interleaved.SETTLE", 0)  # an engine without threads
    (tmp_path / "models").mkdir()
    shutil.copy(small_elastic, tmp_path / "models" / "elastic.fp32.onnx")
    state = State(tmp_path / "state.json", {"checkpoint": "", "reference": ""})
    request = SweepRequest(tmp_path / "a.pth", tmp_path, tried, batch=2, seconds=0.1, elastic=True)
    timing.time_all(tried, request, state, lambda: True)
    assert all(timing.timed(each, state) for each in tried)
    assert len(opened) == timing.SITTINGS
    assert all(set(engine.keeps) == {(64, 64), (32, 32), (32, 16)} for engine in opened)


def test_no_more_engines_are_open_than_fit_into_memory(small_onnx, tmp_path, monkeypatch):
    tried = tuple(Candidate((tenths / 10,), "fp32", "onnxruntime") for tenths in range(10, 0, -1))
    opened, most = set(), []

    def in_one_second(clocks, budget):
        return Measurement((RunTimes((1.0,) * 9, ()),) * len(clocks), "time")

    class Counted(FakeEngine):
        def _close(self):
            opened.discard(self)

    def open_engine(path, *others):
        engine = Counted(info_of(read_onnx(small_onnx)))
        opened.add(engine)
        most.append(len(opened))
        return engine

    monkeypatch.setattr(timing, "open_engine", open_engine)
    monkeypatch.setattr(timing.interleaved, "measured", in_one_second)
    state = State(tmp_path / "state.json", {"checkpoint": "", "reference": ""})
    timing.time_all(tried, SweepRequest(tmp_path / "a.pth", tmp_path, tried), state, lambda: True)
    assert (max(most), opened) == (timing.GROUP + 1, set())
    assert all(timing.timed(each, state) for each in tried)


@pytest.mark.parametrize(
    ("keeps", "fewest", "elastic"), [([1.0, 0.5], 4, True), ([0.5], 4, False), ([1.0, 0.5], 65, False)]
)
def test_several_ratios_are_one_file_where_the_network_can_be_elastic(
    here, small_checkpoint, monkeypatch, logged, keeps, fewest, elastic
):
    asked = []

    def measured(request, state):
        asked.append(request)
        raise UsageError("that is all to be seen")

    monkeypatch.setattr(pipeline, "measured", measured)
    monkeypatch.setattr("evodeploy.models.loaded.FEWEST_TOKENS", fewest)
    with pytest.raises(UsageError, match="that is all"):
        evodeploy.sweep(small_checkpoint, "out", keeps=keeps, engines="onnxruntime", precisions="fp32")
    assert asked[0].elastic == elastic
    named = [line for line in logged if "evo_deit_test cannot be elastic" in line]
    assert len(named) == (fewest > 64)
    assert all(line.endswith("a stage has 64; so each keep ratio is a separate file") for line in named)


def test_a_fast_path_that_changes_nothing_is_refused(here, small_checkpoint):
    with pytest.raises(UsageError, match="--fast-path changes nothing where every token is kept"):
        evodeploy.sweep(small_checkpoint, "out", keeps=[1.0], fast_path="merge", engines="onnxruntime")
    with pytest.raises(UsageError, match="fast_path is 'rset', expected one of rest, merge"):
        evodeploy.sweep(small_checkpoint, "out", fast_path="rset", engines="onnxruntime")


def test_what_int8_is_made_from_is_compared_with_pytorch_once(tmp_path, monkeypatch):
    exported = []

    def export(checkpoint, path, *, verify, precision, **options):
        exported.append((path.name, verify, options["elastic"], options["keep_ratio"]))
        if precision == "fp16":
            raise UsageError("it holds more than FP16 can")
        return Export(path, 0, 0.0, 0, dataclasses.replace(INFO, elastic=(ElasticStage(64, 1, 64),) * 2), ())

    monkeypatch.setattr(judging, "export", export)
    for precisions, elastic in ((("fp32", "int8"), True), (("int8",), True), (("fp32", "int8"), False)):
        tried = [Candidate((ratio,), precision, "openvino") for precision in precisions for ratio in (1.0, 0.5)]
        state = State(tmp_path / "state.json", {})
        judge = judging.Judge(SweepRequest(tmp_path / "a.pth", tmp_path, tuple(tried), elastic=elastic), state)
        for each in tried:
            judge.judge(each)
    assert exported == [
        ("elastic.fp32.onnx", True, ANY_SHARE, None), ("elastic.int8.onnx", False, ANY_SHARE, None),
        ("elastic.int8.onnx", True, ANY_SHARE, None),
        ("keep-1.fp32.onnx", True, None, (1.0,)), ("keep-0.5.fp32.onnx", True, None, (0.5,)),
        ("keep-1.int8.onnx", False, None, (1.0,)), ("keep-0.5.int8.onnx", False, None, (0.5,)),
    ]  # fmt: skip
    judge = judging.Judge(SweepRequest(tmp_path / "a.pth", tmp_path, (), elastic=True), state)
    for ratio in (1.0, 0.5):  # a file that cannot be is not tried again
        with pytest.raises(UsageError, match="holds more than FP16 can"):
            judge.judge(Candidate((ratio,), "fp16", "openvino"))
    assert len(exported) == 8
    with pytest.raises(InputError, match="stage 0 cannot keep 0 of its 64 tokens"):
        judge.judge(Candidate((0.01,), "fp32", "openvino"))


@pytest.mark.slow
def test_throughput_alone_of_one_ratio_is_of_a_static_file_whose_tokens_merge(cli, here, small_checkpoint):
    arguments = ("sweep", small_checkpoint, "-o", "fast", *OPTIONS, "--keep", "0.5", "--precisions", "fp32")
    arguments += ("--fast-path", "merge", "--target-latency", 1e6)
    code, out, err = cli(*arguments)
    assert code == 0, err
    assert "evaluating" not in err
    assert not (here / "fast" / "front.svg").exists()
    assert "keep" in out
    assert "keep_ratio" not in (here / "fast" / "deploy.toml").read_text()
    with evodeploy.load(here / "fast" / "deploy.toml") as predictor:
        assert (predictor.info.elastic, predictor.info.keep_ratios) == ((), (0.5, 0.5))
        assert predictor.info.fast_path == "merge"
    code, _, err = cli(*arguments, "--min-accuracy", 5)
    assert code == 2
    assert "needs labelled images" in err


def test_a_spent_budget_names_what_is_left(cli, here, small_checkpoint):
    code, _, err = cli("sweep", small_checkpoint, "-o", "out", *OPTIONS, "--keep", "1.0,0.5", "--budget", 0)
    assert code == 2
    assert "the budget is too small" in err


def test_a_budget_that_ends_while_candidates_are_timed_is_said(tmp_path, monkeypatch):
    pair = tuple(Candidate((ratio,), "fp32", "onnxruntime") for ratio in (1.0, 0.5))
    (tmp_path / "models").mkdir()
    for each in pair:
        (tmp_path / "models" / f"keep-{each.dashed}.fp32.onnx").touch()
    clock = iter([0.0] * 3)  # the beginning and both exports; the first group of a sitting is always timed
    monkeypatch.setattr(measuring.time, "monotonic", lambda: next(clock, 99.0))
    monkeypatch.setattr(measuring.Judge, "judge", lambda *_: None)
    monkeypatch.setattr(timing, "_timed_in_turn", lambda group, *_: [np.ones(9)] * len(group))
    state = State(tmp_path / "state.json", {"checkpoint": "", "reference": ""})
    request = SweepRequest(tmp_path / "a.pth", tmp_path, pair, budget=1)
    with pytest.raises(UsageError, match="the budget was spent before any candidate was timed"):
        measuring.measured(request, state)
    assert len(measuring.measured(dataclasses.replace(request, budget=None), state)[0]) == 2  # resumed


def test_a_budget_that_ends_in_the_last_sitting_leaves_the_reference_a_point(tmp_path, monkeypatch):
    tried = tuple(Candidate((tenths / 10,), "fp32", "onnxruntime") for tenths in range(10, 0, -1))
    monkeypatch.setattr(timing, "_timed_in_turn", lambda group, *_: [np.ones(9)] * len(group))
    state = State(tmp_path / "state.json", {"checkpoint": "", "reference": ""})
    groups = iter([True] * 5)  # two in each of the first sittings, one in the last
    timing.time_all(tried, SweepRequest(tmp_path / "a.pth", tmp_path, tried), state, lambda: next(groups, False))
    assert timing.timed(tried[0], state)
    assert sum(timing.timed(each, state) for each in tried[1:]) == timing.GROUP


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "labels.csv"}, "--labels, --class-map and --limit are for the labelled images: add --data"),
        ({"limit": 5}, "--labels, --class-map and --limit are for the labelled images: add --data"),
        ({"images": "data"}, "--images calibrates INT8, which is not tried"),
        ({"threads": 0}, "threads is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"seconds": float("nan")}, "seconds nan"),
        ({"engines": "abacus"}, "no engine is called 'abacus'"),
        ({"keeps": [1.0, (0.5,) * 3]}, "3 keep ratios given, but evo_deit_test has 2 selecting stages"),
        ({"data": "data", "min_accuracy": 79}, "min_accuracy is 79, expected a share from 0 to 1"),
        ({"data": "data", "min_accuracy": float("nan")}, "min_accuracy is nan"),
        ({"target_latency": -0.1}, "target_latency is -0.1, expected seconds"),
        ({"target_latency": float("nan")}, "target_latency is nan"),
    ],
)
def test_options_that_would_be_ignored_are_refused(here, small_checkpoint, options, message):
    with pytest.raises(UsageError, match=message):
        evodeploy.sweep(small_checkpoint, "out", **{"engines": "onnxruntime", "precisions": "fp32", **options})
    assert not (here / "out").exists()


@pytest.mark.slow
def test_what_fails_is_left_out_and_the_others_are_tried(cli, here, small_checkpoint):
    arguments = ("sweep", small_checkpoint, "-o", "out", *OPTIONS, "--precisions", "fp32", "--keep", "1.0,0.01")
    code, out, err = cli(*arguments, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert len(facts["points"]) == 2
    assert len(facts["left_out"]) == 2
    assert "left out: keep 0.01" in err


def run_once(clocks, budget):
    """In place of a measurement: fake engines run thousands of times a second."""
    for clock in clocks:
        clock()
    return Measurement((RunTimes((1.0,) * 9, ()),) * len(clocks), "time")


def bf16_fails(monkeypatch, module, name, error):
    """Let the function `name` of `module` raise `error` for options that ask for BF16."""
    real = getattr(module, name)

    def failing(*given, **options):
        asked = options.get("options") or given[2]
        if asked.precision == "bf16":
            raise error
        return real(*given, **options)

    monkeypatch.setattr(module, name, failing)


def test_what_cannot_be_opened_for_timing_is_left_out_and_tried_again(cli, here, small_checkpoint, monkeypatch):
    arguments = ("sweep", small_checkpoint, "-o", "out", "--seconds", 0.1, "--batch", 2, "--threads", 1, "--json")
    arguments += ("--engines", "openvino", "--keep", "1.0,0.5")
    with monkeypatch.context() as patched:
        bf16_fails(patched, timing, "open_engine", UnavailableError("OpenVINO computes in f32 on this processor"))
        code, out, err = cli(*arguments)
    assert code == 0, err
    facts = json.loads(out)
    assert {point["candidate"]["precision"] for point in facts["points"]} == {"fp32"}
    assert facts["left_out"] == {
        f"keep {keep}, openvino BF16": "OpenVINO computes in f32 on this processor" for keep in ("1", "0.5")
    }
    assert "left out: keep 1, openvino BF16: OpenVINO computes in f32" in err
    monkeypatch.setattr(timing, "open_engine", lambda path, *_: FakeEngine(info_of(read_onnx(path))))
    monkeypatch.setattr(timing.interleaved, "measured", run_once)
    code, out, err = cli(*arguments)
    assert code == 0, err
    facts = json.loads(out)
    assert (len(facts["points"]), facts["left_out"]) == (4, {})


@pytest.mark.parametrize("others", [1, 3])
def test_what_fails_while_it_is_timed_is_left_out(small_onnx, tmp_path, monkeypatch, others):
    tried = tuple(Candidate((1 - tenths / 10,), "fp32", "onnxruntime") for tenths in range(others + 1))
    failing = tried[-1]
    info = info_of(read_onnx(small_onnx))

    def open_engine(path, *others):
        def compute(images):
            if failing.dashed in path.name:
                raise MemoryError
            return {"logits": np.zeros((len(images), info.num_classes), np.float32)}

        return FakeEngine(info, compute=compute)

    monkeypatch.setattr(timing, "open_engine", open_engine)
    monkeypatch.setattr(timing.interleaved, "measured", run_once)
    state = State(tmp_path / "state.json", {"checkpoint": "", "reference": ""})
    request = SweepRequest(tmp_path / "a.pth", tmp_path, tried, batch=2, seconds=0.1)
    timing.time_all(tried, request, state, lambda: True)
    assert [timing.timed(each, state) for each in tried] == [each != failing for each in tried]
    assert state.left_out.keys() == {str(failing)}
    failing = tried[0]
    with pytest.raises(OutOfMemoryError):
        timing.time_all(tried, request, State(tmp_path / "new.json", state.task), lambda: True)


def test_what_is_missing_on_the_machine_is_tried_again_by_the_next_run(cli, here, small_checkpoint, monkeypatch):
    arguments = ("sweep", small_checkpoint, "-o", "out", "--data", "data", "--seconds", 0.1, "--batch", 2)
    arguments += ("--threads", 1, "--engines", "openvino", "--keep", "1.0", "--json")
    with monkeypatch.context() as patched:
        bf16_fails(patched, judging, "evaluate", MissingExtraError('this needs x: pip install "evodeploy[cpu]"'))
        code, out, err = cli(*arguments)
    assert code == 0, err
    left_out = json.loads(out)["left_out"]
    assert list(left_out) == ["keep 1, openvino BF16"]
    monkeypatch.setattr(timing, "open_engine", lambda path, *_: FakeEngine(info_of(read_onnx(path))))
    monkeypatch.setattr(timing.interleaved, "measured", run_once)
    monkeypatch.setattr(judging.Judge, "_accuracy", lambda *_: [0.5, 0.4, 0.6])
    code, out, err = cli(*arguments)
    assert code == 0, err
    facts = json.loads(out)
    assert [point["candidate"]["precision"] for point in facts["points"]] == ["fp32", "bf16"]
    assert facts["left_out"] == {}


def test_a_full_disk_ends_a_sweep_and_the_next_run_resumes_it(cli, small_checkpoint, tmp_path, monkeypatch):
    """What does not fit now is not left out for good."""
    arguments = ("sweep", small_checkpoint, "-o", tmp_path / "out", "--seconds", 0.1, "--batch", 2, "--threads", 1)
    arguments += ("--engines", "onnxruntime", "--precisions", "fp32", "--keep", "1.0", "--json")

    def full(model, draft):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("evodeploy.exporter.writing.save_onnx", full)
        code, _, err = cli(*arguments)
    assert (code, "No space left on device" in err) == (3, True)
    monkeypatch.setattr(timing, "open_engine", lambda path, *_: FakeEngine(info_of(read_onnx(path))))
    monkeypatch.setattr(timing.interleaved, "measured", run_once)
    code, out, err = cli(*arguments)
    assert code == 0, err
    assert (len(json.loads(out)["points"]), json.loads(out)["left_out"]) == (1, {})


def test_a_candidate_whose_outputs_are_no_numbers_for_some_images_is_left_out(tmp_path, monkeypatch, logged):
    """Its accuracy on the other images is not comparable with that of the other candidates."""
    unread = ("a.png", "a.png is not a readable image")
    reports = {"onnxruntime": (unread,), "openvino": (unread, ("b.png", f"m.onnx: {PROBLEM}"))}

    def evaluate(path, data, *, engine, journal, **options):
        journal.touch()
        score = Score(path.name, engine, "fp32", Accuracy.of(9, 9), None, 1.0, ())
        return Evaluation(9, reports[engine], (score,), ())

    monkeypatch.setattr(judging, "evaluate", evaluate)
    monkeypatch.setattr(judging.Judge, "_info", lambda *_: INFO)
    (tmp_path / "models").mkdir()
    state = State(tmp_path / "state.json", {})
    judge = judging.Judge(SweepRequest(tmp_path / "a.pth", tmp_path, (), data=tmp_path), state)
    with pytest.raises(VerificationError, match=r"1 of 11 images have no answer: b\.png: m\.onnx: .* is not finite"):
        judge.judge(Candidate((1.0,), "fp32", "openvino"))
    judge.judge(Candidate((1.0,), "fp32", "onnxruntime"))
    assert list(state.accuracies) == ["keep 1, onnxruntime FP32"]
    assert logged[-1] == "1 images cannot be read, and do not count; the first: a.png: a.png is not a readable image"
    assert list((tmp_path / "models").iterdir()) == []


def test_the_reference_is_not_replaced_where_its_engine_is_missing(cli, here, small_checkpoint, monkeypatch):
    """Another one would make the speeds of this run and of the next relative to different candidates."""

    def evaluate(*_, **options):
        raise MissingExtraError(f"no {options['engine']} here")

    monkeypatch.setattr(judging, "evaluate", evaluate)
    code, _, err = cli("sweep", small_checkpoint, "-o", "out", "--data", "data", *OPTIONS, "--keep", "1.0")
    assert (code, "no onnxruntime here" in err) == (3, True)


def test_int8_needs_images(cli, here, small_checkpoint):
    code, _, err = cli("sweep", small_checkpoint, "-o", "out", *OPTIONS, "--precisions", "int8")
    assert code == 2
    assert "add --images DIR, or leave out int8" in err


@pytest.mark.slow
def test_ratios_are_searched_by_stage(cli, here, small_checkpoint):
    arguments = ("sweep", small_checkpoint, "-o", "out", *OPTIONS[2:], "--engines", "onnxruntime", "--data", "data")
    arguments += ("--precisions", "fp32,int8", "--by-stage", "--keep", "0.5,1.0,0.001")
    code, out, err = cli(*arguments, "--json")
    assert code == 0, err
    names = [point["candidate"]["name"] for point in json.loads(out)["points"]]
    assert len(names) == 6
    assert names[0] == "keep 1, onnxruntime FP32"
    assert names[1] in ("keep 0.5/1, onnxruntime FP32", "keep 1/0.5, onnxruntime FP32")
    assert names[2] == "keep 0.5, onnxruntime FP32"
    assert err.count("evaluating") == 4 + 3  # both first steps were weighed
    assert "left out: keep 0.5/0.001" in err  # which keeps no token
    code, out, err = cli(*arguments)
    assert code == 0, err
    assert "evaluating" not in err
    code, _, err = cli(*arguments[:-1], "1.0,0.7/0.5")
    assert (code, "give --keep ratios without slashes" in err) == (2, True)
    code, _, err = cli("sweep", small_checkpoint, "-o", "other", "--by-stage")
    assert (code, "add --data DIR" in err) == (2, True)
