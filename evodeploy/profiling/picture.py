"""A profile as a picture: one line per block, as wide as its time, divided into its modules and their nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from evodeploy.benchmark.report.page import document, table_of
from evodeploy.benchmark.report.svg import drawing, element, text, title
from evodeploy.graph.parts import KINDS
from evodeploy.profiling.record import NodeTime, Profile, modules_of
from evodeploy.profiling.table import heading, overhead
from evodeploy.text import brief, printable, ratios_in_words

WIDTH = 400  # units, which are pixels on a phone
LEFT = 100
TOP, LINE = 44, 30
MODULES, NODES = 15, 7  # heights
COLUMN, ENTRY = 190, 17  # sizes of the legend
LETTER = 7  # width of a letter, or of a figure, in a wide font, in units
COLOURS: dict[str, str] = dict(
    zip(
        KINDS,
        ("#1f5fa8", "#b3470f", "#8a6500", "#7a3fa0", "#00737c", "#b02a5b", "#2b7a43", "#6b4f3a", "#5a6472", "#8793a5"),
        strict=True,
    )
)
STYLE = (  # "svg text" overrules the style of the page
    "svg text{font:11px system-ui,sans-serif;fill:#1a1e28}.pale{fill:#596275}.in{fill:#fff;pointer-events:none}"
    ".heading{font-size:13px;font-weight:600}rect{shape-rendering:crispEdges}.cut{stroke:#fff;stroke-width:.5}"
)


def as_svg(profile: Profile) -> str:
    """Return the picture: the modules of each block, and below them their nodes, coloured by kind."""
    groups = profile.blocks
    kinds = profile.kinds
    kept = f", keep ratio {ratios_in_words(profile.keep_ratios)}" if profile.keep_ratios else ""
    longest = max((group.seconds for group in groups), default=0.0) or 1.0
    times = [f"{group.seconds * 1e3:.2f} ms" for group in groups]
    scale = (WIDTH - LEFT - 8 - LETTER * max(map(len, times), default=0)) / longest
    legend = TOP + LINE * len(groups) + 8
    height = legend + ENTRY * ((len(kinds) + 1) // 2) + 6
    parts = [
        text(brief(f"{profile.path.name}, {profile.engine}, batch {profile.batch}", 54), 8, 18, class_="heading"),
        text(f"{profile.total * 1e3:.2f} ms in nodes{kept}; above modules, below nodes", 8, 34, class_="pale"),
    ]
    for index, (group, time) in enumerate(zip(groups, times, strict=True)):
        y = TOP + LINE * index
        nodes = tuple(node for node in profile.nodes if node.group == group.name)
        parts.append(text(_short(group.name, 16), LEFT - 6, y + 12, text_anchor="end"))
        parts += _line(nodes, y, scale)
        end = LEFT + group.seconds * scale
        parts.append(text(time, end + 5, y + 12, class_="pale"))
    for index, kind in enumerate(kinds):
        x, y = 8 + COLUMN * (index % 2), legend + ENTRY * (index // 2)
        parts.append(element("rect", x=x, y=y, width=10, height=10, fill=COLOURS[kind.name]))
        parts.append(text(f"{kind.name} {kind.share:.1%}", x + 15, y + 9))
    return drawing(WIDTH, height, heading(profile), STYLE, parts, widest=760)


def as_html(profile: Profile) -> str:
    """Return a page with the picture and the tables."""
    slowest = [
        (printable(node.name), f"{node.seconds * 1e3:.3f}", f"{profile.share(node.seconds):.1%}", node.kind)
        for node in profile.slowest
    ]
    table = table_of(("node", "ms", "share", "kind"), slowest)
    body = [
        element("p", escape(printable(heading(profile)))),
        element("p", escape(" ".join(overhead(profile)))),
        as_svg(profile),
        element("details", element("summary", "Slowest nodes"), table, open="open"),
    ]
    return document("Profile", body)


def _line(nodes: Sequence[NodeTime], y: float, scale: float) -> Iterator[str]:
    """Yield the rectangles of one block: its modules, in the order in which they begin, and below each its nodes."""
    x = float(LEFT)
    for name, own in modules_of(nodes):
        seconds = sum(node.seconds for node in own)
        width = seconds * scale
        by_kind = {kind: sum(node.seconds for node in own if node.kind == kind) for kind in KINDS}
        most = max(by_kind, key=lambda kind: by_kind[kind])
        hint = title(f"{name}: {seconds * 1e3:.3f} ms")
        yield _box(x, y, width, MODULES, most, hint)
        if len(name) * LETTER + 4 <= width:
            yield text(name, x + 3, y + MODULES - 4, class_="in")
        for node in own:
            part = node.seconds * scale
            hint = title(f"{node.name}, {node.kind}: {node.seconds * 1e3:.3f} ms")
            yield _box(x, y + MODULES, part, NODES, node.kind, hint)
            x += part


def _box(x: float, y: float, width: float, height: float, kind: str, hint: str) -> str:
    across = f"{x:.2f}", f"{width:.2f}"  # nodes may be thinner than a tenth of a unit
    return element("rect", hint, x=across[0], y=y, width=across[1], height=height, fill=COLOURS[kind], class_="cut")


def _short(name: str, length: int) -> str:
    """Return the end of a long name, because the names of a network's blocks differ at the end."""
    return name if len(name) <= length else "…" + name[1 - length :]
