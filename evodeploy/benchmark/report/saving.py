"""A bench written to a file, in the form that its suffix names."""

from __future__ import annotations

import json
from pathlib import Path

from evodeploy.benchmark.report.document import as_csv, as_dict
from evodeploy.benchmark.report.page import as_html
from evodeploy.benchmark.report.report import Report
from evodeploy.errors import UsageError
from evodeploy.files import claimed, replacing
from evodeploy.kinds import MEASUREMENTS, PAGE, REPORT, suffix_of


def save(report: Report, path: Path, *, force: bool = False) -> None:
    """Write `report` to `path`, see `Report.save`."""
    found = next((form for form in FORMS if suffix_of(path) in form[0].suffixes), None)
    if found is None:
        expected = ", ".join(suffix for kind, _ in FORMS for suffix in kind.suffixes)
        raise UsageError(f"a bench cannot be written to {path}: expected a name that ends with {expected}")
    kind, text = found
    with claimed([(path, kind)], force), replacing(path) as draft:
        draft.write_text(text(report), encoding="utf-8")


def _as_json(report: Report) -> str:
    return json.dumps(as_dict(report), allow_nan=False, indent=1) + "\n"


FORMS = ((REPORT, _as_json), (MEASUREMENTS, as_csv), (PAGE, as_html))
