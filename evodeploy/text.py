"""Text from outside, made safe to print: names, paths and messages that others wrote.

Some characters control a terminal, and some cannot be encoded. They are shown as escapes, at the one place where text
is printed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

WIDE = 1000  # characters of a line that is not wrapped
NAMED = 10  # entries that the log names of those left out
LIMIT = 300  # characters that one sentence shows of a text from outside
_PLACE = "Exception from "  # OpenVINO's messages begin with lines that name places in its source code

_BIDIRECTIONAL = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_SEPARATORS = "\u2028\u2029"  # a reader that splits lines by Unicode's rules sees two lines
_SURROGATES = "\ud800-\udfff"  # bytes of a path that are not UTF-8, or half of a pair in JSON: no encoding has them
_UNSAFE = re.compile(rf"[\x00-\x09\x0b-\x1f\x7f-\x9f{_BIDIRECTIONAL}{_SEPARATORS}{_SURROGATES}]")


def printable(text: str) -> str:
    r"""Return `text` with control and bidirectional characters and lone surrogates as escapes; newlines are kept."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def line(text: str) -> RenderableType:
    """Return `text` for Rich without wrapping or cutting it."""
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="ignore")


def rich_table(headings: Sequence[str], left: Container[str] = (), *, folds: bool = True) -> Table:
    """Return an empty table without lines: the columns in `left` are aligned left, the others right."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in left else "right", no_wrap=not folds)
    return table


def plain(what: RenderableType, width: int = 120) -> str:
    """Return `what` as Rich prints it, as text without colours, with tables at most `width` characters wide."""
    from rich.console import Console

    console = Console(width=width, color_system=None, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(what, crop=False)
    return printable(captured.get()).rstrip("\n")


def json_text(document: Any) -> str:
    r"""Return `document` as indented JSON. Lone surrogates, which no encoding can write, become text like `\ud83d`."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1)
    return re.sub(f"[{_SURROGATES}]", lambda found: rf"\\u{ord(found[0]):x}", text)


def ratios_in_words(ratios: Sequence[float]) -> str:
    """Format the keep ratios of the stages: `0.7`, or `0.7/0.5` if stages differ, as `--keep` takes them."""
    return "/".join(f"{ratio:g}" for ratio in (ratios if len(set(ratios)) > 1 else ratios[:1]))


def megabytes(size: int) -> str:
    """Format `size` bytes in millions."""
    return f"{size / 1e6:.1f} MB"


def reason(error: BaseException, line: int = 0) -> str:
    """Return why a library failed, for a sentence of ours: one `line` of its message, or the error's type if empty."""
    return one_line(str(error), type(error).__name__, line)


def one_line(message: str, otherwise: str, line: int = 0) -> str:
    """Return one of the informative lines of `message`, the first by default, or `otherwise` if there is none."""
    lines = [each.strip() for each in message.splitlines() if each.strip()] or [otherwise]
    return brief(([each for each in lines if not each.startswith(_PLACE)] or lines)[line])


def raised(traceback: str) -> str:
    """Return the error that a `traceback` ends with, without its type if it is one of ours; "" for no text."""
    return re.sub(r"^evodeploy[\w.]*: ", "", one_line(traceback, "", -1))


def left_out(what: Sequence[object]) -> list[str]:
    """Return log lines about what was left out: the first `NAMED` entries, and the number of the others."""
    more = len(what) - NAMED
    return [f"left out: {each}" for each in what[:NAMED]] + ([f"left out: {more} more"] if more > 0 else [])


def brief(text: str, limit: int = LIMIT) -> str:
    r"""Return `printable(text)` on one line, with newlines as `\n`, cut to `limit` characters, the last of them "…"."""
    shown = printable(text[: limit + 1]).replace("\n", r"\n")
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
