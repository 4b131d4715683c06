"""How clear an artefact's selections are: the margin between the last token kept and the first one dropped.

A clear margin means that rounding will not change which tokens are kept. The share of class attention that the kept
tokens hold shows how much the others could add: if it is near 1, a lower keep ratio is worth a try. A network that
merges tokens does not select by class attention, so only its margins are measured.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from evodeploy.arguments import checked
from evodeploy.compare.relative import relative_margins
from evodeploy.compare.selections import SelectionOutput, run_selections, selecting
from evodeploy.datasets.sources import images_of
from evodeploy.elastic import ElasticStage, shortest_ratio
from evodeploy.engines.base import Engine
from evodeploy.engines.opener import Source, open_engine
from evodeploy.errors import UsageError
from evodeploy.images import Images
from evodeploy.preprocess import pictures
from evodeploy.specs import EngineOptions
from evodeploy.text import WIDE, plain, rich_table

if TYPE_CHECKING:
    from rich.table import Table

_log = logging.getLogger(__name__)

_NO_ATTENTION = (
    "tokens merge: the kept ones are least similar to any other, not those with most class attention, so its share\n"
    "does not show which keep ratio is enough: measure that with `evodeploy eval`"
)
SHARES = (0.9, 0.95)  # of the class attention, for which keep ratios are reported


@dataclass(frozen=True)
class Spread:
    """A figure over images: the median, and the value that 95 % of images reach."""

    median: float
    worst: float

    def __format__(self, form: str) -> str:
        return f"{self.median:{form}} ({self.worst:{form}})"


@dataclass(frozen=True)
class SelectionMargins:
    """One selection that keeps `kept` of `tokens` tokens.

    `margin` is the difference of the K-th and the (K+1)-th score, relative to their mean. `attention` is the share of
    the class attention that the kept tokens hold, and `keep_ratios` the share of tokens that would hold each of
    `SHARES` of it. If tokens are merged, `attention` is None and `keep_ratios` is empty.
    """

    name: str
    kept: int
    tokens: int
    margin: Spread
    attention: Spread | None
    keep_ratios: dict[float, Spread]


@dataclass(frozen=True)
class Margins:
    """The margins of every selection that drops tokens; as a string it is the output of `evodeploy margins`.

    `images` is the number of images. `recommended` are keep ratios by stage at which 95 % of images keep each of
    `SHARES` of the class attention, within the bounds of an elastic artefact. It is empty for a static artefact, if a
    stage keeps every token, or if tokens are merged.
    """

    images: int
    selections: tuple[SelectionMargins, ...]
    recommended: dict[float, tuple[float, ...]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain values for JSON."""
        selections = [dataclasses.asdict(each) for each in self.selections]
        return {"images": self.images, "selections": selections, "recommended": self.recommended}

    def __str__(self) -> str:
        merged = any(each.attention is None for each in self.selections)
        attention = _NO_ATTENTION if merged else "attention: the share of the class attention that the kept tokens hold"
        return (
            f"{self.images} images: the median, and in brackets the value that 95 % of images reach\n\n"
            f"{plain(_table(self.selections), WIDE)}\n\n"
            "margin: between the last score kept and the first dropped, relative to them\n"
            f"{attention}"
            + "".join(
                f"\nfor {share:.0%} of it in 95 % of images: --keep-ratio {','.join(f'{ratio:g}' for ratio in ratios)}"
                for share, ratios in self.recommended.items()
            )
        )


@checked
def margins(
    artefact: Source, images: Images, *, engine: str | None = None, options: EngineOptions | None = None
) -> Margins:
    """Measure how clear each selection of `artefact` is on `images`, and which keep ratio holds most class attention.

    A network that merges tokens does not select by class attention, so only its margins are measured. `artefact` is a
    checkpoint, or an ONNX file or engine exported with its selections as outputs. Raises UsageError if it keeps every
    token, or does not output its selections and their scores.
    """
    with open_engine(artefact, engine, options, tokens=True) as opened:
        seen = pictures(images_of(images), selecting(opened))
        _log.info(f"running {opened.name} on {len(seen)} images")
        return margins_on(opened, seen)


def margins_on(engine: Engine, seen: NDArray[np.uint8]) -> Margins:
    """Measure an open `engine` on the images `seen` (N, size, size, 3); raises the same errors as `margins`."""
    dropping = (each for each in run_selections(engine, seen) if each.positions.shape[1] < each.tokens)
    found = tuple(_margins(each) for each in dropping)
    return Margins(len(seen), found, _recommended(found, selecting(engine).elastic))


def _recommended(
    selections: tuple[SelectionMargins, ...], stages: tuple[ElasticStage, ...]
) -> dict[float, tuple[float, ...]]:
    if len(selections) != len(stages) or any(not each.keep_ratios for each in selections):
        return {}
    return {
        share: tuple(
            _ratio(each.keep_ratios[share].worst, stage) for each, stage in zip(selections, stages, strict=True)
        )
        for share in SHARES
        if stages
    }


def _ratio(wanted: float, stage: ElasticStage) -> float:
    """Return the ratio with the fewest digits that keeps the share `wanted` of the tokens, within `stage`'s bounds."""
    kept = min(max(math.ceil(wanted * stage.tokens - 1e-9), stage.low), stage.high)  # 7 / 100 * 100 is above 7
    return shortest_ratio(kept, stage.tokens)


def _margins(selection: SelectionOutput) -> SelectionMargins:
    if selection.scores is None:
        raise UsageError("the artefact does not output the scores that it selects by: export it with --tokens again")
    ordered = -np.sort(-selection.scores.astype(np.float64), axis=1)
    kept, tokens = selection.positions.shape[1], selection.tokens
    margin = _spread(relative_margins(selection.scores, kept), 5)
    if selection.merged:
        return SelectionMargins(selection.title, kept, tokens, margin, None, {})
    held = np.cumsum(ordered, axis=1) / ordered.sum(axis=1, keepdims=True)
    return SelectionMargins(
        selection.title,
        kept,
        tokens,
        margin,
        attention=_spread(held[:, kept - 1], 5),
        keep_ratios={share: _spread(((held < share).sum(axis=1) + 1) / tokens, 95) for share in SHARES},
    )


def _spread(values: NDArray[np.float64], worst: int) -> Spread:
    """Return the median, and an image's value that 95 % of images reach: with few images none is exactly at 95 %."""
    method: Literal["lower", "higher"] = "lower" if worst < 50 else "higher"
    return Spread(float(np.median(values)), float(np.percentile(values, worst, method=method)))


def _table(selections: tuple[SelectionMargins, ...]) -> Table:
    attention = ["attention", *(f"{share:.0%} of it at" for share in SHARES)]
    shown = any(each.attention is not None for each in selections)
    table = rich_table(("selection", "keeps", "margin", *(attention if shown else ())), ["selection"])
    for each in selections:
        table.add_row(
            each.name,
            f"{each.kept} of {each.tokens}",
            f"{each.margin:.2%}",
            *([f"{each.attention:.1%}"] if each.attention is not None else []),
            *(f"{ratio:.2f}" for ratio in each.keep_ratios.values()),
        )
    return table
