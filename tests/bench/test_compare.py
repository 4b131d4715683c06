from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from bench.fakes import report, row

from evodeploy.bench.compare import compare, read_document
from evodeploy.bench.document import as_json
from evodeploy.errors import BadFileError, UsageError


def document(scale=1.0, seed=0, count=60):
    """A bench of two rows whose runs vary by three per cent; the second row's times are multiplied by `scale`."""
    found = json.loads(json.dumps(as_json(report([row("torch", 4), row("openvino", 2)]))))
    noise = np.random.default_rng(seed).normal(1, 0.03, (2, count))
    for result, base, runs in zip(found["results"], (4, 2 * scale), noise, strict=True):
        result["samples_ms"] = (base * runs).tolist()
    return found


def verdicts(old, new, smallest=0.02):
    return [change.verdict for change in compare(old, new, smallest).changes]


def test_noise_is_no_change():
    assert all(verdicts(document(seed=i), document(seed=100 + i)) == ["same", "same"] for i in range(20))


def test_what_is_faster_or_slower_is_told():
    assert verdicts(document(), document(0.9, seed=1)) == ["same", "faster"]
    slower = compare(document(), document(1.1, seed=1), 0.02)
    assert [change.verdict for change in slower.changes] == ["same", "slower"]
    assert slower.regressed
    assert slower.changes[1].speedup.value == pytest.approx(1 / 1.1, abs=0.02)


def test_a_small_change_is_nobodys_concern():
    assert verdicts(document(), document(1.03, seed=1, count=400), smallest=0.05) == ["same", "same"]
    assert verdicts(document(count=400), document(1.03, seed=1, count=400), smallest=0.01) == ["same", "slower"]


def test_a_row_that_is_wrong_or_missing_now_is_broken():
    wrong, gone = document(seed=1), document(seed=1)
    wrong["results"][1]["status"] = "wrong"
    gone["results"][1] |= {"status": "unavailable", "reason": "no"}
    assert verdicts(document(), wrong)[1] == "broken"
    assert verdicts(document(), gone)[1] == "broken"
    del gone["results"][1]
    assert compare(document(), gone, 0.02).only_old == ("openvino fp32 (evo) at batch 1",)


@pytest.mark.parametrize(("part", "name"), [("environment", "processor"), ("model", "keep_ratios")])
def test_unlike_machines_and_models_are_refused(part, name):
    other = copy.deepcopy(document())
    other[part][name] = "another"
    with pytest.raises(UsageError, match=f"cannot be compared: the .*{name.replace('_', ' ')} is"):
        compare(document(), other, 0.02)


def test_what_is_no_document_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("{")
    with pytest.raises(BadFileError, match="is no JSON"):
        read_document(path)
    path.write_text('{"schema": 1}')
    with pytest.raises(BadFileError, match="schema 1, expected 2"):
        read_document(path)
