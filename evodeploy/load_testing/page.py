"""A load test as one HTML page with plots, without scripts or external files."""

from __future__ import annotations

from html import escape

from evodeploy.benchmark.report.charts import Lane, bars, dots
from evodeploy.benchmark.report.page import document, table_of
from evodeploy.benchmark.report.page_style import COLOURS
from evodeploy.benchmark.report.svg import element
from evodeploy.load_testing.records import HEADINGS, LoadTest


def as_html(test: LoadTest) -> str:
    """Return the whole page."""
    lanes = [
        Lane(load.name, f"c{number % COLOURS}", [each.seconds * 1000 for each in load.answered])
        for number, load in enumerate(test.loads)
        if load.answered
    ]
    p99 = [Lane(load.name, "c0", [(load.quantile(0.99) or 0) * 1000]) for load in test.loads if load.answered]
    targets = {load.target for load in test.loads if load.target is not None}
    plots = []
    if lanes:
        heading = "Milliseconds from the time a request was to be sent to its answer"
        limits = [("target", target * 1000) for target in sorted(targets)]
        plots.append(element("figure", element("h3", heading), dots("Latency", "ms", lanes)))
        plots.append(element("figure", element("h3", "Slowest of a hundred"), bars("p99", "ms", p99, limits)))
    body = [
        element("h1", escape(test.url)),
        element("p", escape(test.what), class_="machine"),
        element("div", *plots, class_="plots"),
        element("h2", "Loads"),
        element("div", table_of(HEADINGS, [load.cells() for load in test.loads]), class_="scroll"),
        element(
            "p",
            "Requests are sent at times that do not depend on answers, and latencies count from these times; with "
            "connections, each asks again once it is answered. Quantiles are of answers with status 200, or OK; "
            "refused are 429 and 503, or RESOURCE_EXHAUSTED; in time are those within the target, of all requests.",
        ),
    ]
    return document(f"{test.url}: load test", body)
