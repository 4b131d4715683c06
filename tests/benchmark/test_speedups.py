from __future__ import annotations

import dataclasses

import pytest
from benchmark.fakes import row

from evodeploy.benchmark.judge import Verdict
from evodeploy.benchmark.report.speedups import crossovers, fastest_torch, over_dense, over_eager, over_torch


def test_ratios_are_medians_over_rounds_for_noise_slows_both():
    noise = [1, 9, 1, 1, 5, 1]
    eager, fast = row("torch", [4 * n for n in noise]), row("openvino", [2 * n for n in noise])
    ratio = over_eager(fast, [eager, fast])
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((2, 2, 2))
    assert over_eager(eager, [eager, fast]).value == 1
    assert over_eager(fast, [fast]) is None


def test_the_fastest_of_pytorch_computes_right_on_the_same_model_with_the_same_transfers():
    torch, compiled = row("torch", 4, batch=8), row("torch-compile-max-autotune", 3, batch=8)
    wrong = dataclasses.replace(row("torch", 1, batch=8), verdict=Verdict(16, 1.0, 1.0, 0.1, 0.0, None))
    resident = dataclasses.replace(row("torch", 1, batch=8), transfers="resident")
    other = [row("torch", 1, batch=8, role="dense"), row("torch", 1, batch=1), row("openvino", 1, batch=8)]
    fast = row("onnxruntime", 2, batch=8)
    rows = [wrong, resident, *other, torch, compiled, fast]
    assert fastest_torch(fast, rows) is compiled
    assert over_torch(fast, rows).value == pytest.approx(1.5)
    assert over_torch(fast, [fast]) is None


def test_a_halved_batch_is_compared_by_throughput():
    eager = row("torch", 8, batch=8)
    halved = dataclasses.replace(row("openvino", 2, batch=4), asked=8)
    assert over_eager(halved, [eager, halved]).value == pytest.approx(2)


def test_selection_pays_from_the_batch_after_the_last_that_loses():
    rows = []
    for batch, evo, dense in ((1, 5, 4), (2, 4, 5), (4, 5, 5), (8, 4, 6), (16, 8, 12)):
        rows += [row("openvino", evo, batch), row("openvino", dense, batch, role="dense")]
    (crossover,) = crossovers(rows)
    assert (crossover.label, crossover.batch) == ("openvino fp32", 8)
    assert crossover.sentence == "selection pays from batch 8 up (1 to 16 measured)"
    assert over_dense(rows[1], rows) is None
    unshown = "not shown that selection pays (1 measured): at batch 1 it may be no faster"
    assert crossovers(rows[:2])[0].sentence == unshown
    assert crossovers(rows[6:])[0].sentence == "selection pays at every batch measured (8 to 16)"


def test_what_computes_something_else_or_was_halved_does_not_show_that_selection_pays():
    rows = [row("openvino", 1, 8), row("openvino", 2, 8, role="dense")]
    assert [crossover.batch for crossover in crossovers(rows)] == [8]
    wrong = [dataclasses.replace(each, verdict=Verdict(16, 1.0, 1.0, 0.1, 0.0, None)) for each in rows]
    assert crossovers([wrong[0], rows[1]]) == []
    assert crossovers([rows[0], wrong[1]]) == []
    assert over_dense(rows[0], [rows[0], wrong[1]]) is None
    assert crossovers([dataclasses.replace(rows[0], asked=16), dataclasses.replace(rows[1], asked=16)]) == []
    full = dataclasses.replace(rows[0], asked=16, batch=16)
    assert crossovers([full, dataclasses.replace(rows[1], asked=16)]) == []


def test_files_of_the_same_precision_have_a_crossover_each():
    def of(artefact, milliseconds):
        each = row("onnxruntime", milliseconds)
        return dataclasses.replace(each, spec=dataclasses.replace(each.spec, artefact=artefact))

    found = crossovers([of("a.onnx", 1), of("b.onnx", 3), row("onnxruntime", 2, role="dense")])
    assert [(one.label, one.batch) for one in found] == [
        ("onnxruntime fp32 a.onnx", 1), ("onnxruntime fp32 b.onnx", None)
    ]  # fmt: skip


def test_faster_by_the_median_but_not_by_the_interval_is_not_shown():
    rows = [row("openvino", [4, 6, 4, 6, 4, 6], 8), row("openvino", [5, 5, 6, 5.5, 5, 5], 8, role="dense")]
    assert over_dense(rows[0], rows).value > 1 > over_dense(rows[0], rows).low
    (crossover,) = crossovers(rows)
    assert crossover.batch is None
    assert crossover.sentence.startswith("not shown that selection pays")
