from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from evodeploy.benchmark.measure.intervals import Interval
from evodeploy.errors import UsageError, VerificationError
from evodeploy.evaluation.report import Accuracy
from evodeploy.sweeper.front import Point, chosen, front
from evodeploy.sweeper.picture import as_svg
from evodeploy.sweeper.request import SweepRequest
from evodeploy.sweeper.space import Candidate, candidates


def point(keep, speed, accuracy, engine="onnxruntime"):
    judged = None if accuracy is None else Accuracy(accuracy, accuracy - 0.01, accuracy + 0.005)
    candidate = Candidate((keep,), "fp32", engine)
    return Point(candidate, "m.onnx", Interval(speed, speed * 0.99, speed * 1.01), 10 * speed, 0.8 / speed, judged)


POINTS = [
    point(1.0, 1.0, 0.95),
    point(0.7, 1.5, 0.94),
    point(0.6, 1.4, 0.93),
    point(0.5, 2.0, 0.90),
    point(0.3, 1.9, 0.8),
]


def test_what_an_engine_cannot_compute_is_left_out_with_its_reason():
    found, left_out = candidates([(0.5,), (1.0,)], ["fp32", "bf16"], ["onnxruntime", "openvino"])
    assert [str(each) for each in found] == [
        "keep 0.5, onnxruntime FP32", "keep 1, onnxruntime FP32", "keep 0.5, openvino FP32", "keep 1, openvino FP32",
        "keep 0.5, openvino BF16", "keep 1, openvino BF16",
    ]  # fmt: skip
    assert left_out == {"onnxruntime BF16": "onnxruntime computes an FP32 file in FP32 only"}
    assert found[4].options(2).precision == "bf16"
    static, elastic = (SweepRequest(Path("a.pth"), Path(), tuple(found), elastic=elastic) for elastic in (False, True))
    assert static.file_of(found[4]) == static.file_of(found[2]) == "models/keep-0.5.fp32.onnx"
    assert static.file_of(Candidate((0.7, 0.5), "int8", "openvino")) == "models/keep-0.7-0.5.int8.onnx"
    assert {elastic.file_of(each) for each in found} == {"models/elastic.fp32.onnx"}


@pytest.mark.parametrize("precisions, engines", [(["fp8"], ["openvino"]), (["fp32"], ["tensorrt"])])
def test_unknown_names_are_refused(precisions, engines):
    with pytest.raises(UsageError, match="is called"):
        candidates([(1.0,)], precisions, engines)


def test_the_front_is_what_no_other_beats():
    assert [each.candidate.keep[0] for each in front(POINTS)] == [1.0, 0.7, 0.5]
    assert [each.candidate.keep[0] for each in front([point(1.0, 1.0, None), point(0.5, 2.0, None)])] == [0.5]
    assert front([]) == []


def test_a_target_chooses():
    assert chosen(POINTS, None, 0.93).candidate.keep == (0.7,)
    assert chosen(POINTS, 0.6, None).candidate.keep == (0.7,)  # 0.8 s at speed 1
    assert chosen(POINTS, 0.5, 0.85).candidate.keep == (0.5,)
    nameless = [point(1.0, 1.0, None), point(0.7, 1.5, None), point(0.5, 2.0, None)]
    assert chosen(nameless, 0.6, None).candidate.keep == (0.7,)
    by_stage = point(1.0, 1.5, None)
    by_stage = dataclasses.replace(by_stage, candidate=Candidate((0.5, 0.5), "fp32", "onnxruntime"))
    assert chosen([by_stage, *nameless], 0.6, None).candidate.keep == (0.7,)
    equals = [point(1.0, 1.0, 0.95), point(0.5, 2.0, 0.95)]
    assert chosen(equals, 9.0, None) in front(equals)


def test_a_keep_ratio_given_twice_is_tried_once():
    tried, _ = candidates([(0.5,), (1.0,), (0.5,)], ["fp32"], ["onnxruntime"])
    assert [each.keep for each in tried] == [(0.5,), (1.0,)]


def test_a_target_out_of_reach_says_how_near_the_nearest_is():
    with pytest.raises(VerificationError, match=r"none takes 100 ms or less: the fastest, keep 0.5, .* takes 400.0 ms"):
        chosen(POINTS, 0.1, None)
    with pytest.raises(VerificationError, match=r"none reaches 99.00%: the nearest, keep 1, .* has 95.00%"):
        chosen(POINTS, None, 0.99)


def test_the_picture_can_be_written_whatever_its_heading_is():
    drawn = ET.fromstring(as_svg(POINTS, front(POINTS), "latin-\udce9\x1b").encode())
    assert drawn.findtext("{http://www.w3.org/2000/svg}title") == r"latin-\udce9\x1b"


def test_the_picture_holds_every_point_and_names_the_front():
    drawn = ET.fromstring(as_svg(POINTS, front(POINTS), "a <heading>"))
    space = "{http://www.w3.org/2000/svg}"
    dots = [circle for circle in drawn.iter(f"{space}circle") if circle.find(f"{space}title") is not None]
    assert len(dots) == 5
    texts = [element.text for element in drawn.iter(f"{space}text")]
    assert {"a <heading>", "1", "0.7", "0.5"} <= set(texts)
    assert "0.6" not in texts
    xs = [float(dot.get("cx")) for dot in dots]
    assert sorted(xs) == [xs[i] for i in (0, 2, 1, 4, 3)]
    assert len(drawn.find(f"{space}polyline").get("points").split()) == 3
