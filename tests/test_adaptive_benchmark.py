"""benchmarks/adaptive.py: its table and picture, and a run on the bundled network."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import adaptive_report
import pytest
from adaptive_report import as_svg, table


def point(server, factor, answered, accuracy):
    return {
        "server": server, "factor": factor, "requests": 100, "answered": answered, "refused": 100 - answered,
        "in_time": answered / 100, "keep_ratio": 0.5, "accuracy": accuracy,
        "interval": [0.8, 0.9] if answered else None,
        "latency": {"p50": 0.1, "p99": 0.2} if answered else {"p50": None, "p99": None},
    }  # fmt: skip


DOCUMENT = {
    "engine": "openvino", "seconds": 30.0, "target": 0.5, "capacity": [30.0, 29.0], "load": [0.1, 2.0],
    "environment": {"cores": 2},
    "points": [
        point("dense", 1.0, 90, 0.9), point("adaptive", 1.0, 100, 0.8),
        point("dense", 2.0, 0, None),
        point("adaptive", 2.0, 60, 0.5),
    ],
}  # fmt: skip


def test_the_table_has_a_row_for_each_server_and_rate_and_the_answers_of_all():
    lines = list(table(DOCUMENT))
    assert "| 1 | dense | 100 ms | 200 ms | 90.0% | 10.0% | 0.50 | 90.0% | 80.0%–90.0% |" in lines
    assert "| 2 | dense | – | – | 0.0% | 100.0% | 0.50 | – | 0.0%–100.0% |" in lines
    assert lines[-2:] == ["| dense | 90 | 90.00% |", "| adaptive | 160 | 68.75% |"]


def test_the_picture_has_a_point_for_each_value():
    root = ElementTree.fromstring(as_svg(DOCUMENT))
    assert root.attrib["width"] == "380"
    hints = [each.text for each in root.iter("{http://www.w3.org/2000/svg}title")]
    assert hints[1:] == [
        "dense at 1: 90.0", "dense at 2: 0.0", "adaptive at 1: 100.0", "adaptive at 2: 60.0",
        "dense at 1: 90.0", "adaptive at 1: 80.0", "adaptive at 2: 50.0",
        "dense at 1: 200.0", "adaptive at 1: 200.0", "adaptive at 2: 200.0",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_three_servers_take_turns_on_the_bundled_network(tmp_path):
    output, picture = tmp_path / "adaptive.json", tmp_path / "adaptive.svg"
    command = [
        sys.executable,
        Path(adaptive_report.__file__).with_name("adaptive.py"),
        "--smoke",
        "--target",
        "5000",
        "-o",
        output,
    ]
    printed = subprocess.run([*command, "--picture", picture], check=True, capture_output=True, text=True).stdout
    document = json.loads(output.read_text())
    servers = ["dense", "keep 0.5", "adaptive"]
    turns = [(factor, server) for factor in (1.0, 2.0) for server in servers]
    assert sorted((each["factor"], each["server"]) for each in document["points"]) == sorted(turns)
    assert len(document["capacity"]) == 2
    for each in document["points"]:
        assert each["failed"] == 0
        assert each["accuracy"] is None or each["accuracy"] > 0.8
    assert ElementTree.fromstring(picture.read_text()).attrib["role"] == "img"
    assert "| 1 | dense |" in printed
