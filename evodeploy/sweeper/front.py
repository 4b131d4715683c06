"""The candidates that no other beats, and the one that meets a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from evodeploy.benchmark.measure.intervals import Interval
from evodeploy.errors import VerificationError
from evodeploy.evaluation.report import Accuracy
from evodeploy.sweeper.space import Candidate


@dataclass(frozen=True)
class Point:
    """A measured candidate: `speed` is relative to the sweep's reference, `rate` is in images per second.

    `seconds` are those of a batch. `accuracy` is None if there were no labelled images.
    """

    candidate: Candidate
    file: str
    speed: Interval
    rate: float
    seconds: float
    accuracy: Accuracy | None


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in accuracy and speed, the most accurate first, or just the fastest."""
    ordered = sorted(points, key=lambda point: (-_worth(point), -point.speed.value))
    best, kept = 0.0, []
    for point in ordered:
        if point.speed.value > best:
            kept.append(point)
            best = point.speed.value
    return kept


def chosen(points: Sequence[Point], latency: float | None, accuracy: float | None) -> Point:
    """Return the point to deploy for a `latency` limit in seconds of a batch, or a minimum top-1 `accuracy`.

    With a latency it is the most accurate one, and the fastest among equals; if accuracies are unknown, the one that
    keeps most tokens. Otherwise it is the fastest that is accurate enough. Raises VerificationError with the nearest
    miss if there is none.
    """
    able = [point for point in points if latency is None or point.seconds <= latency]
    if not able:
        nearest = min(points, key=lambda point: point.seconds)
        raise VerificationError(
            f"none takes {1000 * (latency or 0):g} ms or less: the fastest, {nearest.candidate}, takes "
            f"{1000 * nearest.seconds:.1f} ms"
        )
    enough = [point for point in able if accuracy is None or _worth(point) >= accuracy]
    if not enough:
        nearest = max(able, key=_worth)
        raise VerificationError(
            f"none reaches {accuracy:.2%}: the nearest, {nearest.candidate}, has {nearest.accuracy}"
        )
    if latency is not None:
        return max(enough, key=lambda point: (_worth(point), _kept(point), point.speed.value))
    return max(enough, key=lambda point: point.speed.value)


def _worth(point: Point) -> float:
    return point.accuracy.value if point.accuracy is not None else 0.0


def _kept(point: Point) -> float:
    """Return the mean share of tokens that the stages keep, a substitute for an unknown accuracy."""
    return mean(point.candidate.keep) if point.accuracy is None else 0.0
