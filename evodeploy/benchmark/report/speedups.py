"""Comparisons between rows: speedups, and the batch size from which selection pays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evodeploy.benchmark.measure.intervals import Interval, median_interval
from evodeploy.benchmark.row import Row
from evodeploy.benchmark.row_spec import Kept, Role
from evodeploy.engines.torch_modes import TORCH_MODES


@dataclass(frozen=True)
class Crossover:
    """The batch size from which the model is faster than its dense twin, on one engine.

    `batch` is None if that is not shown: the interval at the largest batch reaches 1. `batches` are those measured.
    """

    label: str
    batch: int | None
    batches: tuple[int, ...]

    @property
    def sentence(self) -> str:
        """The sentence about where selection pays."""
        among = f"{self.batches[0]} to {self.batches[-1]}" if len(self.batches) > 1 else str(self.batches[0])
        if self.batch is None:
            return f"not shown that selection pays ({among} measured): at batch {self.batches[-1]} it may be no faster"
        if self.batch == self.batches[0]:
            return f"selection pays at every batch measured ({among})"
        return f"selection pays from batch {self.batch} up ({among} measured)"


def eager(row: Row, rows: Sequence[Row]) -> Row | None:
    """Return the eager PyTorch row in FP32 of the model, measured like `row`; if elastic, at the same keep ratio."""
    eagers = (each for each in _peers(row, rows) if _is_eager(each))
    keep = row.spec.keep
    return next((each for each in eagers if (each.spec.keep == keep if keep else each.spec.role == "evo")), None)


def fastest_torch(row: Row, rows: Sequence[Row]) -> Row | None:
    """Return the fastest PyTorch row of the same model, in any precision, measured like `row`."""
    speeds = {
        each: speed.value
        for each in _peers(row, rows)
        if each.spec.engine in TORCH_MODES and _model(each) == _model(row) and not each.wrong
        if (speed := each.images_per_second)
    }
    return max(speeds, key=lambda each: speeds[each]) if speeds else None


def over_torch(row: Row, rows: Sequence[Row]) -> Interval | None:
    """Return the throughput relative to `fastest_torch`."""
    return _over(row, fastest_torch(row, rows))


def over_eager(row: Row, rows: Sequence[Row]) -> Interval | None:
    """Return the throughput relative to `eager`, at the same batch size, transfers and batches in flight."""
    return _over(row, eager(row, rows))


def over_dense(row: Row, rows: Sequence[Row]) -> Interval | None:
    """Return the throughput of the model relative to its dense twin on the same engine; None for the twin itself.

    A twin with wrong results does not count.
    """
    return _over(row, _twin(row, rows))


def crossovers(rows: Sequence[Row]) -> list[Crossover]:
    """Return one crossover for each engine that ran both. A batch counts if the whole interval is above 1.

    Rows with wrong results are excluded, and so are batches that were halved, of the model or of its twin.
    """
    ratios: dict[str, dict[int, Interval]] = {}
    for row in rows:
        twin = _twin(row, rows)
        ratio = _over(row, twin)
        if twin is not None and ratio is not None and not row.wrong and row.batch == twin.batch == row.asked:
            ratios.setdefault(name(row, rows), {})[row.batch] = ratio
    return [_crossover(label, by_batch) for label, by_batch in ratios.items()]


def label(row: Row, rows: Sequence[Row]) -> str:
    """Return the row's label, with its file if several of the same kind are compared."""
    alike = (one for one in rows if (one.label, one.spec.role) == (row.label, row.spec.role))
    peers = {one.spec.artefact for one in alike}
    return f"{row.label} {row.spec.artefact}" if len(peers) > 1 else row.label


def name(row: Row, rows: Sequence[Row]) -> str:
    """Return the label, whether the batch is resident, and the number of batches in flight if above one."""
    resident = " resident" if row.transfers == "resident" else ""
    return label(row, rows) + resident + (f", {row.in_flight} in flight" if row.in_flight > 1 else "")


def _crossover(label: str, by_batch: dict[int, Interval]) -> Crossover:
    batches = sorted(by_batch)
    losing = [batch for batch in batches if by_batch[batch].low <= 1]
    paying = [batch for batch in batches if not losing or batch > losing[-1]]
    return Crossover(label, paying[0] if paying else None, tuple(batches))


def _twin(row: Row, rows: Sequence[Row]) -> Row | None:
    """Return the row of the dense twin on the same engine, measured like `row`, if its results are not wrong."""
    if row.spec.role == "dense":
        return None
    twins = (each for each in _peers(row, rows) if each.way == row.way and each.spec.role == "dense")
    return next((twin for twin in twins if not twin.wrong), None)


def _is_eager(row: Row) -> bool:
    return row.spec.engine == "torch" and row.precision == "fp32"


def _model(row: Row) -> tuple[Role, Kept | None]:
    """Return what is computed. Rows with the same value may differ in how they compute it."""
    return row.spec.role, row.spec.keep


def _peers(row: Row, rows: Sequence[Row]) -> Iterator[Row]:
    """Return the rows that were measured like `row`: same batch size, transfers and number of batches in flight."""
    how = (row.asked, row.transfers, row.in_flight)
    return (each for each in rows if (each.asked, each.transfers, each.in_flight) == how)


def _over(row: Row, other: Row | None) -> Interval | None:
    """Return the throughput relative to `other`: the median over rounds, since a slow round slows down both."""
    if other is None or row.timing is None or other.timing is None:
        return None
    per_image = other.batch / row.batch
    pairs = zip(row.timing.samples, other.timing.samples, strict=True)
    return median_interval([theirs / ours / per_image for ours, theirs in pairs])
