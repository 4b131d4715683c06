"""What a module of TensorRT's lacks: `python lookup.py MODULE < uses.json`, answered in JSON.

A use is [class, member, positional arguments, keywords], the class "" for the module itself and the arguments null
where the member is not called. Runs in any interpreter, with nothing but the standard library.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from types import ModuleType


def parameters(doc: str) -> list[tuple[list[str], int]]:
    """The names of a method's parameters and how many have no default, for each overload that `doc` describes."""
    found = []
    for inner in re.findall(r"^(?:\d+\. )?\w+\((self: .*?)\)(?: ->|$)", doc, re.MULTILINE):
        parts = re.split(r", (?=\w+: |\*)", inner)[1:]
        names = [part.split(":")[0] for part in parts]
        found.append((names, sum(" = " not in part for part in parts)))
    return found


def lacks(module: ModuleType, kind: str, member: str, count: int | None, keywords: list[str]) -> str:
    """Why the use is not possible; empty where it is."""
    holder = getattr(module, kind, None) if kind else module
    if holder is None:
        return f"no {kind}"
    if not hasattr(holder, member):
        return f"no {kind}.{member}" if kind else f"no {member}"
    overloads = parameters(getattr(holder, member).__doc__ or "") if kind and count is not None else []
    for names, required in overloads:
        free = [name for name in names[count:] if name not in keywords]
        if count <= len(names) and set(keywords) <= set(names[count:]) and len(names) - len(free) >= required:
            return ""
    return f"{kind}.{member} takes {overloads}, not {count} and {keywords}" if overloads else ""


if __name__ == "__main__":
    module = importlib.import_module(sys.argv[1])
    uses = json.load(sys.stdin)
    problems = [problem for use in uses if (problem := lacks(module, *use))]
    json.dump({"version": module.__version__, "lacks": problems}, sys.stdout)
