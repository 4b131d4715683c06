"""Files and folders of a package, moved into place together: either all of them, or the earlier ones are restored.

While they are moved, the draft holds the earlier files in `earlier/`. A killed run leaves the draft, and the next run
that writes this package begins with `restore`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from evodeploy.schema import read_json

EARLIER, REPLACED, PLACES = "earlier", "replaced", "places.json"


@contextlib.contextmanager
def drafted(draft: Path, folder: Path, places: Sequence[str]) -> Iterator[Path]:
    """Make a folder `draft` in which to build the `places`, then move them to `folder`; remove the draft at the end."""
    _remove(draft)  # left by a run that was killed
    draft.mkdir()
    try:
        yield draft
        (draft / PLACES).write_text(json.dumps(places), encoding="utf-8")
        _move(draft, folder, places)
    finally:
        restore(draft, folder, places)
        _remove(draft)


def restore(draft: Path, folder: Path, places: Sequence[str]) -> None:
    """If the draft holds an interrupted move of some of `places`, undo it. The undoing may be interrupted too."""
    earlier = draft / EARLIER
    if not earlier.is_dir():
        return
    moved = read_json((draft / PLACES).read_bytes())
    for place in (each for each in places if each in moved):
        if (folder / place).exists() and not (draft / place).exists():
            (folder / place).rename(draft / place)
        if (earlier / place).exists():
            (earlier / place).rename(folder / place)
    earlier.rename(draft / REPLACED)


def _move(draft: Path, folder: Path, places: Sequence[str]) -> None:
    for place in places:
        for parent in (folder / place, draft / EARLIER / place):
            parent.parent.mkdir(parents=True, exist_ok=True)
    for place in places:
        if (folder / place).exists():
            (folder / place).rename(draft / EARLIER / place)
        (draft / place).rename(folder / place)
    (draft / EARLIER).rename(draft / REPLACED)


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
