"""One bench as a document, a table, and a page."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from bench.fakes import fake, missing, raced, report, row
from rich.console import Console

from evodeploy.bench.document import as_csv, as_json
from evodeploy.bench.page import as_html
from evodeploy.bench.report import cautions, headlines
from evodeploy.bench.table import as_table


@pytest.fixture(scope="module")
def found():
    rows = raced(
        [fake("torch", flops=2e6), fake("openvino", flops=2e6), missing("tensorrt"), fake("torch", "dense"),
         fake("openvino", "dense")], [1, 2],
    )  # fmt: skip
    return report(rows, {("cpu", "fp32"): 1e9})


def test_the_document_has_one_object_a_row_with_all_its_samples(found):
    document = json.loads(json.dumps(as_json(found)))
    assert document["schema"] == 2
    assert document["model"]["name"] == "fake"
    assert document["environment"]["threads"] == 1
    first, second, third = document["results"][:3]
    assert first["status"] == second["status"] == "ok"
    assert first["images_per_second"]["value"] == pytest.approx(1e3 / first["median_ms"]["value"])
    assert first["share_of_peak"] == pytest.approx(2e6 * first["images_per_second"]["value"] / 1e9)
    assert len(first["samples_ms"]) == 6
    assert (third["status"], third["reason"]) == ("unavailable", "no GPU here")


def test_the_csv_has_a_line_a_row(found):
    lines = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [line["engine"] for line in lines] == [row.candidate.engine for row in found.rows]
    assert float(lines[0]["median_ms_value"]) == pytest.approx(found.rows[0].timing.median * 1e3)
    assert not any("samples" in name for name in lines[0])


@pytest.mark.parametrize("width", [80, 100, 120, 300])
def test_the_table_fits_its_terminal_and_keeps_what_matters(found, width):
    console = Console(width=400, file=io.StringIO())
    console.print(as_table(found, width))
    lines = console.file.getvalue().rstrip().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= min(width, 120)
    assert all(word in lines[0] for word in ("engine", "img/s", "× eager"))
    assert ("p99" in lines[0]) == (width >= 120)


def test_the_fastest_is_named_and_what_is_missing_is_said_once(found):
    rows = [row("torch", 4), row("openvino", 2), row("torch", 6, role="dense"), row("openvino", 3, role="dense")]
    assert list(headlines(report(rows))) == [
        "fastest at batch 1: openvino fp32, 500.0 img/s, 2.00 (2.00 to 2.00) × PyTorch eager",
        "selection pays at every batch measured (1): torch fp32, openvino fp32",
    ]
    assert [line for line in cautions(found) if "no GPU here" in line] == ["tensorrt fp16 (evo): no GPU here"]


def test_unstable_rows_are_told(found):
    told = list(cautions(report([row("torch", [1, 9, 1, 9, 1, 9])])))
    assert any("runs vary by" in line for line in told)


class Page(HTMLParser):
    void = ("meta", "br", "input", "hr", "link")

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.references = [], set(), []

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)
        self.references += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_no_network(found):
    html = as_html(found)
    page = Page()
    page.feed(html)
    assert page.open == []
    assert {"svg", "title", "table"} <= page.seen
    assert all(reference.startswith("#") for reference in page.references)
    assert not re.search(r"(?:src|href|url|@import)\s*[=(]?\s*['\"]?https?://", html)
    assert "<script" not in html
    assert "no GPU here" in html


def test_names_in_the_page_are_escaped(found):
    import dataclasses

    subject = dataclasses.replace(found.subject, name="<b>bold</b>")
    assert "<b>bold" not in as_html(dataclasses.replace(found, subject=subject))


def test_an_output_of_another_shape_is_wrong_and_no_broken_json():
    wide = fake("wide", compute=lambda images: {"logits": np.zeros((len(images), 4), np.float32)})
    document = json.loads(json.dumps(as_json(report(raced([fake("torch"), wide]))), allow_nan=False))
    _, found = document["results"]
    assert (found["status"], found["check"]["error"]) == ("wrong", None)
    assert "has shape" in found["check"]["problem"]
