"""The pure parts of benchmarks/accuracy.py: what equal work and equal time are, the front, tables and picture."""

from __future__ import annotations

import dataclasses
import json
import sys
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import pytest
import torch
from accuracy_entrants import equal_side
from accuracy_report import as_svg, equal_time, front, tables
from cases import SMALL
from token_merging import TokenMerging, equal_work, gflops, published, rows_per_block

from evodeploy.models.cost import cost_of
from evodeploy.models.random_weights import random_model
from evodeploy.models.saving import save_checkpoint
from evodeploy.models.zoo import dense_twin

DENSE = dense_twin(dataclasses.replace(SMALL, pooling="class", num_classes=0))


def _first(keys, r, class_token):
    return (lambda x: x[:, : x.shape[1] - min(r, (x.shape[1] - 1) // 2)]), None


# In place of the published code: drops the last tokens.
KEEPING_THE_FIRST = SimpleNamespace(
    bipartite_soft_matching=_first, merge_wavg=lambda merge, x, size: (merge(x), torch.ones_like(merge(x)[..., :1]))
)


def test_merging_nothing_costs_what_the_dense_network_does_and_more_always_less():
    assert gflops(DENSE, 0) == pytest.approx(cost_of(DENSE).gflops)
    costs = [gflops(DENSE, r) for r in range(12)]
    assert costs == sorted(costs, reverse=True) and len(set(costs)) == len(costs)


def test_equal_work_is_the_nearest_r():
    between = [(gflops(DENSE, r) + gflops(DENSE, r + 1)) / 2 for r in range(4)]
    most = -(-DENSE.tokens // DENSE.depth)
    assert [equal_work(DENSE, gflops(DENSE, r)) for r in range(most + 1)] == list(range(most + 1))
    assert [equal_work(DENSE, work * 1.001) for work in between] == [0, 1, 2, 3]
    assert equal_work(DENSE, 0.0) == most


def test_equal_work_of_fewer_pixels_is_a_whole_number_of_patches():
    sides = range(DENSE.patch_size, DENSE.image_size + 1, DENSE.patch_size)
    works = [cost_of(dataclasses.replace(DENSE, image_size=side)).gflops for side in sides]
    assert [equal_side(DENSE, work) for work in works] == list(sides)


def test_token_merging_runs_the_dense_network_on_the_rows_that_its_formula_counts():
    seen = []

    def matching(keys, r, class_token):
        seen.append((keys.shape[1], r, class_token))
        return KEEPING_THE_FIRST.bipartite_soft_matching(keys, r, class_token)

    merging = SimpleNamespace(bipartite_soft_matching=matching, merge_wavg=KEEPING_THE_FIRST.merge_wavg)
    model = random_model(DENSE, seed=3)
    images = torch.randn(2, 3, DENSE.image_size, DENSE.image_size)
    expected = model.module(images)
    assert torch.allclose(TokenMerging(model.module, 0, merging)(images)[0], expected, atol=1e-5)
    assert not seen
    merged = TokenMerging(model.module, 7, merging)(images)[0]
    assert merged.shape == expected.shape and not torch.allclose(merged, expected, atol=1e-5)
    assert seen == [(rows, 7, True) for rows, _ in rows_per_block(DENSE, 7)]


def test_published_code_is_loaded_alone_or_its_absence_named(tmp_path):
    with pytest.raises(SystemExit, match="git clone"):
        published(tmp_path)
    (tmp_path / "tome").mkdir()
    (tmp_path / "tome" / "__init__.py").write_text("import timm_of_2022")
    (tmp_path / "tome" / "merge.py").write_text("def merge_wavg(): return 7")
    assert published(tmp_path).merge_wavg() == 7


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([(1.0, 0.96), (1.5, 0.95), (1.4, 0.94), (2.0, 0.90)], [3, 1, 0]),
        ([(1.0, 0.96), (1.5, 0.96)], [1]),
        ([(1.5, 0.9), (1.5, 0.95), (1.5, 0.95)], [1]),
        ([], []),
    ],
)
def test_the_front_is_what_no_other_beats(places, expected):
    assert front(places) == expected


def test_equal_time_is_the_least_r_that_is_no_slower():
    speeds = {8: 1.1, 13: 1.3, 18: 1.5}
    assert [equal_time(speed, speeds) for speed in (1.0, 1.3, 1.31, 1.6)] == [8, 13, 18, None]


def document():
    def row(method, setting, keep, speed, right):
        share = right.count("1") / len(right)
        value = {"value": speed, "low": speed - 0.1, "high": speed + 0.1}
        return {
            "method": method, "setting": setting, "keep": keep, "gflops": 4.0, "accuracy": share,
            "low": share - 0.05, "high": min(1.0, share + 0.05), "as_dense": 1.0, "right": right,
            "speed": {"openvino": value},
        }  # fmt: skip

    return {
        "settings": {"train": 9, "test": 8, "batch": 2, "rounds": 6},
        "load": [0.5, 2.0],
        "environment": {"cores": 2},
        "runtimes": {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"},
        "rows": [
            row("dense", "", None, 1.0, "11111111"),
            row("Evo, tokens merge", "keep 0.5", 0.5, 1.45, "11111110"),
            row("ToMe", "r 13", 0.5, 1.3, "11111100"),
            row("ToMe", "r 18", None, 1.5, "11111011"),
        ],
        "programs": [
            {
                "name": "dense", "attentions_of": 12, "kernels": 97, "gemms": 49, "attentions": 12,
                "activation_bytes": 9e7,
            },
            {"name": "ToMe, r 13", "attentions_of": 12, "reason": "no such operator"},
        ],
    }  # fmt: skip


def test_tables_mark_the_front_and_compare_with_tome_at_equal_work_and_equal_time():
    lines = list(tables(document()))
    cells = {tuple(line.strip("| ").split(" | ")[:2]): line for line in lines[2:] if line.count(" | ") == 7}
    assert "| **1.50** (1.40–1.60) |" in cells["ToMe", "r 18"] and "| **1.00** (" in cells["dense", "–"]
    assert "| 1.45 (" in cells["Evo, tokens merge", "keep 0.5"] and "| 1.30 (" in cells["ToMe", "r 13"]
    against = [line for line in lines if line.startswith("| Evo, tokens merge, keep 0.5")]
    assert "r 13 (equal work) | 1 and 0 | 1 |" in against[0]
    assert "r 18 (equal time, OpenVINO) | 1 and 1 | 1 |" in against[1] and len(against) == 2
    assert lines[-2] == "| dense | 97 | 49 | 12 of 12 | 90 MB |"
    assert lines[-1].startswith("| ToMe, r 13 | not built: no such operator")


def test_the_picture_has_a_panel_for_each_runtime_and_a_point_for_each_row():
    root = ElementTree.fromstring(as_svg(document()))
    names = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"PyTorch", "ONNX Runtime", "OpenVINO", "ToMe"} <= set(names)
    titles = [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}title")]
    assert sorted(words for words in titles if words.startswith("ToMe")) == [
        "ToMe r 13: 75.0% at 1.30",
        "ToMe r 18: 87.5% at 1.50",
    ]


@pytest.mark.slow
def test_the_whole_benchmark_on_a_small_network(tmp_path, monkeypatch, capsys):
    import accuracy
    import accuracy_entrants
    import real_weights

    save_checkpoint(random_model(DENSE, seed=3), tmp_path / "small.pth")
    monkeypatch.setattr(real_weights, "checkpoint", lambda path: tmp_path / "small.pth")
    monkeypatch.setattr(accuracy, "published", lambda checkout: KEEPING_THE_FIRST)
    monkeypatch.setattr(accuracy_entrants, "STAGES", (2, 4))
    monkeypatch.setattr(accuracy_entrants, "SIDE", DENSE.image_size)
    result, picture = tmp_path / "results" / "accuracy.json", tmp_path / "accuracy.svg"
    command = "accuracy.py --tome x --keep 0.5 --tome-r 5 --minutes 0 --train 100 --test 10 --batch 2 --rounds 6 --busy"
    monkeypatch.setattr(sys, "argv", [*command.split(), "-o", str(result), "--picture", str(picture)])
    accuracy.main()
    printed = capsys.readouterr().out
    assert "differs from PyTorch" not in printed
    written = json.loads(result.read_text())
    methods = [row["method"] for row in written["rows"]]
    assert methods == ["dense", "Evo, tokens rest", "Evo, tokens merge", "ToMe", "ToMe", "dense, fewer pixels"]
    assert all({*row["speed"]} == {"torch", "onnxruntime", "openvino"} for row in written["rows"])
    assert len(written["programs"]) == 4 and all(row.get("kernels", 1) for row in written["programs"])
    monkeypatch.setattr(sys, "argv", ["accuracy.py", "--show", "-o", str(result), "--picture", str(picture)])
    accuracy.main()
    assert capsys.readouterr().out == printed and picture.read_text().startswith("<svg")
