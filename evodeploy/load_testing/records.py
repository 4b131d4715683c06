"""The results of a load test."""

from __future__ import annotations

import collections
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from evodeploy.files import save_as
from evodeploy.kinds import PAGE, REPORT
from evodeploy.text import WIDE, plain, rich_table

SCHEMA = 1
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
HEADINGS = ("load", "offered/s", "answered/s", *QUANTILES, "refused", "failed", "in time", "keep ratio", "accuracy")
ANSWERED = ("200", "OK")  # over HTTP and over gRPC
REFUSED = ("429", "503", "RESOURCE_EXHAUSTED")  # without gRPC's UNAVAILABLE, which also means a lost connection


class Reply(NamedTuple):
    """The result of a request: its status, the keep ratio in the answer, and whether the class is that of the image.

    The status of a request without an answer is the name of the error. `right` is None if no class is known.
    """

    status: str
    keep_ratio: float | None = None
    right: bool | None = None


@dataclass(frozen=True)
class Outcome:
    """One request: the seconds from its intended time to its answer, and the fields of a `Reply`."""

    seconds: float
    status: str
    keep_ratio: float | None = None
    right: bool | None = None


@dataclass(frozen=True)
class Load:
    """One load of `seconds`: `rate` requests per second, or `connections` that each send when the last is answered.

    `target` is the number of seconds within which an answer is in time. Requests were sent in the first `sending`
    seconds, or all the time if it is None. The last answers may come later.
    """

    rate: float | None
    connections: int | None
    seconds: float
    target: float | None
    outcomes: tuple[Outcome, ...]
    sending: float | None = None

    @property
    def name(self) -> str:
        """The load in words."""
        return f"{self.rate:g}/s" if self.rate is not None else f"{self.connections} connections"

    @property
    def answered(self) -> list[Outcome]:
        """The requests with status 200, or OK."""
        return [each for each in self.outcomes if each.status in ANSWERED]

    @property
    def answers(self) -> dict[str, int]:
        """The number of requests for each status."""
        return dict(collections.Counter(each.status for each in self.outcomes))

    @property
    def refused(self) -> int:
        """The number of requests with status 429 or 503, or RESOURCE_EXHAUSTED."""
        return sum(each.status in REFUSED for each in self.outcomes)

    @property
    def failed(self) -> int:
        """The number of requests that were neither answered nor refused."""
        return len(self.outcomes) - len(self.answered) - self.refused

    @property
    def in_time(self) -> float | None:
        """The share of all requests that were answered within the target; None without a target."""
        if self.target is None or not self.outcomes:
            return None
        return sum(each.seconds <= self.target for each in self.answered) / len(self.outcomes)

    @property
    def keep_ratio(self) -> float | None:
        """The mean keep ratio of the answers that report it."""
        ratios = [each.keep_ratio for each in self.answered if each.keep_ratio is not None]
        return sum(ratios) / len(ratios) if ratios else None

    @property
    def accuracy(self) -> float | None:
        """The share of answers whose class is that of the image; None if no classes are known."""
        known = [each.right for each in self.answered if each.right is not None]
        return sum(known) / len(known) if known else None

    def quantile(self, share: float) -> float | None:
        """Return the smallest measured seconds within which this share of the answers came; None without answers."""
        ordered = sorted(each.seconds for each in self.answered)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None

    def cells(self) -> tuple[str, ...]:
        """Return the cells below `HEADINGS`."""
        quantiles = [self.quantile(share) for share in QUANTILES.values()]
        return (
            self.name,
            f"{len(self.outcomes) / (self.sending or self.seconds):.1f}",
            f"{len(self.answered) / self.seconds:.1f}",
            *("–" if value is None else f"{value * 1000:.1f} ms" for value in quantiles),
            str(self.refused),
            str(self.failed),
            "–" if self.in_time is None else f"{self.in_time:.1%}",
            "–" if self.keep_ratio is None else f"{self.keep_ratio:.2f}",
            "–" if self.accuracy is None else f"{self.accuracy:.1%}",
        )


@dataclass(frozen=True)
class LoadTest:
    """The answers of the server at `url` to each of the `loads`; `what` describes the requests."""

    url: str
    what: str
    loads: tuple[Load, ...]

    def __str__(self) -> str:
        table = rich_table(HEADINGS)
        for load in self.loads:
            table.add_row(*load.cells())
        return f"{self.url}: {self.what}\n{plain(table, WIDE)}"

    def to_dict(self) -> dict[str, Any]:
        """Return all results in a form ready for JSON: latencies in seconds, in the order of the answers."""
        return {"schema": SCHEMA, "url": self.url, "what": self.what, "loads": [_document(load) for load in self.loads]}

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write JSON (.json) or a page (.html). Raises UsageError for any other suffix, or if the file exists."""
        from evodeploy.load_testing.page import as_html

        forms = {REPORT: lambda: json.dumps(self.to_dict(), allow_nan=False) + "\n", PAGE: lambda: as_html(self)}
        save_as(path, "a load test", forms, force)


def _document(load: Load) -> dict[str, Any]:
    return {
        "rate": load.rate,
        "connections": load.connections,
        "seconds": load.seconds,
        "sending": load.sending,
        "target": load.target,
        "requests": len(load.outcomes),
        "answers": load.answers,
        "refused": load.refused,
        "failed": load.failed,
        "in_time": load.in_time,
        "keep_ratio": load.keep_ratio,
        "accuracy": load.accuracy,
        "latency": {name: load.quantile(share) for name, share in QUANTILES.items()},
        "latencies": _rounded(each.seconds for each in load.answered),
    }


def _rounded(values: Any) -> Sequence[float]:
    return [round(value, 6) for value in values]
