"""The plots of a report. Each is accessible without sight: it has a title, and its points can be focused.

Colours are classes `c0`, `c1`, … for which the page defines a value for light and for dark. A series keeps its colour
in all plots.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evodeploy.benchmark.measure.intervals import Interval, quantile
from evodeploy.benchmark.report.svg import Axis, element, line, short, text, title

WIDTH = 560
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 14, 36  # margins
LANE = 22  # height of a row in plots with one line per row
NAMES = 178  # minimum width of the names before them
LETTER = 6.8  # width of a letter in a name
PLOT = WIDTH - NAMES - RIGHT  # width of the drawing after the names
NOTES = 90  # width kept free for the notes after bars
MOST_DOTS = 1000  # of one row; for more samples evenly spaced quantiles are drawn


@dataclass(frozen=True)
class Series:
    """A line through intervals at batch sizes. A `twin` is drawn dashed and hollow."""

    name: str
    colour: str
    points: Sequence[tuple[int, Interval]]
    twin: bool = False


@dataclass(frozen=True)
class Lane:
    """One row of a plot with one line per row: a name, a colour, and the values that it shows."""

    name: str
    colour: str
    values: Sequence[float]
    twin: bool = False
    note: str = ""


def lines(heading: str, unit: str, series: Sequence[Series], mark: float | None = None) -> str:
    """Draw `series` over batch sizes, with their 95 % intervals. `mark` is a value drawn as a horizontal line."""
    height, batches = 300, sorted({batch for one in series for batch, _ in one.points})
    highest = max(interval.high for one in series for _, interval in one.points)
    lowest = min([0.0] if mark is None else [mark, *(i.low for one in series for _, i in one.points)])
    spare = (highest - lowest) * 0.05
    across = _batch_axis(batches)
    up = Axis(lowest - (0 if mark is None else spare), highest + spare, height - BOTTOM, TOP)
    parts = [_grid_across(up, LEFT, WIDTH - RIGHT)]
    parts += [
        text(str(batch), across(batch), height - BOTTOM + 16, class_="tick", text_anchor="middle") for batch in batches
    ]
    parts.append(text("batch", (LEFT + WIDTH - RIGHT) / 2, height - 4, class_="tick", text_anchor="middle"))
    if mark is not None:
        parts.append(line(LEFT, up(mark), WIDTH - RIGHT, up(mark), class_="mark"))
    parts += [_line(one, across, up, unit) for one in series]
    return _figure(heading, height, parts)


def dots(heading: str, unit: str, lanes: Sequence[Lane]) -> str:
    """Draw every value of each lane as a dot on a logarithmic axis, and the median as a bar."""
    height = TOP + LANE * len(lanes) + BOTTOM
    low, high = min(min(lane.values) for lane in lanes), max(max(lane.values) for lane in lanes)
    names = _names(lanes)
    across = Axis(low / 1.05, high * 1.05, names, names + PLOT, logarithmic=True)
    parts = [_grid_down(across, height, unit)]
    for number, lane in enumerate(lanes):
        y = TOP + LANE * (number + 0.5)
        median = quantile(lane.values, 0.5)
        hint = f"{lane.name}: median {median:.1f} {unit}, p99 {quantile(lane.values, 0.99):.1f} {unit}"
        path = "".join(f"M{across(value):.1f} {y + _scatter(i):.1f}h0" for i, value in enumerate(_shown(lane.values)))
        parts.append(
            element(
                "g",
                title(f"{hint}, {len(lane.values)} runs"),
                text(lane.name, names - 8, y + 4, class_="name", text_anchor="end"),
                element("path", d=path, class_=f"dots {lane.colour}"),
                line(across(median), y - 8, across(median), y + 8, class_="median"),
                tabindex=0,
            )
        )
    return _figure(heading, height, parts, names + PLOT + RIGHT)


def bars(heading: str, unit: str, lanes: Sequence[Lane], limits: Sequence[tuple[str, float]] = ()) -> str:
    """Draw the values of each lane as parts of one bar, with its note. `limits` are drawn as vertical lines.

    The parts of a bar with several values have the colours c0, c1, … in turn.
    """
    height = TOP + LANE * (len(lanes) + len(limits)) + BOTTOM
    highest = max([sum(lane.values) for lane in lanes] + [limit for _, limit in limits])
    names = _names(lanes)
    across = Axis(0, highest * 1.05, names, names + PLOT - NOTES)
    parts = [_grid_down(across, height, unit)]
    for number, (name, limit) in enumerate(limits):
        x, y = across(limit), TOP + LANE * number
        parts += [line(x, y + 6, x, height - BOTTOM, class_="limit")]
        parts += [text(f"{name} {limit:.0f}", x - 4, y + 15, class_="name", text_anchor="end")]
    for number, lane in enumerate(lanes):
        y = TOP + LANE * (len(limits) + number)
        parts.append(_bar(lane, across, y, unit))
    return _figure(heading, height, parts, names + PLOT + RIGHT)


def _names(lanes: Sequence[Lane]) -> float:
    """Return the width of the names."""
    return max(NAMES, 8 + LETTER * max(len(lane.name) for lane in lanes))


def _figure(heading: str, height: float, parts: Sequence[str], width: float = WIDTH) -> str:
    box = f"0 0 {width:.0f} {height:.0f}"
    return element("svg", title(heading), *parts, viewBox=box, role="group", aria_label=heading)


def _batch_axis(batches: Sequence[int]) -> Callable[[int], float]:
    """Return a logarithmic axis of batch sizes. A single one is in the middle."""
    low, high = batches[0], batches[-1]
    inner = Axis(math.log2(low), math.log2(high), LEFT + 24, WIDTH - RIGHT - 24)
    return lambda batch: inner(math.log2(batch)) if high > low else (LEFT + WIDTH - RIGHT) / 2


def _grid_across(up: Axis, start: float, end: float) -> str:
    marks = [
        line(start, up(tick), end, up(tick), class_="grid")
        + text(short(tick), start - 6, up(tick) + 4, class_="tick", text_anchor="end")
        for tick in up.ticks
    ]
    return "".join(marks)


def _grid_down(across: Axis, height: float, unit: str) -> str:
    bottom = height - BOTTOM
    marks = [
        line(across(tick), TOP, across(tick), bottom, class_="grid")
        + text(short(tick), across(tick), bottom + 16, class_="tick", text_anchor="middle")
        for tick in across.ticks
    ]
    middle = (across.start + across.end) / 2
    return "".join(marks) + text(unit, middle, height - 4, class_="tick", text_anchor="middle")


def _line(one: Series, across: Callable[[int], float], up: Axis, unit: str) -> str:
    places = [(across(batch), up(interval.value)) for batch, interval in one.points]
    kind = f"{one.colour} twin" if one.twin else one.colour
    drawn = [element("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places), class_=f"line {kind}")]
    for (batch, interval), (x, y) in zip(one.points, places, strict=True):
        hint = f"{one.name}, batch {batch}: {interval.value:.4g} {unit} ({interval.low:.4g} to {interval.high:.4g})"
        whisker = line(x, up(interval.low), x, up(interval.high), class_=f"whisker {kind}")
        point = element("circle", cx=x, cy=y, r=4, class_=f"point {kind}")
        drawn.append(element("g", title(hint), whisker, point, tabindex=0))
    return "".join(drawn)


def _bar(lane: Lane, across: Axis, y: float, unit: str) -> str:
    start, parts = across(0), []
    x = start
    for number, value in enumerate(lane.values):
        width = across(value) - across(0)
        colour = lane.colour if len(lane.values) == 1 else f"c{number}"
        kind = f"bar {colour}" + (" twin" if lane.twin else "")
        parts.append(element("rect", x=x, y=y + 4, width=max(width, 0.5), height=LANE - 8, rx=2, class_=kind))
        x += width
    hint = f"{lane.name}: {sum(lane.values):.4g} {unit}. {lane.note}"
    return element(
        "g",
        title(hint),
        text(lane.name, start - 8, y + LANE / 2 + 4, class_="name", text_anchor="end"),
        *parts,
        text(lane.note, x + 6, y + LANE / 2 + 4, class_="note"),
        tabindex=0,
    )


def _shown(values: Sequence[float]) -> Sequence[float]:
    if len(values) <= MOST_DOTS:
        return values
    return [quantile(values, i / (MOST_DOTS - 1)) for i in range(MOST_DOTS)]


def _scatter(number: int) -> float:
    """Return an offset of up to six pixels up or down, evenly spread and reproducible (by the golden ratio)."""
    return 12 * ((number * 0.6180339887) % 1 - 0.5)
