from __future__ import annotations

from bench.fakes import raced

from evodeploy.bench.candidates import candidates_of, usual_engines
from evodeploy.bench.subject import subject_of


def test_on_a_gpu_every_mode_of_torch_compile_is_usual(small_checkpoint, monkeypatch):
    monkeypatch.setattr("evodeploy.bench.torch_rows.driver_problem", lambda: None)
    assert usual_engines(subject_of([small_checkpoint]))[:5] == (
        "torch", "torch-channels-last", "torch-compile", "torch-compile-reduce-overhead", "torch-compile-max-autotune",
    )  # fmt: skip


def test_pytorch_runs_in_half_precision_and_says_what_it_cannot_do(small_checkpoint):
    engines = ["torch", "torch-autocast", "torch-compile-reduce-overhead"]
    with candidates_of(subject_of([small_checkpoint]), engines, ["fp32", "bf16"], threads=1) as candidates:
        rows = raced([candidate for candidate in candidates if candidate.role == "evo"], [2])
    assert [(row.label, row.timing is not None, row.wrong) for row in rows] == [
        ("torch fp32", True, False),
        ("torch bf16", True, False),
        ("torch-autocast fp32", False, False),
        ("torch-autocast bf16", True, False),
        ("torch-compile-reduce-overhead fp32", False, False),
        ("torch-compile-reduce-overhead bf16", False, False),
    ]
    assert "is the same as torch" in rows[2].reason
    assert "is the same as torch-compile" in rows[4].reason
