"""Layouts of the pages' tables from what a command prints or writes, for benchmarks/figures.py.

Each function takes the folder that the command ran in and the text that it printed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from adaptive_report import over_all_rates

Row = Sequence[object]
BENCHED = [
    ("torch", "fp32"), ("torch", "bf16"), ("torch-compile", "fp32"), ("torch-compile", "bf16"),
    ("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"),
]  # fmt: skip
IN_README = [BENCHED[0], BENCHED[3], BENCHED[4], BENCHED[5], BENCHED[6]]
SWEPT = [
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
]


def as_printed(folder: Path, printed: str) -> str:
    """Return the printed text."""
    return printed


def table(heading: str, rows: Iterable[Row]) -> str:
    """Return a Markdown table."""
    line = f"|{'---|' * (heading.count('|') + 1)}"
    return "\n".join([f"| {heading} |", line, *(f"| {' | '.join(map(str, row))} |" for row in rows), ""])


def graph(folder: Path, printed: str) -> str:
    """Lay out benchmarks/naive_export.py: attentions as a share of the twelve."""
    return re.sub(r"^(\| [^|]+\| \d+ \| \d+ \| \d+ \| \d+) \|", r"\1 of 12 |", printed, flags=re.MULTILINE)


def bench(folder: Path, printed: str) -> str:
    """Lay out bench.json: the tables of engines in docs/results.md and in the README."""
    document = _read(folder / "bench.json")
    rows = {(row["model"], row["engine"], row["precision"], row["batch"]): row for row in document["results"]}
    long, short = [], []
    for batch in (1, 8):
        for engine, precision in BENCHED:
            evo, dense = (rows[model, engine, precision, batch] for model in ("evo", "dense"))
            ours, twins = (f"{each['images_per_second']['value']:.1f}" for each in (evo, dense))
            over = {name: f"{evo[f'over_{name}']['value']:.2f}" for name in ("eager", "torch", "dense")}
            peak = f"{evo['share_of_peak']:.0%}"
            long.append((batch, engine, ours, over["eager"], over["torch"], twins, over["dense"], peak))
            if batch == 8 and (engine, precision) in IN_README:
                short.append((f"{engine} {precision}", twins, ours, over["dense"], over["eager"]))
    return table("batch | engine", long) + "\n" + table("engine | its dense twin", short)


def evaluation(folder: Path, printed: str) -> str:
    """Lay out eval.json: accuracies, and each artefact compared with the first."""
    document, rows = _read(folder / "eval.json"), []
    for score, difference in zip(document["scores"], [None, *document["differences"]], strict=False):
        top1 = score["top1"]
        against = ("", "") if difference is None else (
            f"{difference['second_only']} and {difference['first_only']}", f"{difference['p_value']:.2g}",
        )  # fmt: skip
        interval = f"{top1['low']:.2%}–{top1['high']:.2%}"
        rows.append((score["artefact"], f"{top1['value']:.2%}", interval, *against))
    return table("artefact | top-1", rows) + printed


def precision(folder: Path, printed: str) -> str:
    """Lay out benchmarks/precision_agreement.py: the two selections of a precision in one row."""
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in printed.splitlines() if "selected_" in line]
    rows = []
    for first, second in zip(cells[::2], cells[1::2], strict=True):
        tokens = " ".join(f"{float(row[4].rstrip('%')):.2f} %" for row in (first, second))
        top1 = "" if first[1] == "–" else f"{float(first[1].rstrip('%')):g} %"
        rows.append(("", first[0].upper(), top1, tokens, int(first[6]) + int(second[6]), first[2]))
    return table("weights and pictures | precision", rows)


def kept(folder: Path, printed: str) -> str:
    """Lay out two tables of benchmarks/precision_agreement.py and two of `evodeploy inspect`: what differs."""
    shares = [float(found) for found in re.findall(r"selected_\d \| ([\d.]+)%", printed)]
    few, many = map(int, re.findall(r"activation bytes +(\d+)", printed))
    half = len(shares) // 2
    points = max(abs(one - other) for one, other in zip(shares[:half], shares[half:], strict=True))
    return f"the same tokens to {math.ceil(points * 10) / 10:.1f} points, {many / few - 1:.0%} more memory\n{printed}"


def quantized(folder: Path, printed: str) -> str:
    """Lay out benchmarks/quantized.py: 100.00% is 100 % on the page."""
    return printed.replace("100.00%", "100 %")


def elastic(folder: Path, printed: str) -> str:
    """Lay out elastic.json: a row for each runtime, a column for each keep ratio, and two more."""
    found: dict[tuple[str, str], list[str]] = {}
    more: dict[tuple[str, str], list[str]] = {}
    for row in _read(folder / "elastic.json")["rows"]:
        key = row["model"], f"{row['runtime']} {row['precision']}"
        found.setdefault(key, []).append(_ratio(row["elastic_over_static"], 3))
        if row["keep_ratio"] == 0.5:
            fixed = _ratio(row["fixed_over_static"], 3) if "fixed_over_static" in row else "–"
            more[key] = [_ratio(row["changing_over_static"], 3), fixed]
    return table("network | runtime", [(*key, *cells, *more[key]) for key, cells in found.items()])


def digits(folder: Path, printed: str) -> str:
    """Lay out benchmarks/digits_probe.py: keep ratio, accuracy, interval, agreement, images per second."""
    lines = [line for line in printed.splitlines() if re.match(r"\| fp32 ", line)]
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    rows = [(row[2], row[4], row[5], row[6] if index else "", row[7]) for index, row in enumerate(cells)]
    return table("keep ratio | accuracy", rows) + "\n" + printed


def sweep(folder: Path, printed: str) -> str:
    """Lay out sweep.json: a row for each keep ratio, a column for each engine and precision."""
    points = {}
    for point in _read(folder / "sweep" / "sweep.json")["points"]:
        each = point["candidate"]
        points[each["keep"][0], each["engine"], each["precision"]] = point["speed"]
    rows = []
    for keep in (1.0, 0.7, 0.5, 0.3):
        speeds = [points[keep, engine, precision] for engine, precision in SWEPT]
        cells = [_ratio(speed, 2) for speed in speeds]
        rows.append((keep, "1" if keep == 1.0 else cells[0], *cells[1:]))
    return table("keep ratio | ONNX Runtime FP32", rows)


def sweep_choice(folder: Path, printed: str) -> str:
    """Lay out sweep.json: the chosen candidate, its accuracy and its speed."""
    document = _read(folder / "sweep" / "sweep.json")
    (point,) = [each for each in document["points"] if each["candidate"]["name"] == document["chosen"]]
    each = point["candidate"]
    said = f"keep ratio {each['keep'][0]:g} in {each['precision'].upper()} on {each['engine']}"
    return f"{said}, {point['accuracy']['value']:.2%} at {point['speed']['value']:.2f} times"


def kernels(folder: Path, printed: str) -> str:
    """Lay out `evodeploy inspect` of several engines: kernels, and the number of fused attentions."""
    totals = re.findall(r"kernels +total: (\d+)", printed)
    fused = re.findall(r"attention fused +(\d+) of \d+", printed)
    return table("ONNX, `build-engine` | kernels", [("", *each) for each in zip(totals, fused, strict=True)])


def seconds(folder: Path, printed: str) -> str:
    """Lay out the lines `USER SYSTEM` in the file `times`: their sums."""
    lines = (folder / "times").read_text(encoding="utf-8").splitlines()
    sums = [sum(map(float, line.split())) for line in lines if re.fullmatch(r"[\d.]+ [\d.]+", line)]
    return table("`time evodeploy export s.pth …` | CPU seconds", [("", f"{each:.1f}") for each in sums])


def distilled(folder: Path, printed: str) -> str:
    """Lay out two distillation records: accuracy before and after at each keep ratio, and the teacher's."""
    records = [_read(folder / f"distilled-{name}.json") for name in ("digits", "photographs")]
    rows = []
    for levels in zip(*(record["levels"] for record in records), strict=True):
        qualities = (level[when] for level in levels for when in ("before", "after"))
        rows.append((levels[0]["keep_ratios"][0], *(_percent(each["accuracy"]) for each in qualities)))
    dense = (_percent(record["teacher"]["accuracy"]) for record in records)
    rows.append(("dense, the teacher", next(dense), "", next(dense), ""))
    return table("keep ratio | digits, before | after | photographs, before | after", rows)


def latency(folder: Path, printed: str) -> str:
    """Lay out adaptive.json: the requests in time, the tokens kept, the p99 and the answers that are right."""
    document = _read(folder / "adaptive.json")
    points = {(point["server"], point["factor"]): point for point in document["points"]}
    lines = []
    for factor in (1.5, 2.0, 3.0):
        adaptive = points["adaptive", factor]
        refused = adaptive["refused"] / adaptive["requests"]
        line = f"{factor:g} times: {adaptive['in_time']:.0%} in time, {adaptive['keep_ratio']:.0%} of the tokens, "
        line += f"p99 {adaptive['latency']['p99']:.2f} s, {refused:.0%} refused"
        others = [f"{name} {points[name, factor]['in_time']:.0%}" for name in ("dense", "keep 0.5")]
        lines.append(", ".join([line, *others]))
    lines += [f"{name}: {over_all_rates(document, name)[1]:.1%} are right" for name in ("adaptive", "dense")]
    return "\n".join([f"capacity {document['capacity'][0]:.1f}", *lines])


def _percent(share: dict[str, float]) -> str:
    value, low, high = (100 * share[name] for name in ("value", "low", "high"))
    return f"{value:.1f} % ({low:.1f}–{high:.1f})"


def _ratio(interval: dict[str, float], digits: int) -> str:
    return f"{interval['value']:.{digits}f} ({interval['low']:.{digits}f}–{interval['high']:.{digits}f})"


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
