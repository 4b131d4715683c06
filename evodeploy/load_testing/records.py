"""What a server answered under load."""

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
ANSWERED = ("200", "OK")  # by HTTP and by gRPC
REFUSED = ("429", "503", "RESOURCE_EXHAUSTED")  # gRPC's UNAVAILABLE is also a connection that was lost


class Reply(NamedTuple):
    """What came of a request: its status, the keep ratio that it names, and whether its class is the picture's.

    The status of a request without an answer is the name of the error. `right` is None where no class is known.
    """

    status: str
    keep_ratio: float | None = None
    right: bool | None = None


@dataclass(frozen=True)
class Outcome:
    """One request: the seconds from when it was to be sent to its answer, and the fields of a `Reply`."""

    seconds: float
    status: str
    keep_ratio: float | None = None
    right: bool | None = None


@dataclass(frozen=True)
class Load:
    """One load: `rate` requests a second, or as many `connections` as fast as they are answered; took `seconds`.

    `target` is the seconds in which an answer is in time. Requests were sent in the first `sending` seconds, None for
    all of them: the last answers may come later.
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
        """Those with status 200, or OK."""
        return [each for each in self.outcomes if each.status in ANSWERED]

    @property
    def answers(self) -> dict[str, int]:
        """How many of each status."""
        return dict(collections.Counter(each.status for each in self.outcomes))

    @property
    def refused(self) -> int:
        """How many got 429 or 503, or RESOURCE_EXHAUSTED."""
        return sum(each.status in REFUSED for each in self.outcomes)

    @property
    def failed(self) -> int:
        """How many were neither answered nor refused."""
        return len(self.outcomes) - len(self.answered) - self.refused

    @property
    def in_time(self) -> float | None:
        """The share of all requests that was answered within the target; None without one."""
        if self.target is None or not self.outcomes:
            return None
        return sum(each.seconds <= self.target for each in self.answered) / len(self.outcomes)

    @property
    def keep_ratio(self) -> float | None:
        """The mean keep ratio of the answers that name theirs."""
        ratios = [each.keep_ratio for each in self.answered if each.keep_ratio is not None]
        return sum(ratios) / len(ratios) if ratios else None

    @property
    def accuracy(self) -> float | None:
        """The share of the answers whose class is the picture's; None where no classes are known."""
        known = [each.right for each in self.answered if each.right is not None]
        return sum(known) / len(known) if known else None

    def quantile(self, share: float) -> float | None:
        """The seconds within which this share of the answers came: the smallest that was measured; None without any."""
        ordered = sorted(each.seconds for each in self.answered)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None

    def cells(self) -> tuple[str, ...]:
        """The values of `HEADINGS`."""
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
    """What the server at `url` answered to each of the `loads`, asked for `what`."""

    url: str
    what: str
    loads: tuple[Load, ...]

    def __str__(self) -> str:
        table = rich_table(HEADINGS)
        for load in self.loads:
            table.add_row(*load.cells())
        return f"{self.url}: {self.what}\n{plain(table, WIDE)}"

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON: latencies in seconds, in the order of the answers."""
        return {"schema": SCHEMA, "url": self.url, "what": self.what, "loads": [_document(load) for load in self.loads]}

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write it as JSON (.json) or as a page (.html); raises UsageError for another suffix or a file that exists."""
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
