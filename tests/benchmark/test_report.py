"""One bench as a document, a table, and a page."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from benchmark.fakes import fake, missing, raced, report, row
from rich.console import Console

from evodeploy.benchmark.report.document import as_csv
from evodeploy.benchmark.report.page import as_html
from evodeploy.benchmark.report.reading import read_benches
from evodeploy.benchmark.report.report import cautions, headlines
from evodeploy.benchmark.report.table import as_table


@pytest.fixture(scope="module")
def found():
    rows = raced(
        [fake("torch", flops=2e6), fake("openvino", flops=2e6), missing("tensorrt"), fake("torch", "dense"),
         fake("openvino", "dense")], [1, 2],
    )  # fmt: skip
    return report(rows, {("cpu", "fp32"): 1e9})


def test_the_document_has_one_object_a_row_with_all_its_samples(found):
    document = json.loads(json.dumps(found.to_dict()))
    assert document["schema"] == 3
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
    assert [line["engine"] for line in lines] == [row.spec.engine for row in found.rows]
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
        "fastest at batch 1: openvino fp32, 500.0 img/s, 2.00 (2.00 to 2.00) × PyTorch eager, its fastest (torch fp32)",
        "selection pays at every batch measured (1): torch fp32, openvino fp32",
    ]
    assert [line for line in cautions(found) if "no GPU here" in line] == ["tensorrt fp16 (evo): no GPU here"]


@pytest.fixture(scope="module")
def deep():
    """A report in which two batches in flight are twice as fast as one; the host's time may be in the last row."""
    rows = [
        row("torch", 4),
        row("tensorrt", 2),
        row("tensorrt", 1),
        row("tensorrt", 1),
        row("tensorrt", 3, role="dense"),
    ]
    rows[2] = dataclasses.replace(rows[2], in_flight=2, launches=8)
    rows[3] = dataclasses.replace(rows[3], in_flight=3, launches=8, exposed=True)
    return report(rows)


def test_rows_say_how_many_batches_are_in_flight_and_only_one_has_a_latency(deep):
    results = deep.to_dict()["results"]
    assert [found["in_flight"] for found in results] == [1, 1, 2, 3, 1]
    assert [found["launches"] for found in results] == [1, 1, 8, 8, 1]
    assert [found["exposed"] for found in results] == [False, False, False, True, False]
    assert [found["median_ms"] is None for found in results] == [False, False, True, True, False]
    assert results[2]["samples_ms"] == [1.0] * 6
    lines = list(csv.DictReader(io.StringIO(as_csv(deep))))
    assert [line["in_flight"] for line in lines] == ["1", "1", "2", "3", "1"]
    assert [line["median_ms_value"] for line in lines] == ["4.0", "2.0", "", "", "3.0"]


def test_the_table_and_the_page_show_depths_where_there_are_several(deep, found):
    def printed(what):
        console = Console(width=400, file=io.StringIO())
        console.print(as_table(what, 120))
        return [line.split() for line in console.file.getvalue().splitlines()]

    heading, *lines = printed(deep)
    assert "in flight" in " ".join(heading)
    assert [(line[4], line[5]) for line in lines] == [
        ("1", "250.0"), ("1", "500.0"), ("2", "1000.0"), ("3", "1000.0"), ("1", "333.3")
    ]  # fmt: skip
    assert "flight" not in printed(found)[0]
    assert "tensorrt fp32, 2 in flight" in as_html(deep)


def test_ratios_are_of_equal_depth_and_the_most_throughput_is_named(deep):
    assert list(headlines(deep)) == [
        "fastest at batch 1: tensorrt fp32, 500.0 img/s, 2.00 (2.00 to 2.00) × PyTorch eager, its fastest (torch fp32)",
        "most at batch 1: tensorrt fp32, 2 in flight, 1000.0 img/s",
        "selection pays at every batch measured (1): tensorrt fp32",
    ]
    results = deep.to_dict()["results"]
    assert [found["over_eager"] is None for found in results] == [False, False, True, True, False]
    assert [found["over_dense"] is None for found in results] == [True, False, True, True, True]


def test_a_gpu_that_began_before_all_was_enqueued_is_reported(deep):
    (caution,) = (line for line in cautions(deep) if "enqueued" in line)
    assert caution.startswith("batch 1: tensorrt fp32, 3 in flight (evo): the GPU began before")


def test_what_is_fastest_is_compared_with_the_fastest_of_pytorch_and_with_eager():
    eager, half, compiled = row("torch", 8), row("torch", 4, precision="bf16"), row("torch-compile", 3)
    others = [eager, half, compiled, row("torch-compile", 1, role="dense"), row("torch", 2, batch=8)]
    found = report([*others, row("tensorrt", 2, precision="fp16")])
    assert next(headlines(found)) == (
        "fastest at batch 1: tensorrt fp16, 500.0 img/s, 1.50 (1.50 to 1.50) × the fastest PyTorch "
        "(torch-compile fp32), 4.00 (4.00 to 4.00) × PyTorch eager (torch fp32)"
    )
    last = found.to_dict()["results"][-1]
    assert (last["fastest_torch"], last["over_torch"]["value"]) == ("torch-compile fp32", pytest.approx(1.5))
    assert (last["eager"], last["over_eager"]["value"]) == ("torch fp32", pytest.approx(4))
    assert next(headlines(report(others))) == (
        "fastest at batch 1: torch-compile fp32, 333.3 img/s, which is the fastest PyTorch, "
        "2.67 (2.67 to 2.67) × PyTorch eager (torch fp32)"
    )
    assert next(headlines(report([eager]))).endswith("125.0 img/s, which is PyTorch eager, its fastest")


@pytest.fixture(scope="module")
def gpu():
    """What a GPU gives: twenty rows with long names, twice as fast without transfers, and FP32 that may be TF32."""

    def of(name, role, transfers, milliseconds):
        each = dataclasses.replace(row(name, milliseconds, 8, role), device="cuda:0", transfers=transfers, tf32=True)
        return dataclasses.replace(each, spec=dataclasses.replace(each.spec, flops=1e9))

    names = ("torch", "torch-compile-max-autotune", "torch-compile-reduce-overhead", "onnxruntime", "tensorrt")
    rows = [
        of(name, role, transfers, (10 - number) * (1 if role == "evo" else 2) * (2 if transfers == "included" else 1))
        for role in ("evo", "dense")
        for number, name in enumerate(names)
        for transfers in ("included", "resident")
    ]
    rows += [dataclasses.replace(rows[8], in_flight=2)]
    return report(rows, {("cuda:0", "tf32"): 1e13})


def test_sentences_say_what_was_timed_without_transfers_and_name_few_rows(gpu):
    assert list(headlines(gpu)) == [
        "fastest at batch 8: tensorrt tf32 resident, 1333.3 img/s, 1.33 (1.33 to 1.33) × the fastest PyTorch "
        "(torch-compile-reduce-overhead tf32 resident), 1.67 (1.67 to 1.67) × PyTorch eager (torch tf32 resident)",
        "selection pays at every batch measured (8): torch tf32, torch tf32 resident, torch-compile-max-autotune tf32, "
        "torch-compile-max-autotune tf32 resident, torch-compile-reduce-overhead tf32, "
        "torch-compile-reduce-overhead tf32 resident and 4 more",
    ]


def test_a_terminal_of_80_columns_shows_a_gpus_speeds_whole(gpu):
    console = Console(width=80, file=io.StringIO())
    console.print(as_table(gpu, 80))
    shown = console.file.getvalue()
    assert "…" not in shown
    assert shown.split("\n")[0].split() == [
        "batch",
        "engine",
        "model",
        "transfers",
        "in",
        "flight",
        "img/s",
        "×",
        "dense",
    ]
    speeds = [f"{each.images_per_second.value:.1f}" for each in gpu.rows]
    assert [word for word in shown.split() if word in speeds] == speeds


def test_the_plots_have_room_for_the_longest_names(gpu):
    names = re.findall(r'<text x="([0-9.]+)"[^>]*class="name"[^>]*>([^<]+)</text>', as_html(gpu))
    assert "torch-compile-reduce-overhead tf32 resident, dense" in [name for _, name in names]
    assert all(float(x) >= 6.5 * len(name) for x, name in names if name.startswith("torch"))


def test_the_page_names_the_arithmetic_of_the_peak(gpu):
    page = as_html(gpu)
    assert "% of tf32" in page
    assert "% of fp32" not in page


def test_unstable_rows_are_reported(found):
    caution = list(cautions(report([row("torch", [1, 9, 1, 9, 1, 9])])))
    assert any("runs vary by" in line for line in caution)


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


def test_a_batch_of_rows_with_several_in_flight_alone_has_no_latencies():
    deep = dataclasses.replace(row("tensorrt", 2), in_flight=2)
    page = as_html(report([deep, row("torch", 2, batch=4)]))
    assert ("Latency at batch 4" in page, "Latency at batch 1" in page) == (True, False)


def test_names_in_the_page_are_escaped(found):
    subject = dataclasses.replace(found.subject, name="<b>bold</b>")
    assert "<b>bold" not in as_html(dataclasses.replace(found, subject=subject))


def test_a_name_that_is_not_utf8_is_saved_as_escapes_in_every_form(tmp_path):
    rows = [row("onnxruntime", 2), row("onnxruntime", 3)]
    named = [
        dataclasses.replace(each, spec=dataclasses.replace(each.spec, artefact=name))
        for each, name in zip(rows, ("\udcff.onnx", "é.onnx"), strict=True)
    ]
    for name in ("b.json", "b.csv", "b.html"):
        report(named).save(tmp_path / name)
        assert rb"\udcff.onnx" in (tmp_path / name).read_bytes(), name
    (document,) = read_benches(tmp_path / "b.json")
    assert [each["artefact"] for each in document["results"]] == [r"\udcff.onnx", "é.onnx"]


def test_an_output_of_another_shape_is_wrong_and_no_broken_json():
    wide = fake("wide", compute=lambda images: {"logits": np.zeros((len(images), 4), np.float32)})
    document = json.loads(json.dumps(report(raced([fake("torch"), wide])).to_dict(), allow_nan=False))
    _, found = document["results"]
    assert (found["status"], found["check"]["error"]) == ("wrong", None)
    assert "has shape" in found["check"]["problem"]
