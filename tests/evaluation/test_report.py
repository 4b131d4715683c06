"""From answers to accuracies."""

from __future__ import annotations

from pathlib import Path

from evodeploy.datasets.labelled import Labelled, LabelledImages
from evodeploy.evaluation.contenders import Contender
from evodeploy.evaluation.journal import Answer
from evodeploy.evaluation.report import Confusion, evaluation
from evodeploy.specs import ModelInfo

INFO = ModelInfo("fake", 8, 4, 8, "stage", (0.5,))


def test_an_image_of_several_classes_is_right_with_any_of_them():
    shown = [(1, 2), (1, 2), (1, 2), (3,), (0,)]
    answers = [(2, 0, 4, 5, 6), (1, 2, 4, 5, 6), (7, 0, 4, 2, 6), (4, 5, 6, 7, 0), (0, 1, 2, 3, 4)]
    images = tuple(Labelled(str(i), Path(str(i)), classes) for i, classes in enumerate(shown))
    contender = Contender(Path("a.onnx"), "fake", "cpu", "fp32", False, INFO)
    data = LabelledImages(images, "", "ReaL labels")
    report = evaluation(data, [Answer((ranked,), (0.1,)) for ranked in answers], [contender])
    (score,) = report.scores
    assert (score.top1.value, score.top5.value) == (3 / 5, 4 / 5)
    assert score.confusions == (Confusion("class 1", "class 7", 1), Confusion("class 3", "class 4", 1))
    assert str(report).splitlines()[2] == report.to_dict()["note"] == "ReaL labels"
