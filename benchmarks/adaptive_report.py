"""The table and the picture of the results of benchmarks/adaptive.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evodeploy.benchmark.report.svg import Axis, element, line, short, text, title

Document = Mapping[str, Any]
Point = Mapping[str, Any]

WIDTH, LEFT, RIGHT, HEIGHT, GAP, TOP, BOTTOM = 380, 46, 14, 120, 46, 74, 90
COLOURS = ("#5a6472", "#c4501b", "#1f5fa8")
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1a1e28}.pale{fill:#596275;font-size:12px}.grid{stroke:#e3e7ef}"
    ".heading{font-weight:600}.line{fill:none;stroke-width:2}.limit{stroke:#1a1e28;stroke-dasharray:4 4}"
)


def table(document: Document) -> Iterator[str]:
    """Yield Markdown: a row for each server at each rate."""
    capacity, target = document["capacity"], 1000 * document["target"]
    yield (
        f"{document['engine']}, {document['seconds']:g} s each; the dense server answers {capacity[0]:.1f} a second "
        f"at most, {capacity[-1]:.1f} at the end; load {', '.join(f'{load:.1f}' for load in document['load'])} on "
        f"{document['environment']['cores']} cores"
    )
    yield ""
    yield f"| × capacity | server | p50 | p99 | within {target:g} ms | refused | keep ratio | accuracy | interval |"
    yield "|---" * 9 + "|"
    for point in document["points"]:
        low, high = point["interval"] or (0, 1)
        ratio = point["keep_ratio"]
        cells = [
            f"{point['factor']:g}", point["server"], _milliseconds(point, "p50"), _milliseconds(point, "p99"),
            f"{point['in_time'] or 0:.1%}", f"{point['refused'] / max(1, point['requests']):.1%}",
            "–" if ratio is None else f"{ratio:.2f}",
            "–" if point["accuracy"] is None else f"{point['accuracy']:.1%}", f"{low:.1%}–{high:.1%}",
        ]  # fmt: skip
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield "| all rates | answers | accuracy |"
    yield "|---|---|---|"
    for name in _servers(document):
        answers, accuracy = over_all_rates(document, name)
        yield f"| {name} | {answers} | {accuracy:.2%} |"


def over_all_rates(document: Document, name: str) -> tuple[int, float]:
    """Return the number of answers of the server `name`, and the share of them that are right."""
    mine = [point for point in document["points"] if point["server"] == name and point["answered"]]
    answers = sum(point["answered"] for point in mine)
    return answers, sum(point["accuracy"] * point["answered"] for point in mine) / max(1, answers)


def _milliseconds(point: Point, name: str) -> str:
    value = point["latency"][name]
    return "–" if value is None else f"{value * 1000:.0f} ms"


def _servers(document: Document) -> list[str]:
    return list(dict.fromkeys(point["server"] for point in document["points"]))


def as_svg(document: Document) -> str:
    """Draw over the load: the share in time, the accuracy of answers, the p99 latency; and the tokens kept."""
    points = document["points"]
    factors = sorted({point["factor"] for point in points})
    across = Axis(min(factors), max(factors), LEFT + 14, WIDTH - RIGHT - 14)
    accuracies = [100 * point["accuracy"] for point in points if point["accuracy"] is not None] or [0, 100]
    slowest = [1000 * point["latency"]["p99"] for point in points if point["latency"]["p99"]] or [1]
    target = 1000 * document["target"]
    panels = [
        (f"Answered within {target:g} ms, % of requests", (0, 100), lambda point: 100 * (point["in_time"] or 0), 100),
        ("Right answers, %", (min(accuracies) - 1, 100), lambda point: _times(point["accuracy"], 100), None),
        ("Slowest of a hundred (p99), ms", (min(*slowest, target) / 1.3, max(*slowest, target) * 1.3),
         lambda point: _times(point["latency"]["p99"], 1000), target),
    ]  # fmt: skip
    height = TOP + len(panels) * (HEIGHT + GAP) + BOTTOM - GAP
    parts = [element("style", STYLE), element("rect", width=WIDTH, height=height, fill="#ffffff")]
    colours = dict(zip(_servers(document), COLOURS, strict=False))
    for index, (name, colour) in enumerate(colours.items()):
        x = LEFT + index * (WIDTH - LEFT - RIGHT) / 3
        parts += [element("circle", cx=x + 6, cy=18, r=5, fill=colour), text(name, x + 16, 23)]
    for number, (heading, (low, high), value, limit) in enumerate(panels):
        top = TOP + number * (HEIGHT + GAP)
        up = Axis(low, high, top + HEIGHT, top, logarithmic=number == 2)
        parts.append(text(heading, LEFT - 38, top - 12, class_="heading"))
        for tick in up.ticks:
            parts.append(line(LEFT, up(tick), WIDTH - RIGHT, up(tick), class_="grid"))
            parts.append(text(short(tick), LEFT - 6, up(tick) + 4, class_="pale", text_anchor="end"))
        if limit is not None and number == 2:
            parts.append(line(LEFT, up(limit), WIDTH - RIGHT, up(limit), class_="limit"))
            parts.append(text("target", WIDTH - RIGHT, up(limit) - 5, class_="pale", text_anchor="end"))
        for name, colour in colours.items():
            mine = [point for point in points if point["server"] == name and value(point) is not None]
            places = [(across(point["factor"]), up(value(point))) for point in mine]
            corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(element("polyline", points=corners, class_="line", stroke=colour))
            for point, (x, y) in zip(mine, places, strict=True):
                hint = title(f"{name} at {point['factor']:g}: {value(point):.1f}")
                parts.append(element("circle", hint, cx=x, cy=y, r=3.5, fill=colour))
    base = TOP + len(panels) * (HEIGHT + GAP) - GAP
    kept = {point["factor"]: point["keep_ratio"] for point in points if point["server"] == "adaptive"}
    for factor in factors:
        parts.append(text(f"{factor:g}", across(factor), base + 18, class_="pale", text_anchor="middle"))
        if kept.get(factor) is not None:
            shown = text(f"{100 * kept[factor]:.0f}", across(factor), base + 60, text_anchor="middle", fill=COLOURS[2])
            parts.append(shown)
    parts.append(text("requests a second; 1 is the capacity of dense", 8, base + 37, class_="pale"))
    parts.append(text("tokens that adaptive keeps, %", 8, base + 78, class_="pale"))
    heading = title("Answers in time, their accuracy and the p99 of three servers over the load")
    size = {"viewBox": f"0 0 {WIDTH} {height}", "width": WIDTH, "height": height, "role": "img"}
    return element("svg", heading, *parts, xmlns="http://www.w3.org/2000/svg", **size)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value
