"""What rows say of each other: how much faster one is, and from which batch size selection pays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evodeploy.benchmark.measure.intervals import Interval, median_interval
from evodeploy.benchmark.row import Row
from evodeploy.benchmark.row_spec import Kept, Role
from evodeploy.engines.torch_modes import TORCH_MODES


@dataclass(frozen=True)
class Crossover:
    """From which batch size on the model is faster than its dense twin, on one engine.

    `batch` is None where that is not shown: the interval at the largest batch reaches 1. `batches` were measured.
    """

    label: str
    batch: int | None
    batches: tuple[int, ...]

    @property
    def sentence(self) -> str:
        """Where selection pays."""
        among = f"{self.batches[0]} to {self.batches[-1]}" if len(self.batches) > 1 else str(self.batches[0])
        if self.batch is None:
            return f"not shown that selection pays ({among} measured): at batch {self.batches[-1]} it may be no faster"
        if self.batch == self.batches[0]:
            return f"selection pays at every batch measured ({among})"
        return f"selection pays from batch {self.batch} up ({among} measured)"


def eager(row: Row, rows: Sequence[Row]) -> Row | None:
    """PyTorch eager in FP32 on the model itself, measured as `row` was; of an elastic one at the same keep ratio."""
    eagers = (each for each in _peers(row, rows) if _is_eager(each))
    keep = row.spec.keep
    return next((each for each in eagers if (each.spec.keep == keep if keep else each.spec.role == "evo")), None)


def fastest_torch(row: Row, rows: Sequence[Row]) -> Row | None:
    """The fastest way of running the same model in PyTorch, in any precision, measured as `row` was."""
    speeds = {
        each: speed.value
        for each in _peers(row, rows)
        if each.spec.engine in TORCH_MODES and _model(each) == _model(row) and not each.wrong
        if (speed := each.images_per_second)
    }
    return max(speeds, key=lambda each: speeds[each]) if speeds else None


def over_torch(row: Row, rows: Sequence[Row]) -> Interval | None:
    """Throughput over that of `fastest_torch`."""
    return _over(row, fastest_torch(row, rows))


def over_eager(row: Row, rows: Sequence[Row]) -> Interval | None:
    """Throughput over PyTorch eager in FP32 on the model itself, at the same batch, transfers and batches in flight."""
    return _over(row, eager(row, rows))


def over_dense(row: Row, rows: Sequence[Row]) -> Interval | None:
    """Throughput of the model over that of its dense twin on the same engine; None for the twin itself.

    A twin that computes something else than it should is none.
    """
    if row.spec.role == "dense":
        return None
    twins = (each for each in _peers(row, rows) if each.way == row.way and each.spec.role == "dense")
    return _over(row, next((twin for twin in twins if not twin.wrong), None))


def crossovers(rows: Sequence[Row]) -> list[Crossover]:
    """One for each engine that ran the model and its twin. A batch counts where all of the interval is above 1.

    What computes something else than it should shows nothing, nor does a batch that was halved.
    """
    ratios: dict[str, dict[int, Interval]] = {}
    for row in rows:
        ratio = over_dense(row, rows)
        if ratio is not None and not row.wrong and row.batch == row.asked:
            ratios.setdefault(name(row, rows), {})[row.batch] = ratio
    return [_crossover(label, by_batch) for label, by_batch in ratios.items()]


def label(row: Row, rows: Sequence[Row]) -> str:
    """The row's label, with its file where several of a kind are compared."""
    alike = (one for one in rows if (one.label, one.spec.role) == (row.label, row.spec.role))
    peers = {one.spec.artefact for one in alike}
    return f"{row.label} {row.spec.artefact}" if len(peers) > 1 else row.label


def name(row: Row, rows: Sequence[Row]) -> str:
    """The label, whether the batch is resident, and how many are in flight where they are several."""
    resident = " resident" if row.transfers == "resident" else ""
    return label(row, rows) + resident + (f", {row.in_flight} in flight" if row.in_flight > 1 else "")


def _crossover(label: str, by_batch: dict[int, Interval]) -> Crossover:
    batches = sorted(by_batch)
    losing = [batch for batch in batches if by_batch[batch].low <= 1]
    paying = [batch for batch in batches if not losing or batch > losing[-1]]
    return Crossover(label, paying[0] if paying else None, tuple(batches))


def _is_eager(row: Row) -> bool:
    return row.spec.engine == "torch" and row.precision == "fp32"


def _model(row: Row) -> tuple[Role, Kept | None]:
    """What is computed: rows that share it may differ in how."""
    return row.spec.role, row.spec.keep


def _peers(row: Row, rows: Sequence[Row]) -> Iterator[Row]:
    """The rows that were measured as `row` was: of the same batch and transfers, with as many batches in flight."""
    how = (row.asked, row.transfers, row.in_flight)
    return (each for each in rows if (each.asked, each.transfers, each.in_flight) == how)


def _over(row: Row, other: Row | None) -> Interval | None:
    """How many times the throughput of `other`: the median over rounds, for what slows a round slows both in it."""
    if other is None or row.timing is None or other.timing is None:
        return None
    per_image = other.batch / row.batch
    pairs = zip(row.timing.samples, other.timing.samples, strict=True)
    return median_interval([theirs / ours / per_image for ours, theirs in pairs])
