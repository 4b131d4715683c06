"""The work for one image at the keep ratios of an artefact, counted on its graph."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from evodeploy.elastic import shortest_ratio
from evodeploy.errors import InputError
from evodeploy.graph.flops import flops_of_onnx
from evodeploy.specs import ModelInfo
from evodeploy.text import ratios_in_words

if TYPE_CHECKING:
    import onnx

BETWEEN = (0.2, 0.3, 0.5, 0.7, 0.85)  # counted if the bounds of an elastic artefact allow them


def gflop_per_image(model: onnx.ModelProto, info: ModelInfo) -> dict[str, float] | None:
    """Count the billions of operations in the products of one image, by keep ratio; a multiply-add is two.

    A static `model` has one ratio. For an elastic one they are the lowest, its own, the highest and some `BETWEEN`,
    ordered from the least work to the most. Returns None if the operations cannot be counted.
    """
    counted = {}
    for ratios, keep in _choices(info):
        operations = flops_of_onnx(model, keep)
        if operations is None:
            return None
        counted[ratios_in_words(ratios)] = float(f"{operations / 1e9:.4g}")
    return dict(sorted(counted.items(), key=lambda item: item[1]))


def _choices(info: ModelInfo) -> Iterable[tuple[tuple[float, ...], tuple[int, ...]]]:
    """Yield keep ratios of the stages, with the numbers of tokens that they keep."""
    yield info.keep_ratios, info.keep_of()
    if not info.elastic:
        return
    for ends in ([stage.low for stage in info.elastic], [stage.high for stage in info.elastic]):
        yield (
            tuple(shortest_ratio(kept, stage.tokens) for kept, stage in zip(ends, info.elastic, strict=True)),
            tuple(ends),
        )
    for ratio in BETWEEN:
        try:
            yield (ratio,) * len(info.elastic), info.keep_of(ratio)
        except InputError:  # out of bounds
            continue
