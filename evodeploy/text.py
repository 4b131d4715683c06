"""Text from outside, made safe to print: names, paths and messages that others wrote.

A terminal acts on some characters, and some cannot be written at all. They are shown as escapes, once, where text
leaves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

WIDE = 1000  # characters of a line that is not folded
NAMED = 10  # of what was left out, in the log
LIMIT = 300  # characters of a text from outside that one sentence shows
_PLACE = "Exception from "  # OpenVINO's messages begin with lines that name places in its source

_BIDIRECTIONAL = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_SEPARATORS = "\u2028\u2029"  # a reader that splits lines as Unicode does sees two lines
_SURROGATES = "\ud800-\udfff"  # a path's bytes that are not UTF-8, or half of a pair in JSON: no encoding has them
_UNSAFE = re.compile(rf"[\x00-\x09\x0b-\x1f\x7f-\x9f{_BIDIRECTIONAL}{_SEPARATORS}{_SURROGATES}]")


def printable(text: str) -> str:
    r"""`text` with control and bidirectional characters and lone surrogates as escapes (`\x1b`); newlines are kept."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def line(text: str) -> RenderableType:
    """`text` for Rich: whole, however long it is."""
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="ignore")


def rich_table(headings: Sequence[str], left: Container[str] = (), *, folds: bool = True) -> Table:
    """An empty table without lines: the columns whose headings are in `left` are aligned left, the others right."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in left else "right", no_wrap=not folds)
    return table


def plain(what: RenderableType, width: int = 120) -> str:
    """Return what Rich shows of `what` as text without colours, tables at most `width` characters wide."""
    from rich.console import Console

    console = Console(width=width, color_system=None, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(what, crop=False)
    return printable(captured.get()).rstrip("\n")


def json_text(document: Any) -> str:
    r"""`document` as JSON on indented lines; a lone surrogate, which no encoding has, is the text of its escape."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1)
    return re.sub(f"[{_SURROGATES}]", lambda found: rf"\\u{ord(found[0]):x}", text)


def ratios_in_words(ratios: Sequence[float]) -> str:
    """Keep ratios of the stages: `0.7`, or where stages differ `0.7/0.5`, as `--keep` takes them."""
    return "/".join(f"{ratio:g}" for ratio in (ratios if len(set(ratios)) > 1 else ratios[:1]))


def megabytes(size: int) -> str:
    """`size` bytes in millions."""
    return f"{size / 1e6:.1f} MB"


def reason(error: BaseException, line: int = 0) -> str:
    """What a library raised, for a sentence of ours: one `line` of its message, or the error's type without one."""
    return one_line(str(error), type(error).__name__, line)


def one_line(message: str, otherwise: str, line: int = 0) -> str:
    """One of the lines of `message` that say something, the first by default, and `otherwise` where none does."""
    lines = [each.strip() for each in message.splitlines() if each.strip()] or [otherwise]
    return brief(([each for each in lines if not each.startswith(_PLACE)] or lines)[line])


def left_out(what: Sequence[object]) -> list[str]:
    """Lines for the log on what was left out: the first `NAMED`, each with its reason, and how many more."""
    more = len(what) - NAMED
    return [f"left out: {each}" for each in what[:NAMED]] + ([f"left out: {more} more"] if more > 0 else [])


def brief(text: str, limit: int = LIMIT) -> str:
    r"""`printable(text)` on one line, newlines shown as `\n`, of at most `limit` characters, the last of them "…"."""
    shown = printable(text[: limit + 1]).replace("\n", r"\n")
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
