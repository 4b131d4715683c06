"""Every figure of the README and of docs/, measured again: `python benchmarks/figures.py [--only NAME,…] [--list]`.

Runs the command behind each table and sentence (figures_list.py), compares what it prints with what the pages say, and
names each figure that differs by more than its noise. A value with an interval differs where the two intervals do not
meet. Writes a JSON document after each command; each entry has the facts of the machine that ran it, and those that
do not run this time keep their last results. Ends with 1 where a figure differs or a command fails. It needs a quiet
machine. A command whose figures need instructions that this processor lacks does not run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from figures_list import ENTRIES
from figures_places import Entry, Table, Text

from evodeploy.files import replacing
from evodeploy.machine.cores import usable_cores
from evodeploy.machine.environment import environment

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "figures.json"
QUIET = 0.3  # load over which the machine has other work


def main() -> None:
    """Run, compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="NAME,…", help="some of those that --list names")
    parser.add_argument("--list", action="store_true", help="print names, minutes, pages and commands; run nothing")
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    asked = parser.parse_args()
    names = asked.only.split(",") if asked.only else list(ENTRIES)
    if unknown := [name for name in names if name not in ENTRIES]:
        parser.error(f"no figure is called {', '.join(unknown)}: expected some of {', '.join(ENTRIES)}")
    if asked.list:
        for name in names:
            print(described(name, ENTRIES[name]))
        return
    load = os.getloadavg()[0]
    if load > QUIET:
        print(f"warning: the load is {load:.1f}: times of this run say little", file=sys.stderr)
    machine = environment(usable_cores())
    results = before(asked.output)
    bad = 0
    for name in names:
        entry = ENTRIES[name]
        if lacking := sorted(set(entry.flags).difference(machine.flags)):
            reason = f"the processor lacks {', '.join(lacking)}"
            results.setdefault(name, {"name": name, "command": entry.command, "not_run": reason})
            print(f"{name}: not run: {reason}", flush=True)
        else:
            found = measured(name, entry) | {"environment": dataclasses.asdict(machine)}
            results[name] = found
            bad += bool(found["differences"])
            print(f"{name}: {found['seconds'] / 60:.1f} min, {found['compared']} figures compared", flush=True)
            for difference in found["differences"]:
                print(f"  {difference}", flush=True)
        write(asked.output, {"figures": [results[each] for each in ENTRIES if each in results]})
    sys.exit(1 if bad else 0)


def before(path: Path) -> dict[str, dict[str, Any]]:
    """The results of earlier runs in a document, by name."""
    if not path.exists():
        return {}
    return {found["name"]: found for found in json.loads(path.read_text(encoding="utf-8"))["figures"]}


def described(name: str, entry: Entry) -> str:
    """One entry as `--list` prints it."""
    pages = ", ".join(dict.fromkeys(place.page for place in entry.places))
    return f"{name:<16} {entry.minutes:>4} min  {pages}\n{'':<16} {entry.needs and entry.needs + ': '}{entry.command}"


def measured(name: str, entry: Entry) -> dict[str, Any]:
    """Run the command of an entry in a folder of its own, and compare what it prints with the pages."""
    began, load = time.perf_counter(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        variables = os.environ | {"PATH": paths, "PYTHONPATH": str(ROOT), "ROOT": str(ROOT)}
        run = subprocess.run(
            ["bash", "-euc", entry.command], cwd=folder, env=variables, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        printed, results = run.stdout, []
        if run.returncode:
            last = (run.stderr.strip().splitlines() or [""])[-1]
            results = [(0, [f"the command ended with {run.returncode}: {last}"])]
        else:
            try:
                printed = entry.layout(Path(folder), printed)
                results = [compared(place, printed, entry.noise) for place in entry.places]
            except (LookupError, TypeError, ValueError, OSError) as error:  # one that fails keeps no other from running
                results = [(0, [f"what it printed or wrote is not as expected: {type(error).__name__}: {error}"])]
    return {
        "name": name,
        "command": entry.command,
        "seconds": round(time.perf_counter() - began, 1),
        "load": load,
        "output": printed,
        "compared": sum(count for count, _ in results),
        "differences": [line for _, lines in results for line in lines],
    }


def compared(place: Table | Text, printed: str, noise: float) -> tuple[int, list[str]]:
    """How many cells of a page were compared with what was `printed`, and those that differ."""
    page = (ROOT / place.page).read_text(encoding="utf-8")
    pairs = list(place.pairs(page, printed))
    if not pairs:
        return 0, [f"{place.page}: nothing like '{place.name}' was printed, or is on the page"]
    lines = [
        f"{place.page}: {where}: the page says '{said}', measured '{now}'"
        for where, said, now in pairs
        if differs(said, now, noise)
    ]
    return len(pairs), lines


def differs(said: str, now: str, noise: float) -> bool:
    """Whether the numbers in two texts differ by more than `noise`, a share; without noise, whether any does."""
    ours, theirs = numbers(said), numbers(now)
    if not noise or not ours or not theirs:
        return ours != theirs
    if len(ours) == len(theirs) == 3 and ours[1] <= ours[0] <= ours[2]:
        return ours[1] > theirs[2] or theirs[1] > ours[2]
    return len(ours) != len(theirs) or any(abs(a - b) > noise * abs(a) for a, b in zip(ours, theirs, strict=True))


def numbers(text: str) -> list[float]:
    """The numbers in a text; commas between thousands are left out."""
    return [float(each) for each in re.findall(r"\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d{3})", "", text))]


def write(path: Path, document: dict[str, Any]) -> None:
    """The document as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        draft.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
