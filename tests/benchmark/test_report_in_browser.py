"""The report on a phone, in Chromium: nothing reaches beyond the page, and its plots can be read."""

from __future__ import annotations

import pytest
from benchmark.fakes import report, row

from evodeploy.benchmark.report.page import as_html

FONT = 12  # pixels of the plots' text, where they are not scaled
SCALES = """() => [...document.querySelectorAll('svg')].filter(svg => svg.getBoundingClientRect().width)
    .map(svg => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)"""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_is_readable_at_380_pixels(browser, tmp_path, scheme):
    names = [(name, role) for name in ("torch", "openvino") for role in ("evo", "dense")]
    rows = [row(name, 4, batch, role) for name, role in names for batch in (1, 8)]
    path = tmp_path / "report.html"
    path.write_text(as_html(report(rows, {("cpu", "fp32"): 1e9})), encoding="utf-8")
    page = browser.new_page(viewport={"width": 380, "height": 800}, color_scheme=scheme)
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    scales = page.evaluate(SCALES)
    assert scales
    assert min(scales) * FONT >= 9
