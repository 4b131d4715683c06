from __future__ import annotations

import pytest

from evodeploy.errors import UsageError
from evodeploy.inference.answers import classes_to_name
from evodeploy.specs import ModelInfo


def model(classes, top_k=None):
    return ModelInfo("fake", 8, 4, classes, "stage", (0.5,), top_k=top_k)


def test_five_classes_are_named_or_all_where_there_are_fewer():
    assert classes_to_name(model(1000), None) == 5
    assert classes_to_name(model(3), None) == 3
    assert classes_to_name(model(1000, top_k=2), None) == 2
    assert classes_to_name(model(3), 3) == 3


@pytest.mark.parametrize(
    ("info", "top", "reason"),
    [
        (model(3), 4, "top is 4, but fake has 3 classes: ask for no more"),
        (model(3), 0, "top is 0, expected 1 or more"),
        (model(9, top_k=2), 3, "top is 3, but the artefact gives 2 classes"),
        (model(0), None, "has no classifier"),
    ],
)
def test_more_than_there_are_is_refused(info, top, reason):
    with pytest.raises(UsageError, match=reason):
        classes_to_name(info, top)
