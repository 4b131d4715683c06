"""A bench as plain values and as CSV. docs/reference/results-file.md describes the fields."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from typing import Any

from evodeploy.benchmark.judge import Verdict
from evodeploy.benchmark.measure.clocks import Clocks
from evodeploy.benchmark.measure.interleaved import RunTimes
from evodeploy.benchmark.measure.intervals import Interval
from evodeploy.benchmark.report.report import Report
from evodeploy.benchmark.report.speedups import crossovers, eager, fastest_torch, over_dense, over_eager, over_torch
from evodeploy.benchmark.row import Row
from evodeploy.text import ratios_in_words

SCHEMA = 3
_IDENTITY = ("image_size", "patch_size", "num_classes", "selection", "keep_ratios", "stages", "fast_path")


def as_dict(report: Report) -> dict[str, Any]:
    """Return one document: model, machine, budget, and one object per row under `results`."""
    info = report.subject.info
    identity = {name: getattr(info, name) for name in _IDENTITY} if info else {}
    return {
        "schema": SCHEMA,
        "model": {"name": report.subject.name, **identity},
        "notes": list(report.subject.notes),
        "environment": dataclasses.asdict(report.environment),
        "budget": dataclasses.asdict(report.budget),
        "peak_flops_per_second": {f"{device} {precision}": peak for (device, precision), peak in report.peaks.items()},
        "crossovers": [dataclasses.asdict(crossover) for crossover in crossovers(report.rows)],
        "end_to_end": [dataclasses.asdict(stages) for stages in report.end_to_end],
        "results": [result(report, row) for row in report.rows],
    }


def as_csv(report: Report) -> str:
    """Return one line per row: the results of the document without samples, with nested values as name_part."""
    flat = [_flat(result(report, row)) for row in report.rows]
    columns = list(dict.fromkeys(name for values in flat for name in values))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def result(report: Report, row: Row) -> dict[str, Any]:
    """Return one row of the document."""
    values: dict[str, Any] = {
        "engine": row.spec.engine,
        "model": row.spec.role,
        "precision": row.arithmetic,
        "artefact": row.spec.artefact,
        "device": row.device,
        "transfers": row.transfers,
        "cuda_graph": row.spec.cuda_graph,
        "in_flight": row.in_flight,
        "keep_ratios": list(row.spec.keep.ratios) if row.spec.keep else None,
        "batch": row.batch,
        "batch_asked": row.asked,
        "status": "unavailable" if row.timing is None else "wrong" if row.wrong else "ok",
    }
    if row.timing is None:
        return values | {"reason": row.reason}
    return values | {
        "images_per_second": _interval(row.images_per_second),
        "over_eager": _interval(over_eager(row, report.rows)),
        "over_torch": _interval(over_torch(row, report.rows)),
        "eager": _name(report, eager(row, report.rows)),
        "fastest_torch": _name(report, fastest_torch(row, report.rows)),
        "over_dense": _interval(over_dense(row, report.rows)),
        "flops_per_image": row.spec.flops,
        "share_of_peak": report.share_of_peak(row),
        "host_memory_bytes": row.host_memory,
        "device_memory_bytes": row.device_memory,
        "joules_per_image": row.joules,
        "gpu": _clocks(row.clocks),
        "check": _check(row.verdict),
        "stopped": row.stopped,
        "launches": row.launches,
        "exposed": row.exposed,
        **_latency(row.latency),
        **_variation(row.timing),
    }


def _latency(timing: RunTimes | None) -> dict[str, Any]:
    return {
        "median_ms": _interval(timing.interval, 1e3) if timing else None,
        "p90_ms": timing.p90 * 1e3 if timing else None,
        "p99_ms": timing.p99 * 1e3 if timing else None,
    }


def _variation(timing: RunTimes) -> dict[str, Any]:
    return {
        "spread": timing.spread,
        "cv": timing.cv,
        "drift": timing.drift,
        "warnings": list(timing.warnings),
        "samples_ms": [round(sample * 1e3, 5) for sample in timing.samples],
        "warmup_ms": [round(sample * 1e3, 5) for sample in timing.warmup],
    }


def _name(report: Report, row: Row | None) -> str | None:
    return None if row is None else report.name(row)


def _interval(interval: Interval | None, scale: float = 1.0) -> dict[str, float] | None:
    if interval is None:
        return None
    return {"value": interval.value * scale, "low": interval.low * scale, "high": interval.high * scale}


def _clocks(clocks: Clocks | None) -> dict[str, Any] | None:
    return dataclasses.asdict(clocks) | {"slowdowns": dict(clocks.slowdowns)} if clocks else None


def _check(verdict: Verdict | None) -> dict[str, Any] | None:
    if verdict is None:
        return None
    error = verdict.error if math.isfinite(verdict.error) else None
    return dataclasses.asdict(verdict) | {"error": error, "correct": verdict.correct}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}_")
        elif isinstance(value, list):
            if name == "warnings":
                flat[name] = "; ".join(value)
            elif name == "keep_ratios":
                flat[name] = ratios_in_words(value)
        else:
            flat[prefix + name] = value
    return flat
