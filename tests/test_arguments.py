from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

import evodeploy
from evodeploy.arguments import checked
from evodeploy.errors import UsageError


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("export", {"batch": True}, "batch is True, expected a whole number$"),
        ("export", {"batch": "8"}, "batch is '8', expected a whole number$"),
        ("export", {"elastic": 0.5}, r"elastic is 0.5, expected \(a number, a number\) or True$"),
        ("export", {"elastic": (0.5,)}, r"elastic is \(0.5,\), expected \(a number, a number\)"),
        ("export", {"stages": "4,8"}, "stages is '4,8', expected a list, each a whole number$"),
        ("export", {"keep_ratio": [0.5, None]}, r"keep_ratio is \[0.5, None\], expected a number or a list"),
        ("export", {"precision": ["fp16"]}, r"precision is \['fp16'\], expected one of fp32, fp16, bf16, int8, fp8$"),
        ("export", {"output": 3}, "output is 3, expected a string or a path$"),
        ("export", {"force": "no"}, "force is 'no', expected True or False$"),
        ("build", {"progress": 3}, "progress is 3, expected a function$"),
        ("bench", {"batches": 8}, "batches is 8, expected a list, each a whole number$"),
        ("evaluate", {"data": "x", "options": {"threads": 1}}, "options is {'threads': 1}, expected EngineOptions$"),
        ("load", {"max_batch": 1.5}, "max_batch is 1.5, expected a whole number$"),
        ("load_test", {"seconds": "10"}, "seconds is '10', expected a number$"),
        ("package", {"folder": "x", "device": "tpu"}, "device is 'tpu', expected one of cpu, gpu$"),
        ("roofline", {"gpus": 4090}, "gpus is 4090, expected a string or a list, each a string$"),
        ("sweep", {"output": "x", "images": 3}, "images is 3, expected a string or a path$"),
        ("verify", {"candidate": "x", "count": 1.5}, "count is 1.5, expected a whole number$"),
        ("visualize", {"images": "x", "keep_ratios": 0.5}, "keep_ratios is 0.5, expected a list, each a number or a l"),
    ],
)
def test_refuses_an_argument_of_another_type(function, arguments, message):
    with pytest.raises(UsageError, match=message):
        getattr(evodeploy, function)("missing", **arguments)


def test_public_functions_check_their_arguments():
    public = [getattr(evodeploy, name) for name in evodeploy.__all__]
    assert [each.__name__ for each in public if inspect.isfunction(each) and not hasattr(each, "__wrapped__")] == []


def test_numbers_of_other_libraries_become_pythons():
    @checked
    def given(ratio: float | Sequence[float], stages: Sequence[int] = (), size: int | None = None) -> list:
        return [ratio, stages, size]

    found = given(np.float32(0.5), [np.int64(4), 8], size=np.uint8(3))
    assert json.dumps(found) == "[0.5, [4, 8], 3]"
    assert json.dumps(given((Fraction(1, 4), 2.0))) == "[[0.25, 2.0], [], null]"
