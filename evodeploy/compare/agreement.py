"""The agreement of two artefacts, image by image: logits, top-1, and the tokens that each selection keeps.

A different token is not necessarily an error. If the scores of the last kept and the first dropped token nearly tie,
rounding decides between them, and later selections and the logits of that image then differ too. So each image is
judged separately, and each differing token by its score.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evodeploy.compare.relative import as_ranked, relative_errors, thresholds
from evodeploy.compare.selections import OF_A_SELECTION, on_grid, renumbered, shared_selections
from evodeploy.compare.tolerance import Tolerance
from evodeploy.engines.base import Array
from evodeploy.text import WIDE, plain

# Limit for the logits of the median image if near ties gave tokens other owners, or kept other tokens in every image:
# both change the outputs a little. With random weights, the median image differed by up to 2e-2.
NEAR_TIES_EFFECT = 5e-2


@dataclass(frozen=True)
class LogitAgreement:
    """Logits of all images, and of the `unmoved` ones, whose selections kept the same tokens and merged them alike.

    Errors are relative to the reference's largest magnitude, `scale`; cosines are between the two logit vectors of an
    image. `max_error_unmoved` is the error of the image nearest to its limit or furthest beyond it, and `limit` is that
    limit. In `regrouped` images the same tokens were kept, but near ties gave some of the others another owner, so the
    computation differs slightly: `median_error` is that of the median image with the same tokens, or of all images if
    none has the same, and `median_limit` its limit. `top1` is None for features of a network without a classifier.
    """

    images: int
    unmoved: int
    max_error: float
    mean_error: float
    max_error_unmoved: float
    min_cosine: float
    median_cosine: float
    top1: float | None
    scale: float
    limit: float
    regrouped: int = 0
    median_error: float = 0.0
    median_limit: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the unmoved images, and the median image if it is judged, are within their limits."""
        return self.max_error_unmoved <= self.limit and self.median_error <= self.median_limit


@dataclass(frozen=True)
class SelectionAgreement:
    """One selection: images with the same set kept, the mean Jaccard index, and the differing tokens by their cause.

    For the owners of merged tokens, it counts images with the same owners, and tokens with another owner.

    `near_ties` differ by less than rounding moves a score, `consequences` follow another difference in their image,
    `errors` are neither. `largest_gap` covers differing tokens other than `consequences`: the largest distance of a
    score to the threshold, relative to it, or the largest margin of an owner. It is None if no scores are known.
    """

    name: str
    identical: int
    jaccard: float
    agreement: float
    near_ties: int
    consequences: int
    errors: int
    largest_gap: float | None


@dataclass(frozen=True)
class Agreement:
    """The whole comparison and its tolerance; as a string it is the output of `evodeploy verify`."""

    logits: LogitAgreement
    selections: tuple[SelectionAgreement, ...]
    tolerance: Tolerance

    @property
    def passed(self) -> bool:
        """Whether no selection has errors and the logits of images with the same selections are within tolerance."""
        return self.logits.passed and not any(s.errors for s in self.selections)

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain values for JSON."""
        return {"passed": self.passed} | dataclasses.asdict(self)

    def __str__(self) -> str:
        from evodeploy.compare.agreement_tables import logits_table, selections_table  # imports rich

        selections = "selections are not compared: export the ONNX with --tokens to see them"
        if self.selections:
            selections = plain(selections_table(self), WIDE)
        return (
            f"{self.logits.images} images\n\n{plain(logits_table(self), WIDE)}\n\n{selections}\n\n"
            f"tolerance of {self.tolerance.reason}\n{'PASSED' if self.passed else 'FAILED'}"
        )


def agreement(
    expected: dict[str, Array],
    got: dict[str, Array],
    tolerance: Tolerance,
    grid: int,
    limits: dict[str, Array] | None = None,
) -> Agreement:
    """Compare outputs of N images: `logits` (N, classes), and if both have them `selected_i` (N, K), `owner_i`.

    Features of a network without a classifier are compared in the same way as logits. So are `probabilities`, those of
    the same `classes`, which hardly change if two classes nearly tie and swap ranks. `scores_i` and `owner_margin_i`
    (N, tokens) of `expected`, if present, separate near-ties from errors. `selected_i` holds positions in the first
    grid, with `grid` patches along a side. `limits` (N,) by output widen the tolerance of single images; they are
    relative to the largest magnitude of the image. A selection that keeps every token is ignored if only one of the two
    makes it.
    """
    ours, theirs = shared_selections(expected, got), shared_selections(got, expected)
    expected, limits, got = renumbered(expected, ours), renumbered(limits or {}, ours), renumbered(got, theirs)
    output = next(name for name in ("logits", "features", "probabilities") if name in expected)
    count = len(expected[output])
    moved, merged = np.zeros(count, bool), np.zeros(count, bool)  # images with other tokens kept, or with other owners
    selections = []
    both = set(expected) & set(got)
    for index in range(sum(name.startswith("selected_") for name in both)):
        name, scored, owner, margin = (f"{what}_{index}" for what in OF_A_SELECTION)
        if name in both:
            allowed = np.maximum(tolerance.score, limits.get(scored, np.zeros(count)))
            scores = expected.get(scored)
            judged, differs = _selection(name, expected[name], got[name], scores, moved | merged, allowed, grid)
            selections.append(judged)
            moved |= differs
        if owner in both:
            allowed = np.maximum(tolerance.score, limits.get(margin, np.zeros(count)))
            judged, differs = _owners(owner, expected[owner], got[owner], expected.get(margin), moved | merged, allowed)
            selections.append(judged)
            merged |= differs
    ranked = output == "probabilities"
    answers = as_ranked(expected["classes"], got["classes"], got[output]) if ranked else got[output]
    logits = _logits(expected[output], answers, moved, merged, tolerance, limits.get(output, np.zeros(count)))
    if output == "features":
        logits = dataclasses.replace(logits, top1=None)
    elif ranked:
        same = expected["classes"][:, 0] == got["classes"][:, 0]
        logits = dataclasses.replace(logits, top1=float(same.mean()))
    return Agreement(logits, tuple(selections), tolerance)


def _logits(
    expected: Array, got: Array, moved: Array, merged: Array, tolerance: Tolerance, limits: NDArray[np.float64]
) -> LogitAgreement:
    """Judge the logits of N images. `moved` and `merged` (N,) mark those with other tokens kept, and other owners."""
    expected, got = expected.astype(np.float64), got.astype(np.float64)
    scale = float(np.abs(expected).max()) or 1.0
    errors = relative_errors(expected, got, scale)
    allowed = np.maximum(tolerance.logits + tolerance.absolute / scale, limits * np.abs(expected).max(axis=1) / scale)
    judged, regrouped = np.flatnonzero(~moved & ~merged), int((merged & ~moved).sum())
    same = ~moved | moved.all()  # if near ties moved every image, the median of all is judged: no other can be
    by_median = bool(regrouped or moved.all())
    worst = judged[(errors - allowed)[judged].argmax()] if judged.size else None
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(got, axis=1)
    cosines = (expected * got).sum(axis=1) / np.where(norms > 0, norms, 1)
    return LogitAgreement(
        images=len(expected),
        unmoved=judged.size,
        max_error=float(errors.max()),
        mean_error=float(errors.mean()),
        max_error_unmoved=0.0 if worst is None else float(errors[worst]),
        min_cosine=float(cosines.min()),
        median_cosine=float(np.median(cosines)),
        top1=float((expected.argmax(axis=1) == got.argmax(axis=1)).mean()),
        scale=scale,
        limit=float(allowed.min() if worst is None else allowed[worst]),
        regrouped=regrouped,
        median_error=float(np.median(errors[same])) if by_median else 0.0,
        median_limit=max(NEAR_TIES_EFFECT, float(np.median(allowed[same]))) if by_median else 0.0,
    )


def _selection(
    name: str, expected: Array, got: Array, scores: Array | None, moved: Array, allowed: Array, grid: int
) -> tuple[SelectionAgreement, Array]:
    differs = np.zeros(len(expected), bool)
    jaccards, near, consequences, errors, gaps = [], 0, 0, 0, []
    for i, (ours, theirs) in enumerate(zip(expected, got, strict=True)):
        lost, won = np.setdiff1d(ours, theirs), np.setdiff1d(theirs, ours)
        differs[i] = bool(len(lost) or len(won))
        common = len(ours) - len(lost)
        jaccards.append(common / (common + len(lost) + len(won)))
        if moved[i]:
            consequences += len(lost)
            continue
        errors += abs(len(theirs) - len(ours))  # rounding cannot change the number of tokens
        if scores is None:
            errors += len(lost)
        else:
            gap = _gaps(scores[i], len(ours), np.concatenate([lost, won]), grid) if len(lost) else np.empty(0)
            gaps += gap.tolist()
            beyond = gap > allowed[i]
            flipped = max(int(beyond[: len(lost)].sum()), int(beyond[len(lost) :].sum()))
            errors += flipped
            near += len(lost) - flipped
    kept = expected.size
    judged = SelectionAgreement(
        name=name,
        identical=int((~differs).sum()),
        jaccard=float(np.mean(jaccards)),
        agreement=1 - (near + consequences + errors) / kept,
        near_ties=near,
        consequences=consequences,
        errors=errors,
        largest_gap=max(gaps, default=0.0) if scores is not None else None,
    )
    return judged, differs


def _owners(
    name: str, expected: Array, got: Array, margins: Array | None, moved: Array, allowed: Array
) -> tuple[SelectionAgreement, Array]:
    other = expected != got
    differs = other.any(axis=1)
    judged = other & ~moved[:, None]
    beyond = judged if margins is None else judged & (margins > allowed[:, None])
    errors = int(beyond.sum())
    return SelectionAgreement(
        name=name,
        identical=int((~differs).sum()),
        jaccard=float((~other).mean()),
        agreement=float((~other).mean()),
        near_ties=int(judged.sum()) - errors,
        consequences=int(other.sum() - judged.sum()),
        errors=errors,
        largest_gap=None if margins is None else float(margins[judged].max(initial=0.0)),
    ), differs


def _gaps(scores: Array, keep: int, positions: Array, grid: int) -> Array:
    """Return the distances of the tokens at first-grid `positions` to the threshold of `scores`, relative to it."""
    (threshold,) = thresholds(scores[None], keep)
    tokens = on_grid(positions, grid, math.isqrt(len(scores)))
    gaps: Array = np.abs(scores[tokens] - threshold) / abs(threshold)
    return gaps
