"""A drawing of the error along a network's nodes, from first to last, on a logarithmic axis."""

from __future__ import annotations

import math

from evodeploy.benchmark.report.svg import Axis, drawing, element, line, text, title
from evodeploy.debugging.report import DebugReport, NodeError, shown

WIDTH, HEIGHT = 1080, 480
LEFT, RIGHT, TOP, BOTTOM = 78, 30, 84, 76
FLOOR = 1e-8  # smaller errors are drawn at this height
STYLE = (
    "text{font:14px system-ui,sans-serif;fill:#1a1e28}.pale{fill:#596275;font-size:12px}.grid{stroke:#e3e7ef}"
    ".band{fill:#f4f6fa}.error{fill:none;stroke:#1f5fa8;stroke-width:2}.limit{stroke:#b02a5b;stroke-dasharray:6 4}"
    ".selection{stroke:#2b8a4b;stroke-width:1.5;stroke-dasharray:2 4}.heading{font-size:18px;font-weight:600}"
)
ERROR, OWN, CAUSE, SELECTION = "#1f5fa8", "#a87a00", "#b02a5b", "#2b8a4b"


def as_svg(report: DebugReport) -> str:
    """Draw the errors of `report`: that of every value, and what each node adds to it."""
    finite = [error for node in report.nodes for error in (node.error, node.own) if math.isfinite(error)]
    top = 10 * max([*finite, report.tolerance, 0.1])
    across = Axis(0, max(1, len(report.nodes) - 1), LEFT, WIDTH - RIGHT)
    up = Axis(FLOOR, top, HEIGHT - BOTTOM, TOP, logarithmic=True)

    def height(error: float) -> float:
        return up(min(max(error, FLOOR), top))

    heading = f"{report.other} against {report.reference}"
    parts = [text(heading, LEFT, 26, class_="heading")]
    parts += _bands(report.nodes, across)
    decades = [tick for tick in up.ticks if math.isclose(math.log10(tick), round(math.log10(tick)), abs_tol=1e-9)]
    for tick in decades:
        parts.append(line(LEFT, up(tick), WIDTH - RIGHT, up(tick), class_="grid"))
        parts.append(text(f"{tick:.0e}", LEFT - 8, up(tick) + 5, class_="pale", text_anchor="end"))
    parts.append(line(LEFT, height(report.tolerance), WIDTH - RIGHT, height(report.tolerance), class_="limit"))
    places = {node.name: index for index, node in enumerate(report.nodes)}
    for selection in report.selections:
        at = across(places.get(selection.node, 0))
        hint = f"{selection.node}: {sum(selection.flipped)} of {selection.kept * len(selection.flipped)} differ"
        parts.append(element("g", title(hint), line(at, TOP, at, HEIGHT - BOTTOM, class_="selection")))
    points = [(across(index), height(node.error)) for index, node in enumerate(report.nodes)]
    parts.append(element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_="error"))
    parts += [_mark(node, across(index), height(node.own), report) for index, node in enumerate(report.nodes)]
    legend = (("error of the value", ERROR), ("the node's own", OWN), ("own beyond the tolerance", CAUSE),
              ("tolerance", CAUSE), ("selection", SELECTION))  # fmt: skip
    for index, (words, colour) in enumerate(legend):
        x = LEFT + index * (WIDTH - LEFT - RIGHT) / len(legend)
        if words in ("the node's own", "own beyond the tolerance"):
            parts.append(element("circle", cx=x + 8, cy=50.0, r=4, fill=colour))
        else:
            dash = {"tolerance": "6 4", "selection": "2 4"}.get(words, "")
            parts.append(line(x, 50.0, x + 16, 50.0, stroke=colour, stroke_width=2, stroke_dasharray=dash))
        parts.append(text(words, x + 22, 55, class_="pale"))
    parts.append(text("nodes in their order, by block", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, text_anchor="middle"))
    return drawing(WIDTH, HEIGHT, f"Error by node: {heading}", STYLE, parts)


def _bands(nodes: tuple[NodeError, ...], across: Axis) -> list[str]:
    """Draw every second block on a grey background, with the names of blocks below."""
    starts = [index for index, node in enumerate(nodes) if not index or node.block != nodes[index - 1].block]
    parts = []
    for number, (first, end) in enumerate(zip(starts, [*starts[1:], len(nodes)], strict=True)):
        left, right = across(first), across(end if end < len(nodes) else end - 1)
        if number % 2:
            parts.append(
                element("rect", x=left, y=TOP, width=right - left, height=HEIGHT - BOTTOM - TOP, class_="band")
            )
        if right - left > 7 * len(nodes[first].block):
            parts.append(
                text(nodes[first].block, (left + right) / 2, HEIGHT - BOTTOM + 18, class_="pale", text_anchor="middle")
            )
    return parts


def _mark(node: NodeError, x: float, y: float, report: DebugReport) -> str:
    beyond = node.own > report.tolerance
    hint = f"{node.name}: error {shown(node.error)}, inherited {shown(node.inherited)}, own {shown(node.own)}"
    dot = element("circle", title(hint), cx=x, cy=y, r=5 if beyond else 2.5, fill=CAUSE if beyond else OWN)
    return dot + (text(node.name, x + 8, y - 6, class_="pale") if node.name == report.begins else "")
