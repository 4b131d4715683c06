"""What `inspect` says of the work of one image: at each keep ratio that of the static export at that ratio."""

from __future__ import annotations

import dataclasses
import json

import pytest
from cases import SMALL
from levit_cases import small as small_levit

from evodeploy.exporter.to_onnx import onnx_from_model
from evodeploy.graph.flops import flops_of_onnx
from evodeploy.inspection.operations import gflop_per_image
from evodeploy.models.loaded import with_elastic
from evodeploy.models.random_weights import random_model
from evodeploy.models.zoo import with_selection
from evodeploy.onnx_files import info_of, read_onnx, write_onnx


def rounded(operations):
    return float(f"{operations / 1e9:.4g}")


def test_inspect_shows_the_operations_of_a_static_and_of_an_elastic_file(small_onnx, small_elastic, cli):
    static, elastic = (
        json.loads(cli("inspect", path, "--json")[1])["gflop_per_image"] for path in (small_onnx, small_elastic)
    )
    assert static == {"0.5": rounded(flops_of_onnx(read_onnx(small_onnx)))}
    assert list(elastic) == ["0.1", "0.2", "0.3", "0.5", "0.7", "0.85", "1"]
    assert list(elastic.values()) == sorted(elastic.values())
    assert elastic["0.5"] == static["0.5"]
    code, out, _ = cli("inspect", small_elastic)
    shown = next(line for line in out.splitlines() if line.startswith("gflop per image"))
    assert code == 0 and shown.endswith(", ".join(f"{ratio}: {gflop}" for ratio, gflop in elastic.items()))
    assert "tokens 64 low 6 high 64, tokens 64 low 6 high 64" in out


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        pytest.param(dataclasses.replace(SMALL, fast_path="merge"), marks=pytest.mark.slow),
        pytest.param(with_selection(SMALL, None, "layer"), marks=pytest.mark.slow),
        pytest.param(small_levit(), marks=pytest.mark.slow),
        pytest.param(with_selection(small_levit(), None, "layer"), marks=pytest.mark.slow),
    ],
    ids=["deit", "merged", "deit by layer", "levit", "levit by layer"],
)
def test_the_figure_at_a_ratio_is_that_of_the_static_export_at_that_ratio(config):
    elastic = with_elastic(random_model(config), (0.1, 1.0))
    proto = onnx_from_model(elastic)
    counted = gflop_per_image(proto, elastic.info)
    for ratio in (0.3, 1.0):
        exact = flops_of_onnx(onnx_from_model(random_model(with_selection(config, (ratio,)))))
        if elastic.info.fast_path == "merge" and ratio == 1:
            # What the dense twin does not: compare tokens with the 16 anchors and with all slow ones, and merge them.
            exact += sum(2 * each.tokens * (16 + 2 * each.tokens) * config.width for each in elastic.info.elastic)
        assert flops_of_onnx(proto, elastic.info.keep_of(ratio)) == exact
        assert counted[f"{ratio:g}"] == rounded(exact)


def test_ratios_are_those_of_the_bounds_and_of_each_stage(small_elastic):
    proto = read_onnx(small_elastic)
    info = info_of(proto)
    stages = [dataclasses.replace(stage, low=13, high=55) for stage in info.elastic]
    narrow = dataclasses.replace(
        info, elastic=(stages[0], dataclasses.replace(stages[1], low=20)), keep_ratios=(0.5, 0.4)
    )
    counted = gflop_per_image(proto, narrow)
    assert set(counted) == {"0.21/0.32", "0.5/0.4", "0.5", "0.7", "0.85", "0.86"}
    assert counted["0.5/0.4"] == rounded(flops_of_onnx(proto, (32, 25)))
    assert counted["0.21/0.32"] == rounded(flops_of_onnx(proto, (13, 20)))


def test_a_file_without_facts_has_no_ratio_to_count_at(small_onnx, tmp_path, cli):
    proto = read_onnx(small_onnx)
    del proto.metadata_props[:]
    write_onnx(proto, tmp_path / "plain.onnx")
    assert json.loads(cli("inspect", tmp_path / "plain.onnx", "--json")[1])["gflop_per_image"] is None
