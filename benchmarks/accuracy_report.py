"""Tables and the picture of the results of benchmarks/accuracy.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evodeploy.benchmark.report.svg import Axis, element, line, short, text, title
from evodeploy.evaluation.statistics import mcnemar

Document = Mapping[str, Any]
Row = Mapping[str, Any]
Place = tuple[float, float]  # speed, accuracy

PANEL, GAP, LEFT, TOP, HEIGHT = 340, 26, 62, 96, 330
CORNER, BOTTOM = TOP + HEIGHT, 56
WIDTH = LEFT + 3 * PANEL + 2 * GAP + 18
COLOURS = {
    "dense": "#1a1e28",
    "dense, fewer pixels": "#5a6472",
    "ToMe": "#c4501b",
    "Evo, tokens rest": "#a87a00",
    "Evo, tokens merge": "#1f5fa8",
    "Evo, tokens rest, distilled": "#7a3fa0",
    "Evo, tokens merge, distilled": "#2b8a4b",
}
UNTRAINED = ("Evo, tokens rest", "Evo, tokens merge")
STYLE = (
    "text{font:14px system-ui,sans-serif;fill:#1a1e28}.pale{fill:#596275;font-size:13px}.grid{stroke:#e3e7ef}"
    ".heading{font-size:16px;font-weight:600}.line{fill:none;stroke-width:1.6}"
    ".front{fill:none;stroke:#1a1e28;stroke-width:1.2;stroke-dasharray:4 4}"
)


def front(places: Sequence[Place]) -> list[int]:
    """Return the indices of `places` that no other beats in speed and accuracy, the fastest first; one of equals."""
    order = sorted(range(len(places)), key=lambda index: (-places[index][0], -places[index][1], index))
    best, kept = float("-inf"), []
    for index in order:
        if places[index][1] > best:
            kept.append(index)
            best = places[index][1]
    return kept


def equal_time(speed: float, speeds: Mapping[int, float]) -> int | None:
    """Return the smallest r of ToMe in `speeds` that is no slower than `speed`, or None if all are slower."""
    return min((r for r, each in speeds.items() if each >= speed), default=None)


def tables(document: Document) -> Iterator[str]:
    """Yield Markdown: all rows, ToMe against ours, and the GPU programs."""
    rows, runtimes, settings = document["rows"], document["runtimes"], document["settings"]
    best = {runtime: _front_of(rows, runtime) for runtime in runtimes}
    yield (
        f"{settings['test']} test digits, the probe fitted on {settings['train']}; batch {settings['batch']}, "
        f"{settings['rounds']} rounds; load {', '.join(f'{load:g}' for load in document['load'])} on "
        f"{document['environment']['cores']} cores"
    )
    yield ""
    heads = ["method", "setting", "GFLOPs", "accuracy", "as dense", *(f"× dense, {name}" for name in runtimes.values())]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for row in rows:
        accuracy = f"{row['accuracy']:.1%} ({row['low']:.1%}–{row['high']:.1%})"
        speeds = [_speed(row["speed"].get(runtime), row in best[runtime]) for runtime in runtimes]
        cells = [row["method"], row["setting"] or "–", f"{row['gflops']:.2f}", accuracy, f"{row['as_dense']:.1%}"]
        yield f"| {' | '.join([*cells, *speeds])} |"
    yield ""
    yield "| ours | ToMe | right alone, ours and ToMe | p (exact McNemar) |"
    yield "|---|---|---|---|"
    for row in rows:
        if row["method"].startswith("Evo"):
            yield from _against_tome(row, rows, runtimes)
    if document["programs"]:
        yield ""
        yield "| FP16 engine for SM89 | kernels | matrix products | attentions fused | activations |"
        yield "|---|---|---|---|---|"
    for program in document["programs"]:
        if "reason" in program:
            yield f"| {program['name']} | not built: {program['reason']} | | | |"
        else:
            fused = f"{program['attentions']} of {program['attentions_of']}"
            size = f"{program['activation_bytes'] / 1e6:.0f} MB"
            yield f"| {program['name']} | {program['kernels']} | {program['gemms']} | {fused} | {size} |"


def _speed(speed: Row | None, on_front: bool) -> str:
    if speed is None:
        return "–"
    value = f"**{speed['value']:.2f}**" if on_front else f"{speed['value']:.2f}"
    return f"{value} ({speed['low']:.2f}–{speed['high']:.2f})"


def _front_of(rows: Sequence[Row], runtime: str) -> list[Row]:
    timed = [row for row in rows if runtime in row["speed"]]
    return [timed[index] for index in front([(row["speed"][runtime]["value"], row["accuracy"]) for row in timed])]


def _against_tome(ours: Row, rows: Sequence[Row], runtimes: Mapping[str, str]) -> Iterator[str]:
    """Yield one line for ToMe at equal work, and one for each r of equal time in some of the `runtimes`."""
    tome = {int(row["setting"].removeprefix("r ")): row for row in rows if row["method"] == "ToMe"}
    found: dict[int, list[str]] = {}
    for r, row in tome.items():
        if row["keep"] == ours["keep"]:
            found.setdefault(r, []).append("equal work")
    for runtime, name in runtimes.items():
        if runtime not in ours["speed"]:
            continue
        speeds = {r: row["speed"][runtime]["value"] for r, row in tome.items() if runtime in row["speed"]}
        r = equal_time(ours["speed"][runtime]["value"], speeds)
        if r is not None:
            found.setdefault(r, []).append(f"equal time, {name}")
    for r, reasons in sorted(found.items()):
        pairs = list(zip(ours["right"], tome[r]["right"], strict=True))
        alone, theirs = pairs.count(("1", "0")), pairs.count(("0", "1"))
        yield (
            f"| {ours['method']}, {ours['setting']} | r {r} ({'; '.join(reasons)}) | {alone} and {theirs} "
            f"| {mcnemar(alone, theirs):.2g} |"
        )


def as_svg(document: Document) -> str:
    """Return a panel for each runtime: accuracy over throughput, a line for each method, the front dashed.

    The scale ends below the worst of all networks except our untrained ones, whose lines may leave the panel.
    """
    rows, runtimes = document["rows"], document["runtimes"]
    speeds = [speed["value"] for row in rows for speed in row["speed"].values()] or [1.0]
    across_low, across_high = min(0.9, *speeds), max(1.1, *speeds) * 1.05
    low = min(row["low"] for row in rows if row["method"] not in UNTRAINED)
    low, high = 100 * low - 2, 100 * min(1.0, max(row["high"] for row in rows) + 0.01)
    up = Axis(low, high, CORNER, TOP)
    size = {"width": WIDTH, "height": CORNER + BOTTOM}
    parts = [element("style", STYLE), element("rect", fill="#ffffff", **size)]
    parts += _legend([method for method in COLOURS if any(row["method"] == method for row in rows)])
    for index, (runtime, name) in enumerate(runtimes.items()):
        start = LEFT + index * (PANEL + GAP)
        across = Axis(across_low, across_high, start, start + PANEL)
        parts.append(text(name, start, TOP - 10, class_="heading"))
        for tick in up.ticks:
            parts.append(line(start, up(tick), start + PANEL, up(tick), class_="grid"))
            if not index:
                parts.append(text(f"{short(tick)} %", LEFT - 8, up(tick) + 5, class_="pale", text_anchor="end"))
        parts += [
            text(f"{tick:.2g}", across(tick), CORNER + 20, class_="pale", text_anchor="middle") for tick in across.ticks
        ]
        inside = element("clipPath", element("rect", x=start, y=TOP, width=PANEL, height=HEIGHT), id=f"in{index}")
        parts += [inside, element("g", *_panel(rows, runtime, across, up), clip_path=f"url(#in{index})")]
    parts.append(text("throughput, dense = 1", WIDTH / 2, CORNER + 44, text_anchor="middle"))
    heading = title("Accuracy over throughput of a DINOv2 made faster in several ways, in three runtimes")
    return element(
        "svg", heading, *parts, xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {CORNER + BOTTOM}",
        role="img", **size,
    )  # fmt: skip


def _legend(methods: Sequence[str]) -> Iterator[str]:
    for index, method in enumerate(methods):
        x, y = LEFT + index % 4 * (WIDTH - LEFT) / 4, 22 + index // 4 * 24
        yield element("circle", cx=x + 6, cy=float(y - 5), r=5, fill=COLOURS[method])
        yield text(method, x + 17, y)


def _panel(rows: Sequence[Row], runtime: str, across: Axis, up: Axis) -> Iterator[str]:
    timed = [row for row in rows if runtime in row["speed"]]

    def at(row: Row) -> Place:
        return across(row["speed"][runtime]["value"]), up(100 * row["accuracy"])

    best = _front_of(timed, runtime)
    yield element("polyline", points=" ".join("{:.1f},{:.1f}".format(*at(row)) for row in best), class_="front")
    for method, colour in COLOURS.items():
        mine = sorted((row for row in timed if row["method"] == method), key=at)
        places = [at(row) for row in timed if row["method"] == "dense"] + [at(row) for row in mine]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        yield element("polyline", points=points, class_="line", stroke=colour, opacity=0.75)
        for row in mine:
            x, y = at(row)
            what = f"{method} {row['setting']}: {row['accuracy']:.1%} at {row['speed'][runtime]['value']:.2f}"
            yield line(x, up(100 * row["low"]), x, up(100 * row["high"]), stroke=colour, opacity=0.25)
            yield element("circle", title(what), cx=x, cy=y, r=5.0 if row in best else 3.5, fill=colour)
