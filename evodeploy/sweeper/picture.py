"""Accuracy over throughput: every candidate, and the front of those that no other beats."""

from __future__ import annotations

from collections.abc import Sequence

from evodeploy.benchmark.report.svg import Axis, drawing, element, line, short, text, title
from evodeploy.sweeper.front import Point

WIDTH, HEIGHT = 860, 520
LEFT, RIGHT, TOP, BOTTOM = 78, 40, 64, 64
COLOURS = ("#1f5fa8", "#c4501b", "#2b8a4b", "#7a3fa0", "#a87a00", "#00808a", "#b02a5b", "#5a6472")
STYLE = (
    "text{font:14px system-ui,sans-serif;fill:#1a1e28}.pale{fill:#596275;font-size:13px}.grid{stroke:#e3e7ef}"
    ".front{fill:none;stroke:#1a1e28;stroke-width:1.5;stroke-dasharray:5 4}.heading{font-size:18px;font-weight:600}"
)


def as_svg(points: Sequence[Point], best: Sequence[Point], heading: str) -> str:
    """Return a picture of `points`, which all have accuracies. Those in `best` are joined and labelled."""
    judged = [point for point in points if point.accuracy is not None]
    lows = [point.accuracy.low for point in judged if point.accuracy]
    highs = [point.accuracy.high for point in judged if point.accuracy]
    spare = (max(highs) - min(lows)) * 0.06 or 0.01
    across = Axis(0, max(point.rate for point in judged) * 1.08, LEFT, WIDTH - RIGHT)
    up = Axis(100 * (min(lows) - spare), 100 * min(1.0 + spare, max(highs) + spare), HEIGHT - BOTTOM, TOP)
    kinds = list(dict.fromkeys(_kind(point) for point in judged))
    parts = [text(heading, LEFT, 26, class_="heading")]
    for tick in up.ticks:
        parts.append(line(LEFT, up(tick), WIDTH - RIGHT, up(tick), class_="grid"))
        parts.append(text(f"{short(tick)} %", LEFT - 8, up(tick) + 5, class_="pale", text_anchor="end"))
    base = HEIGHT - BOTTOM + 20
    parts += [text(short(tick), across(tick), base, class_="pale", text_anchor="middle") for tick in across.ticks]
    parts.append(text("images per second", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 18, text_anchor="middle"))
    parts.append(text("top-1", LEFT - 8, TOP - 12, class_="pale", text_anchor="end"))
    places = [(across(point.rate), up(100 * point.accuracy.value)) for point in best if point.accuracy]
    parts.append(element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in places), class_="front"))
    colours = {kind: COLOURS[index % len(COLOURS)] for index, kind in enumerate(kinds)}
    parts += [_mark(point, colours[_kind(point)], across, up, point in best) for point in judged]
    for index, kind in enumerate(kinds):
        x = LEFT + index * (WIDTH - LEFT - RIGHT) / max(4, len(kinds))
        parts.append(element("circle", cx=x + 5, cy=TOP - 20.0, r=5, fill=colours[kind]))
        parts.append(text(kind, x + 15, TOP - 15, class_="pale"))
    return drawing(WIDTH, HEIGHT, heading, STYLE, parts)


def _mark(point: Point, colour: str, across: Axis, up: Axis, on_front: bool) -> str:
    assert point.accuracy is not None
    x, y = across(point.rate), up(100 * point.accuracy.value)
    hint = f"{point.candidate}: {point.accuracy} at {point.rate:.1f} img/s"
    bar = line(x, up(100 * point.accuracy.low), x, up(100 * point.accuracy.high), stroke=colour, opacity=0.3)
    radius = 5.5 if on_front else 4.0
    dot = element("circle", title(hint), cx=x, cy=y, r=radius, fill=colour, opacity=1 if on_front else 0.55)
    label = text(point.candidate.kept, x + 8, y - 8, class_="pale") if on_front else ""
    return bar + dot + label


def _kind(point: Point) -> str:
    return f"{point.candidate.engine} {point.candidate.precision.upper()}"
