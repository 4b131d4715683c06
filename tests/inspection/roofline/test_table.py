"""The table of six cards in the documentation, against the script that prints it."""

from __future__ import annotations

from pathlib import Path

import pytest
from roofline import tables, work_of

from evodeploy.models.zoo import dense_twin, named

PAGE = Path(__file__).parents[3] / "docs/howto/choose-a-gpu.md"


@pytest.mark.slow
def test_the_documented_table_is_what_the_script_prints(tmp_path):
    """With the version that the page names; another may choose other kernels, and then the page is printed anew."""
    page = PAGE.read_text(encoding="utf-8")
    config = named("evo_deit_small_patch16_224")
    evo, dense = work_of(config, tmp_path), work_of(dense_twin(config), tmp_path)
    assert f"TensorRT for RTX {evo.record.runtime_version}" in page
    for line in tables(evo, dense):
        assert f"{line}\n" in page
    operations = sum(kernel.operations for kernel in evo.networks[0].kernels) / 1e9
    assert f"{operations:.2f} GFLOP" in page and f"weights are\n{evo.weights / 1e6:.1f} MB" in page
